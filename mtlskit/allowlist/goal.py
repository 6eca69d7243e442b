"""What an add-on's rules shall become, and what is still to be done: pure.

A plan is made of what was found at one moment. While it is carried out, others may add and remove rules, so each step
is decided anew from a fresh list: what is missing, what is waited for, what is to go. A goal is reached when nothing is
left of the three; a run that was killed is finished by the next one in the same way.

Two hosts with one owner id may add the same range at once. Of such duplicates everybody keeps the same one, the oldest:
a rule is only removed where an older one was seen, so the oldest is never removed by anybody, and no range loses its
last rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Final

from mtlskit.allowlist.coverage import network_of
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import AddonPlan
from mtlskit.heroku.values import AddonKind, IpRule

__all__ = ["Goal", "Missing", "Outlook", "goal_of"]

_LAST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Missing:
    """A rule that is to be added; `description` carries the owner's tag."""

    cidr: IPv4Network
    description: str


@dataclass(frozen=True)
class Outlook:
    """What is still to be done, in this order: add, wait, remove."""

    missing: tuple[Missing, ...]
    waiting: tuple[IpRule, ...]
    """There, and not acting yet."""
    extra: tuple[IpRule, ...]
    """To be removed once everything wanted acts."""


@dataclass(frozen=True)
class Goal:
    """The rules that shall be there, and those (ids) that shall go."""

    addon: str
    kind: AddonKind
    wanted: Mapping[IPv4Network, str]
    """With the description, tag included, of the rule to add where none has this range."""
    unwanted: tuple[str, ...]
    """In the order in which they go."""
    owner: Owner

    def look(self, found: Iterable[IpRule]) -> Outlook:
        """What is to be done, where these rules are there."""
        rules = tuple(found)
        of_range: dict[IPv4Network, list[IpRule]] = {network: [] for network in self.wanted}
        extra = {rule.id for rule in rules} & set(self.unwanted)
        for rule in sorted(rules, key=_age):
            network = network_of(rule)
            if network in of_range:
                of_range[network].append(rule)
        missing: list[Missing] = []
        waiting: list[IpRule] = []
        for network, same in of_range.items():
            kept = self._kept(same)
            extra -= {rule.id for rule in kept}
            extra |= {rule.id for rule in same if rule not in kept and self._ours(rule)}
            if not same:
                missing.append(Missing(network, self.wanted[network]))
            elif not any(rule.authorized for rule in kept):
                waiting += kept
        going = sorted((rule for rule in rules if rule.id in extra), key=self._order)
        return Outlook(tuple(missing), tuple(waiting), tuple(going))

    def _kept(self, same: Sequence[IpRule]) -> list[IpRule]:
        """Of the rules for one range, oldest first: our oldest, and those of others that nobody wants removed."""
        ours = [rule for rule in same if self._ours(rule)][:1]
        others = [rule for rule in same if not self._ours(rule)]
        return ours + [rule for rule in others if rule.id not in self.unwanted] or others[:1]

    def _order(self, rule: IpRule) -> int:
        return self.unwanted.index(rule.id) if rule.id in self.unwanted else len(self.unwanted)

    def _ours(self, rule: IpRule) -> bool:
        return self.owner.owns(rule.description)


def goal_of(plan: AddonPlan) -> Goal:
    """The goal that a plan stands for."""
    wanted: dict[IPv4Network, str] = {}
    for rule in plan.keep:
        if (network := network_of(rule)) is not None:
            wanted[network] = plan.owner.tagged(rule.description)
    for each in plan.add:
        wanted[each.cidr] = plan.description(each)
    return Goal(plan.addon, plan.kind, wanted, tuple(rule.id for rule in plan.remove), plan.owner)


def _age(rule: IpRule) -> tuple[datetime, str]:
    # To the second: Heroku tells times in two forms, and both must give everybody the same order.
    return rule.created_at.replace(microsecond=0) if rule.created_at else _LAST, rule.id
