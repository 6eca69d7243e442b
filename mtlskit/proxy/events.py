"""What the proxy tells: tunnels that come and go, sessions that begin and end, clients and upstreams that fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.errors import MtlskitError
from mtlskit.telemetry import Event, Level

__all__ = [
    "CancelFailed",
    "CancelForwarded",
    "ClientLeft",
    "ClientRefused",
    "ClientWantsTls",
    "DrainFinished",
    "DrainStarted",
    "IdentityChanged",
    "IdentityKept",
    "IdentityLoaded",
    "IdentityWarned",
    "LoginRefused",
    "ProxyReady",
    "ReadyFileKept",
    "SessionBroken",
    "SessionClosed",
    "SessionCrashed",
    "SessionCut",
    "SessionExpired",
    "SessionFailed",
    "SessionOpened",
    "SessionsBusy",
    "SessionsExpiring",
    "SessionsKept",
    "TunnelFailed",
    "TunnelListening",
    "TunnelWarned",
    "UpstreamSkipped",
    "WarmCounted",
    "WarmFailed",
    "WarmRecovered",
    "described",
]


def _count(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number} {thing}s"


def _minute(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"


def described(error: MtlskitError) -> dict[str, str]:
    """The fields with which an event carries an error."""
    return {"code": error.code.value, "reason": error.sentence, "hint": error.hint}


@dataclass(frozen=True, kw_only=True)
class _OfTunnel(Event):
    tunnel: str


@dataclass(frozen=True, kw_only=True)
class _Warning(_OfTunnel):
    level: ClassVar[Level] = Level.WARNING

    warning: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.warning}"


@dataclass(frozen=True, kw_only=True)
class _Failure(_OfTunnel):
    level: ClassVar[Level] = Level.WARNING

    code: str
    reason: str
    hint: str

    def _told(self, what: str) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.tunnel}: {what}{self.reason} [{self.code}]{hint}"


@dataclass(frozen=True, kw_only=True)
class _ClientFailure(_Failure):
    client: str


@dataclass(frozen=True, kw_only=True)
class _OfClient(_OfTunnel):
    client: str


@dataclass(frozen=True, kw_only=True)
class _OfLogin(_OfClient):
    """`user` and `database` are empty where the tunnel does not know the protocol."""

    user: str
    database: str

    @property
    def _who(self) -> str:
        return f" as {self.user} on {self.database}" if self.user else ""


@dataclass(frozen=True, kw_only=True)
class _OfSession(_OfLogin):
    upstream: str


@dataclass(frozen=True, kw_only=True)
class TunnelListening(_OfTunnel):
    """A tunnel accepts clients."""

    kind: str
    addresses: tuple[str, ...]
    upstream: tuple[str, ...]
    verify: str
    open_to: str
    system_roots: bool = False
    """No `ca` is set, so that the server's chain is compared with the system's roots."""

    def sentence(self) -> str:
        roots = " with the system's roots" if self.system_roots else ""
        return (
            f"{self.tunnel}: {self.kind} on {' and '.join(self.addresses)} to {', '.join(self.upstream)}"
            f" (verify {self.verify}{roots}), open to {self.open_to}"
        )


@dataclass(frozen=True, kw_only=True)
class TunnelFailed(_Failure):
    """A tunnel could not start; the others go on, and a reload tries it again."""

    level: ClassVar[Level] = Level.ERROR

    def sentence(self) -> str:
        return self._told("not started: ")


@dataclass(frozen=True, kw_only=True)
class TunnelWarned(_Warning):
    """A tunnel accepts clients, and something about its settings deserves attention."""


@dataclass(frozen=True, kw_only=True)
class IdentityLoaded(_OfTunnel):
    """New sessions of a tunnel use this identity from now on."""

    identity: str
    serial: str
    not_after: str
    """ISO 8601, UTC."""

    def sentence(self) -> str:
        until = _minute(self.not_after)
        return f"{self.tunnel}: identity {self.identity} in use, serial {self.serial}, valid until {until}"


@dataclass(frozen=True, kw_only=True)
class IdentityChanged(_OfTunnel):
    """The files of an identity have been replaced, and are read again. `identity_loaded` or `identity_kept` follows."""

    identity: str
    files: tuple[str, ...]
    """Which of cert, key, ca and passphrase_file."""

    def sentence(self) -> str:
        files = " and ".join(self.files)
        return f"{self.tunnel}: {files} of identity {self.identity} changed on the disk, reading the identity again"


@dataclass(frozen=True, kw_only=True)
class IdentityWarned(_Warning):
    """An identity works, and something about it deserves attention."""


@dataclass(frozen=True, kw_only=True)
class IdentityKept(_Failure):
    """A reload failed, and the old identity goes on serving."""

    level: ClassVar[Level] = Level.ERROR

    def sentence(self) -> str:
        return self._told("reload failed, the old identity stays in use: ")


@dataclass(frozen=True, kw_only=True)
class SessionOpened(_OfSession):
    """A client has asked for a session, and the upstream has taken it. For Postgres, the login has begun."""

    level: ClassVar[Level] = Level.DEBUG

    tls: str
    warm: bool = False

    def sentence(self) -> str:
        made = ", connected in advance" if self.warm else ""
        return f"{self.tunnel}: {self.client} connected to {self.upstream}{self._who} over {self.tls}{made}"


@dataclass(frozen=True, kw_only=True)
class SessionClosed(_OfSession):
    """A session has ended."""

    ending: str
    bytes_up: int
    bytes_down: int
    seconds: float

    def sentence(self) -> str:
        return (
            f"{self.tunnel}: {self.client}{self._who} to {self.upstream} ended ({self.ending.replace('_', ' ')}) after"
            f" {self.seconds:.1f} s, {self.bytes_up} bytes up, {self.bytes_down} down"
        )


@dataclass(frozen=True, kw_only=True)
class SessionCut(_OfSession):
    """We have cut a session off, because its time after a stop had run out or a second signal came."""

    seconds: float

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.client}{self._who} to {self.upstream} was cut off after {self.seconds:.1f} s"


@dataclass(frozen=True, kw_only=True)
class SessionExpired(_OfSession):
    """We have ended a session at a quiet point, because its client certificate ends. Its `SessionClosed` follows."""

    serial: str
    not_after: str
    """ISO 8601, UTC."""

    def sentence(self) -> str:
        return (
            f"{self.tunnel}: ended the session of {self.client}{self._who} to {self.upstream} at a quiet point: its"
            f" client certificate, serial {self.serial}, ends at {_minute(self.not_after)}"
        )


@dataclass(frozen=True, kw_only=True)
class _OfCertificate(_OfTunnel):
    """About all sessions of a tunnel that were opened with one client certificate."""

    serial: str
    not_after: str
    """ISO 8601, UTC."""
    sessions: int

    @property
    def _which(self) -> str:
        return (
            f"{self.tunnel}: {_count(self.sessions, 'session')} opened with the client certificate of serial"
            f" {self.serial}, which ends at {_minute(self.not_after)},"
        )


@dataclass(frozen=True, kw_only=True)
class SessionsExpiring(_OfCertificate):
    """The sessions of a certificate that ends begin to be asked to end, each at its next quiet point."""

    def sentence(self) -> str:
        return f"{self._which} will be ended while nothing is in flight"


@dataclass(frozen=True, kw_only=True)
class SessionsKept(_OfCertificate):
    """A certificate ends and nothing newer is loaded: ending its sessions would help nobody. Told once."""

    level: ClassVar[Level] = Level.WARNING

    def sentence(self) -> str:
        return (
            f"{self._which} go on, because the tunnel has no certificate that ends later; put a new one in place and"
            " reload"
        )


@dataclass(frozen=True, kw_only=True)
class SessionsBusy(_OfCertificate):
    """A certificate has ended, and some of its sessions have not been quiet since they were asked to end."""

    def sentence(self) -> str:
        return f"{self._which} are still busy, and go on until nothing is in flight"


@dataclass(frozen=True, kw_only=True)
class LoginRefused(_OfLogin):
    """The server has refused the login; the client was told by the server itself."""

    level: ClassVar[Level] = Level.WARNING

    sqlstate: str
    reason: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.client}: the server refused the login: {self.reason} ({self.sqlstate})"


@dataclass(frozen=True, kw_only=True)
class ClientRefused(_ClientFailure):
    """A client was turned away at the door, or broke the protocol."""

    def sentence(self) -> str:
        return self._told(f"refused {self.client}: ")


@dataclass(frozen=True, kw_only=True)
class ClientLeft(_OfClient):
    """A client went away before its session was established: a port check, or psql asking for a password."""

    level: ClassVar[Level] = Level.DEBUG

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.client} left before a session was established"


@dataclass(frozen=True, kw_only=True)
class ClientWantsTls(_OfClient):
    """A client asked for TLS, was told no, and left without a start-up packet, as libpq does with sslmode=require."""

    def sentence(self) -> str:
        return (
            f"{self.tunnel}: {self.client} asked for TLS, was told no, and left:"
            " set sslmode=disable or prefer in the client"
        )


@dataclass(frozen=True, kw_only=True)
class UpstreamSkipped(_Failure):
    """An endpoint failed, and one behind it took us. Told once, until the endpoint works again."""

    endpoint: str
    went_on_to: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.endpoint} failed ({self.reason}) [{self.code}]; went on to {self.went_on_to}"


@dataclass(frozen=True, kw_only=True)
class SessionFailed(_ClientFailure):
    """The upstream failed a client before its session was established."""

    level: ClassVar[Level] = Level.ERROR

    def sentence(self) -> str:
        return self._told(f"no session for {self.client}: ")


@dataclass(frozen=True, kw_only=True)
class SessionBroken(_ClientFailure):
    """The upstream broke an established session off. What a tunnel without a protocol knows of a refusal is here."""

    def sentence(self) -> str:
        return self._told(f"the session of {self.client} broke: ")


@dataclass(frozen=True, kw_only=True)
class SessionCrashed(_OfClient):
    """A fault of ours ended one session."""

    level: ClassVar[Level] = Level.ERROR

    traceback: str

    def sentence(self) -> str:
        last = self.traceback.strip().splitlines()[-1] if self.traceback.strip() else "unknown"
        return f"{self.tunnel}: a fault in mtlskit ended the session of {self.client}: {last}; please report it"


@dataclass(frozen=True, kw_only=True)
class CancelForwarded(_OfClient):
    """A CancelRequest has been passed on."""

    level: ClassVar[Level] = Level.DEBUG

    upstream: tuple[str, ...]
    known: bool

    def sentence(self) -> str:
        key = "" if self.known else " (a key that is not ours)"
        return f"{self.tunnel}: cancel request of {self.client}{key} passed to {', '.join(self.upstream)}"


@dataclass(frozen=True, kw_only=True)
class CancelFailed(_ClientFailure):
    """A CancelRequest could not be passed on. The protocol has no answer that could tell the client."""

    def sentence(self) -> str:
        return self._told(f"cancel request of {self.client} not delivered: ")


@dataclass(frozen=True, kw_only=True)
class WarmCounted(_OfTunnel):
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
            f"{self.tunnel}: {self.hits} of {_count(self.hits + self.misses, 'client')} found a connection ready;"
            f" of {self.made} made in advance {self.hits} were used, {self.aged} grew too old, {self.dead} died"
            f" and {self.dropped} were closed unused; {self.failed} could not be made,"
            f" {_count(self.replayed, 'login')} began again"
        )


@dataclass(frozen=True, kw_only=True)
class WarmFailed(_Failure):
    """Connections in advance cannot be made. Told once, until one has been made again."""

    def sentence(self) -> str:
        return self._told("no connections in advance for now: ")


@dataclass(frozen=True, kw_only=True)
class WarmRecovered(_OfTunnel):
    """A connection has been made in advance again, after a `WarmFailed`."""

    def sentence(self) -> str:
        return f"{self.tunnel}: connections in advance can be made again"


@dataclass(frozen=True, kw_only=True)
class ProxyReady(Event):
    """Every listener accepts."""

    tunnels: int
    failed: int

    def sentence(self) -> str:
        return f"ready: {_count(self.tunnels, 'tunnel')}" + (f"; {self.failed} could not start" if self.failed else "")


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
        count = _count(self.sessions, "session")
        return f"stopping: {count} may finish within {self.seconds:g} s; a second signal ends them at once"


@dataclass(frozen=True, kw_only=True)
class DrainFinished(Event):
    """The proxy has stopped serving."""

    cut: int

    def sentence(self) -> str:
        if not self.cut:
            return "stopped; every session had ended by itself"
        return f"stopped; {_count(self.cut, 'session')} cut off"
