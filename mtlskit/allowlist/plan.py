"""What has to be done so that an add-on's rules become what is wanted. Pure: rules in, plan out.

**What becomes of a rule that is there.** Every rule that was found is in exactly one of four tuples of its plan:

=============================  ==================  ====================================================
its CIDR                       it carries our tag  it is in
=============================  ==================  ====================================================
cannot be read for certain     yes or no           `unreadable`: never touched
wanted                         yes                 `keep`
wanted                         no                  `keep`, and `relied`: no second rule for one CIDR is
                                                   made, since Heroku's answer to that is not known
not wanted, but `spared`       yes or no           `foreign`: another list of the file may rely on it
not wanted                     yes                 `remove`
not wanted                     no                  `foreign`; with `prune`, `remove`
=============================  ==================  ====================================================

A rule has no update verb, so one whose description differs from the wanted one is kept as it is. Two of ours for one
CIDR are both kept: two runs at once that each removed one might remove both.

**In which order.** First the `over` first rules of `remove` go (`remove_first`: none, unless `allow_gap`), then all of
`add` are made, then all of `add` and `waiting` must be Authorized, and only then the rest of `remove` goes
(`remove_last`). So nobody who may stay is without a rule in between, and there are never more than `limit` rules.

**Several lists of one file.** Each is planned as if those before it had been carried out (`after`): two that each let
this host in cannot both take that for granted and remove it. What another list wants is `spared`: one list relies on
the rule of another, and would be left without one when a range moves from that list to this.

**Not to lock oneself out.** `me` are the addresses that this host is seen with. A rule that covers one of them goes
only if what stays or is added covers it as well: in the end, and (`remove_first`) during the gap, where only what is
Authorized counts. With `me` unknown any removal might be the one, so each is refused whose addresses are not all
covered by what stays. `lock_me_out` is the word that lifts this.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from mtlskit.allowlist.coverage import Coverage, network_of
from mtlskit.allowlist.owner import Owner
from mtlskit.errors import AllowlistError, Code, ConfigError
from mtlskit.heroku.values import MOST_RULES, AddonKind, IpRule

__all__ = [
    "FROM_LIST",
    "MY_ADDRESS",
    "AddonPlan",
    "Plan",
    "Wanted",
    "plan_addition",
    "plan_addon",
    "plan_removal",
]

MY_ADDRESS: Final = "my address"
"""The description of the rule for this host's own address."""

FROM_LIST: Final = "list:"
"""How the origin of what a published list names begins; its source follows."""

_HASH_DIGITS: Final = 20
"""80 bits: somebody who publishes a list should not find two that give one hash, and swap them after one was seen."""


@dataclass(frozen=True)
class Wanted:
    """A range that shall be let in. `description` comes without a tag."""

    cidr: IPv4Network
    description: str
    origin: str = "file"
    """Who wants it: "file", "flag", "my-ip", "space:NAME" or "list:SOURCE"."""


@dataclass(frozen=True)
class AddonPlan:
    """What is to be done at one add-on. The module says what is in which tuple, and in which order it is done."""

    addon: str
    kind: AddonKind
    owner: Owner
    """Whose tag the added rules get."""
    add: tuple[Wanted, ...] = ()
    remove: tuple[IpRule, ...] = ()
    keep: tuple[IpRule, ...] = ()
    foreign: tuple[IpRule, ...] = ()
    """What this plan does not want, and leaves alone."""
    unreadable: tuple[IpRule, ...] = ()
    relied: tuple[IpRule, ...] = ()
    """Those of `keep` that are not ours: what they let in ends when their owner removes them."""
    over: int = 0
    """How many of `remove` go before anything is added."""
    lists: tuple[str, ...] = ()
    """The sources of published lists that feed this plan. Where there are any, it is applied only after it was seen."""

    @property
    def remove_first(self) -> tuple[IpRule, ...]:
        """What goes before anything is added, so that there is room: with `allow_gap` only."""
        return self.remove[: self.over]

    @property
    def remove_last(self) -> tuple[IpRule, ...]:
        """What goes when all that is added and all of `waiting` act."""
        return self.remove[self.over :]

    @property
    def waiting(self) -> tuple[IpRule, ...]:
        """Those of `keep` that do not act yet."""
        return tuple(rule for rule in self.keep if not rule.authorized)

    @property
    def has_changes(self) -> bool:
        """Whether anything is to be added or removed."""
        return bool(self.add or self.remove)

    def after(self, found: Iterable[IpRule]) -> tuple[IpRule, ...]:
        """What is there once this was carried out. What it adds has no id, and may not act yet."""
        gone = {rule.id for rule in self.remove}
        added = (IpRule("", str(want.cidr), self.description(want), "Authorizing") for want in self.add)
        return (*(rule for rule in found if rule.id not in gone), *added)

    def description(self, wanted: Wanted) -> str:
        """The description that the rule for `wanted` gets, with the owner's tag."""
        return self.owner.tagged(wanted.description)


@dataclass(frozen=True)
class Plan:
    """What is to be done at all add-ons."""

    addons: tuple[AddonPlan, ...]

    @property
    def has_changes(self) -> bool:
        """Whether anything is to be done at all."""
        return any(addon.has_changes for addon in self.addons)

    @property
    def lists(self) -> tuple[str, ...]:
        """The sources of published lists that feed it."""
        return tuple(sorted({source for addon in self.addons for source in addon.lists}))

    @property
    def hash(self) -> str:
        """20 hexadecimal digits that differ wherever something else would be done, and only there."""
        changes = sorted((_canonical(addon) for addon in self.addons if addon.has_changes), key=json.dumps)
        return hashlib.sha256(json.dumps(changes).encode("ascii")).hexdigest()[:_HASH_DIGITS]


def plan_addon(
    addon: str,
    kind: AddonKind,
    wanted: Iterable[Wanted],
    found: Sequence[IpRule],
    *,
    owner: Owner,
    prune: bool = False,
    spared: Collection[IPv4Network] = (),
    me: frozenset[IPv4Address] | None,
    lock_me_out: bool = False,
    allow_gap: bool = False,
    limit: int = MOST_RULES,
) -> AddonPlan:
    """Plan that exactly `wanted` is let in, as far as `owner` may say; with `prune` as far as anybody may.

    Of several wanted with one CIDR, the first has its description taken. Nothing else depends on the order of what is
    given. `spared` are ranges that other lists of the file want here: rules for those stay, whoever made them. `me`
    None, or empty, means that this host's addresses are not known.
    Raises `AllowlistError`: ALLOW_FULL where there are too many rules, in the end or (without `allow_gap`) for a while;
    ALLOW_LOCKOUT. `ConfigError` (USAGE) for `prune` with a published list: whoever publishes it could empty the rules.
    """
    first, lists = _merged(wanted)
    if prune and lists:
        raise ConfigError(
            Code.USAGE,
            f"{addon}: --prune does not go together with a list that others publish ({', '.join(lists)})",
            "leave --prune out: mtlskit allowlist apply",
        )
    keep: list[IpRule] = []
    remove: list[IpRule] = []
    foreign: list[IpRule] = []
    unreadable: list[IpRule] = []
    for rule in found:
        network = network_of(rule)
        if network is None:
            unreadable.append(rule)
        elif network in first:
            keep.append(rule)
        elif network not in spared and (prune or owner.owns(rule.description)):
            remove.append(rule)
        else:
            foreign.append(rule)
    there = {network_of(rule) for rule in keep}
    add = _ordered(want for network, want in first.items() if network not in there)
    over = _over(addon, len(found), len(add), len(remove), limit=limit, allow_gap=allow_gap)
    plan = AddonPlan(
        addon=addon,
        kind=kind,
        owner=owner,
        add=add,
        remove=_ordered_rules(remove, me or frozenset()),
        keep=_ordered_rules(keep),
        foreign=_ordered_rules(foreign),
        unreadable=_ordered_rules(unreadable),
        relied=_ordered_rules(rule for rule in keep if not owner.owns(rule.description)),
        over=over,
        lists=lists,
    )
    if not lock_me_out:
        _refuse_lockout(plan, me)
    return plan


def plan_addition(
    addon: str,
    kind: AddonKind,
    wanted: Iterable[Wanted],
    found: Sequence[IpRule],
    *,
    owner: Owner,
    limit: int = MOST_RULES,
) -> AddonPlan:
    """Plan that `wanted` is let in beside what is there: `mtlskit allowlist add`. Nothing is removed.

    Raises `AllowlistError` (ALLOW_FULL).
    """
    first, lists = _merged(wanted)
    keep = [rule for rule in found if network_of(rule) in first]
    there = {network_of(rule) for rule in keep}
    add = _ordered(want for network, want in first.items() if network not in there)
    _over(addon, len(found), len(add), 0, limit=limit, allow_gap=False)
    return AddonPlan(
        addon=addon,
        kind=kind,
        owner=owner,
        add=add,
        keep=_ordered_rules(keep),
        foreign=_ordered_rules(rule for rule in found if network_of(rule) not in {None, *there}),
        unreadable=_ordered_rules(rule for rule in found if network_of(rule) is None),
        relied=_ordered_rules(rule for rule in keep if not owner.owns(rule.description)),
        lists=lists,
    )


def plan_removal(
    addon: str,
    kind: AddonKind,
    cidrs: Iterable[IPv4Network],
    found: Sequence[IpRule],
    *,
    owner: Owner,
    me: frozenset[IPv4Address] | None,
    lock_me_out: bool = False,
) -> AddonPlan:
    """Plan that every rule for one of `cidrs` goes, whoever made it: `mtlskit allowlist remove`. All others stay.

    Whoever names a CIDR means that rule; its owner is shown before it goes.
    Raises `AllowlistError`: ALLOW_NO_RULE where a CIDR has none, ALLOW_LOCKOUT.
    """
    named = frozenset(cidrs)
    networks = {network for rule in found if (network := network_of(rule)) is not None}
    if missing := sorted(named - networks):
        around = sorted(network for network in networks if missing[0].subnet_of(network))
        within = f"; {around[-1]} lets it in" if around else ""
        more = f" (and for {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise AllowlistError(
            Code.ALLOW_NO_RULE,
            f"{addon}: there is no rule for {missing[0]}{more}{within}",
            f"see what is there: mtlskit allowlist list --addon {addon}",
        )
    plan = AddonPlan(
        addon=addon,
        kind=kind,
        owner=owner,
        remove=_ordered_rules(rule for rule in found if network_of(rule) in named),
        foreign=_ordered_rules(rule for rule in found if network_of(rule) not in {None, *named}),
        unreadable=_ordered_rules(rule for rule in found if network_of(rule) is None),
    )
    if not lock_me_out:
        _refuse_lockout(plan, me)
    return plan


def _merged(wanted: Iterable[Wanted]) -> tuple[Mapping[IPv4Network, Wanted], tuple[str, ...]]:
    """One of each CIDR, the first; and the published lists that any of them came from."""
    first: dict[IPv4Network, Wanted] = {}
    lists: set[str] = set()
    for want in wanted:
        first.setdefault(want.cidr, want)
        if want.origin.startswith(FROM_LIST):
            lists.add(want.origin.removeprefix(FROM_LIST))
    return first, tuple(sorted(lists))


def _over(addon: str, found: int, adding: int, removing: int, *, limit: int, allow_gap: bool) -> int:
    """How many rules have to go first. Raises `AllowlistError` (ALLOW_FULL)."""
    if not adding:
        return 0
    finally_there = found + adding - removing
    if finally_there > limit:
        raise AllowlistError(
            Code.ALLOW_FULL,
            f"{addon}: {_count(found)} there, {adding} to add and {removing} to remove make {finally_there},"
            f" and Heroku takes {limit}",
            "join ranges that lie side by side (collapse = true in the file), or take others away:"
            f" mtlskit allowlist list --addon {addon}",
        )
    over = max(0, found + adding - limit)
    if over and not allow_gap:
        raise AllowlistError(
            Code.ALLOW_FULL,
            f"{addon}: {_count(found)} there and {adding} to add make {found + adding} for a while, and Heroku takes"
            f" {limit}; {_count(over)} would have to go before the new ones act",
            "remove first, and leave whoever used them out for some minutes: mtlskit allowlist apply --allow-gap",
        )
    return over


def _refuse_lockout(plan: AddonPlan, me: frozenset[IPv4Address] | None) -> None:
    """Raise `AllowlistError` (ALLOW_LOCKOUT) if the plan would leave this host, or who knows whom, without a rule."""
    stays = [network for rule in (*plan.keep, *plan.foreign) if (network := _counts(rule, plan)) is not None]
    at_end = Coverage([*stays, *(want.cidr for want in plan.add)])
    in_gap = Coverage(
        network
        for rule in (*plan.keep, *plan.foreign, *plan.remove_last)
        if rule.authorized and (network := network_of(rule)) is not None
    )
    for number, rule in enumerate(plan.remove):
        removed = network_of(rule)
        if removed is None:
            continue  # never planned: what cannot be read is not touched
        for network in _at_stake(removed, me):
            if not at_end.covers(network):
                raise _lockout(plan.addon, rule, network, me, "")
            if number < plan.over and not in_gap.covers(network):
                raise _lockout(plan.addon, rule, network, me, " until the new rules act")


def _counts(rule: IpRule, plan: AddonPlan) -> IPv4Network | None:
    """What a rule that stays lets in when the rest is removed: it acts already, or is waited for."""
    return network_of(rule) if rule.authorized or rule in plan.keep else None


def _at_stake(removed: IPv4Network, me: frozenset[IPv4Address] | None) -> list[IPv4Network]:
    """What must stay covered when the rule for `removed` goes: our addresses in it, or, not knowing them, all of it."""
    if not me:
        return [removed]
    return [IPv4Network(address) for address in sorted(me) if address in removed]


def _lockout(
    addon: str, rule: IpRule, network: IPv4Network, me: frozenset[IPv4Address] | None, until: str
) -> AllowlistError:
    if not me:
        return AllowlistError(
            Code.ALLOW_LOCKOUT,
            f"{addon}: this host's address is not known, and removing {rule.cidr} might lock it out{until}",
            "find out: mtlskit my-ip; or remove it all the same: --lock-me-out",
        )
    address = network.network_address
    return AllowlistError(
        Code.ALLOW_LOCKOUT,
        f"{addon}: removing {rule.cidr} would lock out {address}, this host's own address{until}",
        "keep a rule that covers it (in a file: my_ip = true, or the address among rules); or remove it all the same:"
        " --lock-me-out",
    )


def _ordered(wanted: Iterable[Wanted]) -> tuple[Wanted, ...]:
    return tuple(sorted(wanted, key=lambda want: want.cidr))


def _ordered_rules(rules: Iterable[IpRule], me: frozenset[IPv4Address] = frozenset()) -> tuple[IpRule, ...]:
    """By address; those that cover one of `me` last, so that they are the last to go."""

    def place(rule: IpRule) -> tuple[bool, IPv4Network, str, str]:
        network = network_of(rule) or IPv4Network(0)
        return any(address in network for address in me), network, rule.cidr, rule.id

    return tuple(sorted(rules, key=place))


def _canonical(plan: AddonPlan) -> list[object]:
    return [
        plan.addon,
        plan.kind.value,
        [[str(want.cidr), plan.description(want)] for want in plan.add],
        sorted([rule.id, rule.cidr] for rule in plan.remove_first),
        sorted([rule.id, rule.cidr] for rule in plan.remove_last),
    ]


def _count(rules: int) -> str:
    return f"{rules} rule" if rules == 1 else f"{rules} rules"
