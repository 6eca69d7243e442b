"""The brokers of a Kafka tunnel: their listeners, where they are, and what cannot be passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.proxy.events.bases import OfTunnel, TunnelFailure, TunnelWarning, counted, named_broker
from mtlskit.telemetry import Level

__all__ = [
    "BrokerFailed",
    "BrokerListening",
    "BrokerMoved",
    "BrokerNotListening",
    "BrokerRecovered",
    "BrokerWithheld",
    "ClusterDenied",
    "ClusterUnseen",
]


@dataclass(frozen=True, kw_only=True)
class BrokerListening(OfTunnel):
    """A broker was named for the first time, and has a listener from now on."""

    broker: int
    addresses: tuple[str, ...]
    upstream: str

    def sentence(self) -> str:
        return f"{self.tunnel}: broker {self.broker} on {' and '.join(self.addresses)} to {self.upstream}"


@dataclass(frozen=True, kw_only=True)
class BrokerMoved(OfTunnel):
    """A broker has another address now; new sessions go there, those in flight go on."""

    broker: int
    before: str
    upstream: str
    times: int
    """How often it has moved since that was last told."""

    def sentence(self) -> str:
        told = f"{self.tunnel}: broker {self.broker} is no longer at {self.before} but at {self.upstream}"
        if self.times == 1:
            return told
        return (
            f"{told}; it has moved {self.times} times since that was last told: the brokers do not agree where it is,"
            " look at their advertised.listeners"
        )


@dataclass(frozen=True, kw_only=True)
class BrokerNotListening(TunnelFailure):
    """There is no listener for a broker, and clients are not told its address. Told again when the reason changes."""

    broker: int

    def sentence(self) -> str:
        return self._told(f"broker {self.broker} cannot be reached through this tunnel: ")


@dataclass(frozen=True, kw_only=True)
class BrokerWithheld(TunnelWarning):
    """The cluster advertises something that cannot be an address of a broker. Told once."""

    broker: int
    address: str

    def sentence(self) -> str:
        at = f" at {self.address}" if self.address else ""
        return f"{self.tunnel}: the cluster names broker {self.broker}{at}, which clients are not told: {self.warning}"


@dataclass(frozen=True, kw_only=True)
class BrokerFailed(TunnelFailure):
    """Clients could not be brought to a broker. While that lasts it is told every half minute, if somebody tries."""

    broker: str
    """The node id; `bootstrap` for the addresses that the configuration names."""
    clients: int
    """How many were turned away since it was last told."""

    def sentence(self) -> str:
        turned_away = f"; {counted(self.clients, 'connection')} turned away" if self.clients > 1 else ""
        return self._told(f"{named_broker(self.broker)} cannot be reached: ") + turned_away


@dataclass(frozen=True, kw_only=True)
class BrokerRecovered(OfTunnel):
    """A broker has taken a connection again, after a `BrokerFailed`."""

    broker: str

    def sentence(self) -> str:
        return f"{self.tunnel}: {named_broker(self.broker)} can be reached again"


@dataclass(frozen=True, kw_only=True)
class ClusterUnseen(TunnelFailure):
    """The cluster could not be asked for its brokers, listeners open when a client asks. Each reason is told once."""

    def sentence(self) -> str:
        return self._told("the cluster cannot be asked for its brokers, whose listeners open when a client asks: ")


@dataclass(frozen=True, kw_only=True)
class ClusterDenied(OfTunnel):
    """The cluster refuses a topic, a group or a transactional id to a client. Told once for each name."""

    level: ClassVar[Level] = Level.WARNING

    kind: str
    resource: str
    """Its name; empty where the cluster did not give it."""
    error: int
    """Of the protocol: 29, 30 and 53 are a right that is missing, 3 a topic that is not there."""
    prefix: str
    """What names begin with on the add-on's plan; empty where they need none, or where that is not known."""

    def sentence(self) -> str:
        name = self.resource if self.resource.isprintable() else repr(self.resource)
        does = "does not know" if self.error == 3 else "refuses a client"
        told = f"{self.tunnel}: the cluster {does} the {self.kind} {name or '(unnamed)'} [error {self.error}]: "
        if self.prefix and not self.resource.startswith(self.prefix):
            return f'{told}names on this plan begin with "{self.prefix}" (config var KAFKA_PREFIX): {self.prefix}{name}'
        missing = "the credential lacks the right to it (an ACL of the cluster), or it was never made"
        if self.prefix:
            return f"{told}{missing}"
        return f"{told}{missing}; on a plan of Heroku's that is shared, names begin with what KAFKA_PREFIX holds"
