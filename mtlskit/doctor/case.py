"""What is examined, and with which means; and what one check leaves to those that build on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509

from mtlskit.config.values import Endpoint, IdentityConfig, ProxyConfig, TunnelConfig, TunnelKind
from mtlskit.doctor.finding import Finding

if TYPE_CHECKING:
    from mtlskit.doctor.tls.looking import Known
    from mtlskit.heroku.client import Heroku
    from mtlskit.net.identity import IdentitySnapshot, Trust
    from mtlskit.net.names import Address
    from mtlskit.pki.identity import CheckedPair

__all__ = ["Case", "Credentials", "Identified", "Means", "Opened", "Reached", "Resolved", "Shaken", "Taken"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Credentials:
    """Who logs in to Postgres for the look inside. Never shown."""

    user: str
    database: str
    password: str | None = field(default=None, repr=False)
    source: str = ""
    """Where it was found, for sentences: "PGUSER and PGPASSWORD", "the add-on's credential default"."""


@dataclass(frozen=True)
class Means:
    """What the checks work with. Times in seconds."""

    now: Callable[[], datetime] = _utc_now
    deadline: float = 15.0
    """For all of it."""
    step: float = 5.0
    """For one step on the network: a look-up, a connection, a handshake. What is silent for longer has failed."""
    environ: Mapping[str, str] = field(default_factory=dict)
    heroku: Callable[[], AbstractAsyncContextManager[Heroku]] | None = None
    """Opens both APIs; raises ConfigError where there is no token. None: Heroku is not to be asked."""
    write_test: str | None = None
    """A Kafka topic that a record may be written to."""
    versions: Known = field(default_factory=dict)
    """What earlier looks with these means have shown of the versions of TLS; see `look`."""


@dataclass(frozen=True)
class Case:
    """One tunnel under examination, of the file or described by flags."""

    name: str
    tunnel: TunnelConfig
    """Its `upstream` is empty where Heroku is asked for it (`tunnel.addon`)."""
    identity: IdentityConfig | None
    """None: flags have named no certificate; what can be seen without one is looked at."""
    config: ProxyConfig
    """The file, as far as it can be read, or what flags described."""
    of_file: bool
    """A tunnel of a file: a proxy should be running for it. Else there is no local side."""
    means: Means
    findings: tuple[Finding, ...] = ()
    """What is known before anything is looked at: layer CONFIGURATION."""
    file_is_broken: bool = False
    """Something else in the file is wrong, so that no proxy starts with it."""

    @property
    def kind(self) -> TunnelKind:
        """What the tunnel speaks."""
        return self.tunnel.kind


@dataclass(frozen=True)
class _Result:
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Identified(_Result):
    """The identity and the trust anchors. What is None is of no use, and `findings` say why."""

    pair: CheckedPair | None = None
    trust: Trust | None = None
    snapshot: IdentitySnapshot | None = None
    """With the tunnel's `verify` and ALPN; set if both others are."""


@dataclass(frozen=True)
class Resolved(_Result):
    """What a host name leads to."""

    addresses: tuple[Address, ...] = ()
    """As `mtlskit.net.names.Address`: family and sockaddr."""


@dataclass(frozen=True)
class Reached(_Result):
    """Which of the addresses take a TCP connection."""

    open: tuple[Address, ...] = ()
    round_trip: float | None = None
    """Seconds for the fastest handshake of TCP."""


@dataclass(frozen=True)
class Opened(_Result):
    """Whether TLS can begin there: the SSLRequest was answered with S, or a ClientHello with a ServerHello."""

    ready: bool = False


@dataclass(frozen=True)
class Shaken(_Result):
    """The handshake, as the server plays it, whatever we think of the server."""

    chain: tuple[x509.Certificate, ...] = ()
    """What the server has presented, leaf first; empty where no handshake came so far."""
    trusted: bool = False
    """The tunnel's `verify` and pins pass: a session may begin."""
    version: str = ""
    cipher: str = ""
    asks_for_certificate: bool | None = None
    """None: not known."""
    ca_names: tuple[str, ...] = ()
    """RFC 4514 names of the CAs that the server says it takes client certificates of; empty: it names none."""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken(_Result):
    """What the server makes of our client certificate."""

    accepted: bool = False
    """The server has answered a first message of the service after the handshake; only then is it known."""
    server_time: datetime | None = None
    endpoint: Endpoint | None = None
