"""Single ranges at many add-ons: `mtlskit allowlist add` and `remove`, one call each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from mtlskit.allowlist.api import RuleApi
from mtlskit.allowlist.applied import Applied
from mtlskit.allowlist.apply import AT_ONCE, apply
from mtlskit.allowlist.coverage import network_of
from mtlskit.allowlist.gather import Found
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, Wanted, plan_addition, plan_removal
from mtlskit.telemetry import Emit, silent

__all__ = ["add_rules", "addition", "removal", "remove_rules"]


def addition(found: Sequence[Found], wanted: Iterable[Wanted], *, owner: Owner) -> Plan:
    """The plan that `wanted` is let in everywhere, beside what is there. Raises `AllowlistError` (ALLOW_FULL)."""
    rules = tuple(wanted)
    return Plan(tuple(plan_addition(each.addon, each.kind, rules, each.rules, owner=owner) for each in found))


def removal(
    found: Sequence[Found],
    cidrs: Iterable[IPv4Network],
    *,
    owner: Owner,
    me: frozenset[IPv4Address] | None,
    lock_me_out: bool = False,
) -> Plan:
    """The plan that the rules for exactly these ranges go everywhere, whoever made them.

    Of several add-ons, those that have no such rule (any more) are passed over: a removal that was cut off is taken up.
    Raises `AllowlistError`: ALLOW_NO_RULE for a range that none of them has a rule for, ALLOW_LOCKOUT.
    """
    ranges = tuple(cidrs)
    there = [{network_of(rule) for rule in each.rules} for each in found]
    nowhere = [cidr for cidr in ranges if not any(cidr in networks for networks in there)]
    return Plan(
        tuple(
            plan_removal(
                each.addon,
                each.kind,
                nowhere or [cidr for cidr in ranges if cidr in networks],
                each.rules,
                owner=owner,
                me=me,
                lock_me_out=lock_me_out,
            )
            for each, networks in zip(found, there, strict=True)
        )
    )


async def add_rules(
    api: RuleApi,
    found: Sequence[Found],
    wanted: Iterable[Wanted],
    *,
    owner: Owner,
    wait: float | None,
    emit: Emit = silent,
    at_once: int = AT_ONCE,
    again: str = "mtlskit allowlist add",
) -> Applied:
    """Let `wanted` in at every add-on; what has a rule already gets no second one. Raises what `apply` does."""
    plan = addition(found, wanted, owner=owner)
    return await apply(api, plan, wait=wait, emit=emit, at_once=at_once, again=again)


async def remove_rules(
    api: RuleApi,
    found: Sequence[Found],
    cidrs: Iterable[IPv4Network],
    *,
    owner: Owner,
    me: frozenset[IPv4Address] | None,
    lock_me_out: bool = False,
    emit: Emit = silent,
    at_once: int = AT_ONCE,
    again: str = "mtlskit allowlist remove",
) -> Applied:
    """Remove the rules for exactly these ranges at every add-on. Raises what `removal` and `apply` do."""
    plan = removal(found, cidrs, owner=owner, me=me, lock_me_out=lock_me_out)
    return await apply(api, plan, wait=None, emit=emit, at_once=at_once, again=again)
