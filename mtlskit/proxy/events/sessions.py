"""Sessions that begin and end, and clients and upstreams that fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.proxy.events.bases import (
    ClientFailure,
    OfClient,
    OfLogin,
    OfSession,
    OfTunnel,
    counted,
    minute,
)
from mtlskit.telemetry import Level

__all__ = [
    "CancelFailed",
    "CancelForwarded",
    "ClientLeft",
    "ClientRefused",
    "ClientWantsTls",
    "LoginRefused",
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
]


@dataclass(frozen=True, kw_only=True)
class SessionOpened(OfSession):
    """A client has asked for a session, and the upstream has taken it. For Postgres, the login has begun."""

    level: ClassVar[Level] = Level.DEBUG

    tls: str
    warm: bool = False

    def sentence(self) -> str:
        made = ", connected in advance" if self.warm else ""
        return f"{self.tunnel}: {self.client} connected to {self._where}{self._who} over {self.tls}{made}"


@dataclass(frozen=True, kw_only=True)
class SessionClosed(OfSession):
    """A session has ended."""

    ending: str
    bytes_up: int
    bytes_down: int
    seconds: float

    def sentence(self) -> str:
        return (
            f"{self.tunnel}: {self.client}{self._who} to {self._where} ended ({self.ending.replace('_', ' ')}) after"
            f" {self.seconds:.1f} s, {self.bytes_up} bytes up, {self.bytes_down} down"
        )


@dataclass(frozen=True, kw_only=True)
class SessionCut(OfSession):
    """We have cut a session off, because its time after a stop had run out or a second signal came."""

    seconds: float

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.client}{self._who} to {self._where} was cut off after {self.seconds:.1f} s"


@dataclass(frozen=True, kw_only=True)
class SessionExpired(OfSession):
    """We have ended a session at a quiet point, because its client certificate ends. Its `SessionClosed` follows."""

    serial: str
    not_after: str
    """ISO 8601, UTC."""

    def sentence(self) -> str:
        return (
            f"{self.tunnel}: ended the session of {self.client}{self._who} to {self._where} at a quiet point: its"
            f" client certificate, serial {self.serial}, ends at {minute(self.not_after)}"
        )


@dataclass(frozen=True, kw_only=True)
class _OfCertificate(OfTunnel):
    """About all sessions of a tunnel that were opened with one client certificate."""

    serial: str
    not_after: str
    """ISO 8601, UTC."""
    sessions: int

    @property
    def _which(self) -> str:
        return (
            f"{self.tunnel}: {counted(self.sessions, 'session')} opened with the client certificate of serial"
            f" {self.serial}, which ends at {minute(self.not_after)},"
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
class LoginRefused(OfLogin):
    """The server has refused the login; the client was told by the server itself."""

    level: ClassVar[Level] = Level.WARNING

    sqlstate: str
    reason: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.client}: the server refused the login: {self.reason} ({self.sqlstate})"


@dataclass(frozen=True, kw_only=True)
class ClientRefused(ClientFailure):
    """A client was turned away at the door, or broke the protocol."""

    def sentence(self) -> str:
        return self._told(f"refused {self.client}: ")


@dataclass(frozen=True, kw_only=True)
class ClientLeft(OfClient):
    """A client went away before its session was established: a port check, or psql asking for a password."""

    level: ClassVar[Level] = Level.DEBUG

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.client} left before a session was established"


@dataclass(frozen=True, kw_only=True)
class ClientWantsTls(OfClient):
    """A client asked for TLS, was told no, and left without a start-up packet, as libpq does with sslmode=require."""

    def sentence(self) -> str:
        return (
            f"{self.tunnel}: {self.client} asked for TLS, was told no, and left:"
            " set sslmode=disable or prefer in the client"
        )


@dataclass(frozen=True, kw_only=True)
class SessionFailed(ClientFailure):
    """The upstream failed a client before its session was established."""

    level: ClassVar[Level] = Level.ERROR

    def sentence(self) -> str:
        return self._told(f"no session for {self.client}: ")


@dataclass(frozen=True, kw_only=True)
class SessionBroken(ClientFailure):
    """The upstream broke an established session off. What a tunnel without a protocol knows of a refusal is here."""

    def sentence(self) -> str:
        return self._told(f"the session of {self.client} broke: ")


@dataclass(frozen=True, kw_only=True)
class SessionCrashed(OfClient):
    """A fault of ours ended one session."""

    level: ClassVar[Level] = Level.ERROR

    traceback: str

    def sentence(self) -> str:
        last = self.traceback.strip().splitlines()[-1] if self.traceback.strip() else "unknown"
        return f"{self.tunnel}: a fault in mtlskit ended the session of {self.client}: {last}; please report it"


@dataclass(frozen=True, kw_only=True)
class CancelForwarded(OfClient):
    """A CancelRequest has been passed on."""

    level: ClassVar[Level] = Level.DEBUG

    upstream: tuple[str, ...]
    known: bool

    def sentence(self) -> str:
        key = "" if self.known else " (a key that is not ours)"
        return f"{self.tunnel}: cancel request of {self.client}{key} passed to {', '.join(self.upstream)}"


@dataclass(frozen=True, kw_only=True)
class CancelFailed(ClientFailure):
    """A CancelRequest could not be passed on. The protocol has no answer that could tell the client."""

    def sentence(self) -> str:
        return self._told(f"cancel request of {self.client} not delivered: ")
