"""Tunnels that come and go, their identities, and the proxy as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.proxy.events.bases import OfTunnel, TunnelFailure, TunnelWarning, counted, minute
from mtlskit.telemetry import Event, Level

__all__ = [
    "DrainFinished",
    "DrainStarted",
    "IdentityChanged",
    "IdentityKept",
    "IdentityLoaded",
    "IdentityWarned",
    "ProxyReady",
    "ReadyFileKept",
    "TunnelFailed",
    "TunnelListening",
    "TunnelNoted",
    "TunnelWarned",
    "UpstreamSkipped",
    "WarmCounted",
    "WarmFailed",
    "WarmRecovered",
]


@dataclass(frozen=True, kw_only=True)
class TunnelListening(OfTunnel):
    """A tunnel accepts clients."""

    kind: str
    addresses: tuple[str, ...]
    upstream: tuple[str, ...]
    verify: str
    open_to: str
    system_roots: bool = False
    """No `ca` is set, so that the server's chain is compared with the system's roots."""
    brokers: str = ""
    """Where the brokers of a Kafka tunnel are found."""

    def sentence(self) -> str:
        roots = " with the system's roots" if self.system_roots else ""
        brokers = f" ({self.brokers})" if self.brokers else ""
        return (
            f"{self.tunnel}: {self.kind} on {' and '.join(self.addresses)}{brokers} to {', '.join(self.upstream)}"
            f" (verify {self.verify}{roots}), open to {self.open_to}"
        )


@dataclass(frozen=True, kw_only=True)
class TunnelFailed(TunnelFailure):
    """A tunnel could not start; the others go on, and a reload tries it again."""

    level: ClassVar[Level] = Level.ERROR

    def sentence(self) -> str:
        return self._told("not started: ")


@dataclass(frozen=True, kw_only=True)
class TunnelWarned(TunnelWarning):
    """A tunnel accepts clients, and something about its settings deserves attention."""


@dataclass(frozen=True, kw_only=True)
class TunnelNoted(OfTunnel):
    """A tunnel accepts clients, and something that was decided for it is worth knowing. Nothing is wrong."""

    note: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.note}"


@dataclass(frozen=True, kw_only=True)
class IdentityLoaded(OfTunnel):
    """New sessions of a tunnel use this identity from now on."""

    identity: str
    serial: str
    not_after: str
    """ISO 8601, UTC."""

    def sentence(self) -> str:
        until = minute(self.not_after)
        return f"{self.tunnel}: identity {self.identity} in use, serial {self.serial}, valid until {until}"


@dataclass(frozen=True, kw_only=True)
class IdentityChanged(OfTunnel):
    """The files of an identity have been replaced, and are read again. `identity_loaded` or `identity_kept` follows."""

    identity: str
    files: tuple[str, ...]
    """Which of cert, key, ca and passphrase_file."""

    def sentence(self) -> str:
        files = " and ".join(self.files)
        return f"{self.tunnel}: {files} of identity {self.identity} changed on the disk, reading the identity again"


@dataclass(frozen=True, kw_only=True)
class IdentityWarned(TunnelWarning):
    """An identity works, and something about it deserves attention."""


@dataclass(frozen=True, kw_only=True)
class IdentityKept(TunnelFailure):
    """A reload failed, and the old identity goes on serving."""

    level: ClassVar[Level] = Level.ERROR

    def sentence(self) -> str:
        return self._told("reload failed, the old identity stays in use: ")


@dataclass(frozen=True, kw_only=True)
class WarmCounted(OfTunnel):
    """What became of the connections that a tunnel made in advance, when it stops."""

    hits: int
    misses: int
    made: int
    aged: int
    dead: int
    dropped: int
    failed: int
    replayed: int

    def sentence(self) -> str:
        return (
            f"{self.tunnel}: {self.hits} of {counted(self.hits + self.misses, 'client')} found a connection ready;"
            f" of {self.made} made in advance {self.hits} were used, {self.aged} grew too old, {self.dead} died"
            f" and {self.dropped} were closed unused; {self.failed} could not be made,"
            f" {counted(self.replayed, 'login')} began again"
        )


@dataclass(frozen=True, kw_only=True)
class WarmFailed(TunnelFailure):
    """Connections in advance cannot be made. Told once, until one has been made again."""

    def sentence(self) -> str:
        return self._told("no connections in advance for now: ")


@dataclass(frozen=True, kw_only=True)
class WarmRecovered(OfTunnel):
    """A connection has been made in advance again, after a `WarmFailed`."""

    def sentence(self) -> str:
        return f"{self.tunnel}: connections in advance can be made again"


@dataclass(frozen=True, kw_only=True)
class ProxyReady(Event):
    """Every listener accepts."""

    tunnels: int
    failed: int

    def sentence(self) -> str:
        return f"ready: {counted(self.tunnels, 'tunnel')}" + (f"; {self.failed} could not start" if self.failed else "")


@dataclass(frozen=True, kw_only=True)
class ReadyFileKept(Event):
    """A reload has changed the state of the tunnels, and the ready file could not be written again."""

    level: ClassVar[Level] = Level.WARNING

    code: str
    reason: str
    hint: str

    def sentence(self) -> str:
        return f"the ready file is out of date: {self.reason} [{self.code}]; {self.hint}"


@dataclass(frozen=True, kw_only=True)
class DrainStarted(Event):
    """No new clients; the sessions that are there may finish."""

    sessions: int
    seconds: float

    def sentence(self) -> str:
        if not self.sessions:
            return "stopping: no sessions are open"
        count = counted(self.sessions, "session")
        return f"stopping: {count} may finish within {self.seconds:g} s; a second signal ends them at once"


@dataclass(frozen=True, kw_only=True)
class DrainFinished(Event):
    """The proxy has stopped serving."""

    cut: int

    def sentence(self) -> str:
        if not self.cut:
            return "stopped; every session had ended by itself"
        return f"stopped; {counted(self.cut, 'session')} cut off"


@dataclass(frozen=True, kw_only=True)
class UpstreamSkipped(TunnelFailure):
    """An endpoint failed, and one behind it took us. Told once, until the endpoint works again."""

    endpoint: str
    went_on_to: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.endpoint} failed ({self.reason}) [{self.code}]; went on to {self.went_on_to}"
