"""What the events of a proxy have in common: the tunnel, the client, the error that they carry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.errors import MtlskitError
from mtlskit.telemetry import Event, Level

__all__ = [
    "ClientFailure",
    "OfClient",
    "OfLogin",
    "OfSession",
    "OfTunnel",
    "TunnelFailure",
    "TunnelWarning",
    "counted",
    "described",
    "minute",
    "named_broker",
]


def counted(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number} {thing}s"


def minute(moment: str) -> str:
    return f"{moment[:16].replace('T', ' ')} UTC"


def named_broker(broker: str) -> str:
    """`broker` is a node id, or `bootstrap` for the addresses that the configuration names."""
    return "the bootstrap address" if broker == "bootstrap" else f"broker {broker}"


def described(error: MtlskitError) -> dict[str, str]:
    """The fields with which an event carries an error."""
    return {"code": error.code.value, "reason": error.sentence, "hint": error.hint}


@dataclass(frozen=True, kw_only=True)
class OfTunnel(Event):
    tunnel: str


@dataclass(frozen=True, kw_only=True)
class TunnelWarning(OfTunnel):
    level: ClassVar[Level] = Level.WARNING

    warning: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {self.warning}"


@dataclass(frozen=True, kw_only=True)
class TunnelFailure(OfTunnel):
    level: ClassVar[Level] = Level.WARNING

    code: str
    reason: str
    hint: str

    def _told(self, what: str) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.tunnel}: {what}{self.reason} [{self.code}]{hint}"


@dataclass(frozen=True, kw_only=True)
class ClientFailure(TunnelFailure):
    client: str


@dataclass(frozen=True, kw_only=True)
class OfClient(OfTunnel):
    client: str


@dataclass(frozen=True, kw_only=True)
class OfLogin(OfClient):
    """`user` and `database` are empty where the tunnel does not know the protocol."""

    user: str
    database: str

    @property
    def _who(self) -> str:
        return f" as {self.user} on {self.database}" if self.user else ""


@dataclass(frozen=True, kw_only=True)
class OfSession(OfLogin):
    """`broker` and `broker_address` are of a Kafka tunnel: the node id and `host:port`, as the cluster calls it, or
    `bootstrap` and nothing for whoever came to the tunnel's own listener. Else both are empty."""

    upstream: str
    broker: str = ""
    broker_address: str = ""

    @property
    def _where(self) -> str:
        """What it is connected to."""
        if not self.broker:
            return self.upstream
        return f"{named_broker(self.broker)} at {self.upstream}"
