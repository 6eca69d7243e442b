"""Whether an address may come in: the question that the gateway asks for each connection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.model import AddonRecord, RuleRecord

__all__ = ["Admission", "Doorkeeper", "external_address"]


@dataclass(frozen=True)
class Admission:
    """The answer. `reason` is a sentence without a full stop; `reset`: refuse at once, and not by silence."""

    allowed: bool
    reason: str = ""
    reset: bool = False


def external_address(address: str, moves: Mapping[str, str]) -> str:
    """What the world sees of a peer: its address, or the one that it has moved to. ::1 counts as 127.0.0.1."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        parsed = parsed.ipv4_mapped or (IPv4Address("127.0.0.1") if parsed.is_loopback else parsed)
    return moves.get(str(parsed), str(parsed))


class Doorkeeper:
    """Knows one add-on's rules, read once, so that a connection costs no parsing."""

    def __init__(self, addon: AddonRecord) -> None:
        self._addon = addon
        self._rules = [(_bounds(rule), rule) for rule in addon.rules]

    def admits(self, external: str, now: datetime) -> Admission:
        """`external`: as the world sees it. Kafka has rules and no endpoint."""
        status = self._addon.endpoint_status(now)
        if self._addon.kind is AddonKind.POSTGRES and status != "Operational":
            return Admission(False, f"the mTLS endpoint of {self._addon.name} is {status or 'not enabled'}")
        try:
            number = int(IPv4Address(external))
        except ValueError:
            return Admission(False, f"{external} is no IPv4 address, and IP rules have no others")
        waiting = ""
        for (first, last), rule in self._rules:
            if first <= number <= last:
                if now >= rule.acts_at:
                    return Admission(True)
                waiting = rule.cidr
        if waiting:
            return Admission(False, f"the IP rule {waiting}, which covers {external}, is still Authorizing")
        return Admission(False, f"no IP rule of {self._addon.name} covers {external}")


def _bounds(rule: RuleRecord) -> tuple[int, int]:
    network = IPv4Network(rule.cidr)
    return int(network.network_address), int(network.broadcast_address)
