"""The calls for IP rules, the same for Postgres and Kafka.

Where the facts do not say what Heroku does: a CIDR that has a rule already is refused (the fault `duplicates` takes
it), a rule that covers another is taken, and so is 0.0.0.0/0; a deletion acts at once.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from ipaddress import AddressValueError, IPv4Network, IPv6Network, NetmaskValueError

from mtlskit.heroku.values import MOST_RULES, AddonKind
from mtlskit.sandbox.api.answers import ApiRefusal, not_found
from mtlskit.sandbox.api.model import AddonRecord, DeletedRule, RuleRecord
from mtlskit.sandbox.api.mtls import Mtls
from mtlskit.sandbox.api.state import ApiState

__all__ = ["Rules"]

_SLOW = 3600
"""Seconds that a rule takes under the fault `slow-rules`: nobody waits that long."""


class Rules:
    """The calls, for `state`. Each raises `ApiRefusal`."""

    def __init__(self, state: ApiState, mtls: Mtls) -> None:
        self._state = state
        self._mtls = mtls

    def all(self, name: str, kind: AddonKind) -> tuple[RuleRecord, ...]:
        """Every rule of an add-on."""
        return self._addon(name, kind).rules

    def one(self, name: str, kind: AddonKind, id: str) -> RuleRecord:  # noqa: A002 - the API's word
        """One of them."""
        for rule in self._addon(name, kind).rules:
            if rule.id == id:
                return rule
        raise not_found("Couldn't find that IP rule.")

    def add(self, name: str, kind: AddonKind, cidr: object, description: object) -> RuleRecord:
        """One more, which takes a while to act."""
        addon, now = self._addon(name, kind, working=True), self._state.now()
        network = str(_network(cidr))
        if not isinstance(description, str | None):
            raise _wrong("description must be text")
        if any(each.cidr == network for each in addon.rules) and not self._state.faults.standing("duplicates"):
            raise _wrong(f"{network} has an IP rule already")
        if len(addon.rules) >= MOST_RULES:
            raise _wrong(f"{addon.name} has {MOST_RULES} IP rules, and cannot have more")
        if any(each.cidr == network and now < each.until for each in addon.deleted):
            # Heroku does this as well: what was just deleted is still being removed somewhere.
            raise ApiRefusal(500, "internal_server_error", "Internal server error.")
        rule = RuleRecord(
            id=str(uuid.uuid4()),
            cidr=network,
            description=description or "",
            created_at=now,
            acts_at=now + self._takes(),
        )
        self._state.change_addon(addon, rules=(*addon.rules, rule), deleted=_still(addon, now))
        return rule

    def delete(self, name: str, kind: AddonKind, id: str) -> RuleRecord:  # noqa: A002
        """Remove one, at once."""
        rule, addon, now = self.one(name, kind, id), self._addon(name, kind), self._state.now()
        marker = DeletedRule(cidr=rule.cidr, until=now + self._state.durations.recreate)
        self._state.change_addon(
            addon, rules=tuple(each for each in addon.rules if each.id != id), deleted=(*_still(addon, now), marker)
        )
        return rule

    def _addon(self, name: str, kind: AddonKind, *, working: bool = False) -> AddonRecord:
        if kind is AddonKind.KAFKA:
            return self._state.addon(name, kind)
        return self._mtls.with_endpoint(name, working=working)

    def _takes(self) -> timedelta:
        slow = self._state.faults.standing("slow-rules")
        return self._state.durations.rule if slow is None else timedelta(seconds=int(slow.value or _SLOW))


def _still(addon: AddonRecord, now: datetime) -> tuple[DeletedRule, ...]:
    return tuple(each for each in addon.deleted if now < each.until)


def _network(cidr: object) -> IPv4Network:
    if not isinstance(cidr, str) or "/" not in cidr:
        raise _wrong("cidr must be an IPv4 network in CIDR notation, such as 203.0.113.7/32")
    try:
        return IPv4Network(cidr)
    except (AddressValueError, NetmaskValueError):
        if _is_ipv6(cidr):
            raise _wrong("cidr must be an IPv4 network; IPv6 is not supported") from None
        raise _wrong("cidr must be an IPv4 network in CIDR notation, such as 203.0.113.7/32") from None
    except ValueError:
        raise _wrong("cidr has bits set to the right of its prefix") from None


def _is_ipv6(cidr: str) -> bool:
    try:
        IPv6Network(cidr, strict=False)
    except ValueError:
        return False
    return True


def _wrong(message: str) -> ApiRefusal:
    return ApiRefusal(422, "invalid_params", f"{message[0].upper()}{message[1:]}.")
