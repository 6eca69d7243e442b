"""What holds for every plan, whatever is wanted and found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from random import Random

from hypothesis import assume, given
from hypothesis import strategies as st

from mtlskit.allowlist.collapse import collapse
from mtlskit.allowlist.coverage import Coverage, network_of
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import AddonPlan, Plan, Wanted, plan_addition, plan_addon
from mtlskit.errors import AllowlistError, Code
from mtlskit.heroku.values import AddonKind, IpRule

OWNER, OTHER = Owner("sales", "web-1"), Owner("sales", "web-2")
LIMIT = 6
"""Small, so that plans meet it; the ranges are few, so that they meet each other."""

BLOCK = int(IPv4Address("198.51.100.0"))
NETWORKS = st.tuples(st.integers(0, 7), st.integers(29, 32)).map(
    lambda pair: IPv4Network((BLOCK + pair[0], pair[1]), strict=False)
)
WANTED = st.lists(
    # One description for one range: of several, the first has a say.
    st.builds(lambda network: Wanted(network, f"for {network}"), NETWORKS), max_size=5
)  # fmt: skip
ADDRESSES = st.frozensets(st.integers(0, 8).map(lambda number: IPv4Address(BLOCK + number)), max_size=3)
ME = st.none() | ADDRESSES


@dataclass(frozen=True)
class Options:
    me: frozenset[IPv4Address] | None
    prune: bool
    lock_me_out: bool
    allow_gap: bool


OPTIONS = st.builds(Options, ME, st.booleans(), st.booleans(), st.booleans())


@st.composite
def rules(draw: st.DrawFn) -> list[IpRule]:
    cidrs = draw(st.lists(NETWORKS.map(str) | st.sampled_from(["198.51.100.1/24", "::/0", "x"]), max_size=LIMIT))
    tags = st.sampled_from(["by hand", OWNER.tagged("x"), OTHER.tagged("x"), f"{OWNER.tag} quoted"])
    states = st.sampled_from(["Authorized", "Authorizing"])
    return [IpRule(str(number), cidr, draw(tags), draw(states)) for number, cidr in enumerate(cidrs)]


def planned(wanted: Sequence[Wanted], found: Sequence[IpRule], options: Options) -> AddonPlan:
    return plan_addon(
        "pg-1", AddonKind.POSTGRES, wanted, found,
        owner=OWNER, me=options.me, prune=options.prune, lock_me_out=options.lock_me_out,
        allow_gap=options.allow_gap, limit=LIMIT,
    )  # fmt: skip


def carried_out(plan: AddonPlan, found: Sequence[IpRule]) -> list[list[IpRule]]:
    """The rules after each step, as `apply` does them: all that was added and waited for acts before the last go."""
    steps = [list(found)]

    def step(rules: Sequence[IpRule]) -> None:
        steps.append(list(rules))

    for gone in plan.remove_first:
        step([rule for rule in steps[-1] if rule != gone])
    for want in plan.add:
        step([*steps[-1], IpRule(f"new {want.cidr}", str(want.cidr), plan.description(want), "Authorizing")])
    waited = {rule.id for rule in plan.waiting} | {f"new {want.cidr}" for want in plan.add}
    step([
        IpRule(rule.id, rule.cidr, rule.description, "Authorized") if rule.id in waited else rule for rule in steps[-1]
    ])  # fmt: skip
    gone_last = {rule.id for rule in plan.remove_last}
    step([rule for rule in steps[-1] if rule.id not in gone_last])
    return steps


def lets_in(rules: Sequence[IpRule], address: IPv4Address) -> bool:
    return any(rule.authorized and (net := network_of(rule)) is not None and address in net for rule in rules)


@given(WANTED, rules(), OPTIONS)
def test_a_plan_gives_what_is_wanted_and_keeps_its_promises(
    wanted: list[Wanted], found: list[IpRule], options: Options
) -> None:
    try:
        plan = planned(wanted, found, options)
    except AllowlistError as exc:
        assert exc.code in (Code.ALLOW_FULL, Code.ALLOW_LOCKOUT)  # noqa: PT017 - either outcome is right
        return
    sorted_ids = sorted(rule.id for rule in (*plan.keep, *plan.remove, *plan.foreign, *plan.unreadable))
    assert sorted_ids == sorted(rule.id for rule in found)
    steps = carried_out(plan, found)
    at_end = steps[-1]

    # What was wanted is there and acts; of ours, nothing else is; with prune, of nobody's.
    ranges = {want.cidr for want in wanted}
    assert ranges <= {network_of(rule) for rule in at_end if rule.authorized}
    rest = [rule for rule in at_end if network_of(rule) not in {None, *ranges}]
    assert not [rule for rule in rest if options.prune or OWNER.owns(rule.description)]

    # Nothing without our tag goes, unless pruned; and nothing that nobody can read.
    assert all(options.prune or OWNER.owns(rule.description) for rule in plan.remove)
    assert all(network_of(rule) is not None for rule in plan.remove)

    # Never more than the limit; a gap only where it was allowed.
    assert max(map(len, steps)) <= max(LIMIT, len(found))
    assert not plan.remove_first or options.allow_gap

    # Whoever may stay is let in all the time, without a gap.
    if not plan.over:
        stay = [address for network in ranges for address in network if lets_in(found, address)]
        assert all(lets_in(step, address) for step in steps for address in stay)

    # I am not locked out.
    if not options.lock_me_out:
        mine = options.me or {IPv4Address(BLOCK + number) for number in range(8)}
        inside = [address for address in mine if lets_in(found, address)]
        assert all(lets_in(step, address) for step in steps for address in inside)

    # Planning again changes nothing.
    again = planned(wanted, at_end, options)
    assert not again.has_changes
    assert again.waiting == ()
    assert Plan((again,)).hash == Plan(()).hash


@given(WANTED, rules(), OPTIONS, st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(
    wanted: list[Wanted], found: list[IpRule], options: Options, random: Random
) -> None:
    def outcome() -> tuple[AddonPlan | None, str, str]:
        try:
            plan = planned(wanted, found, options)
        except AllowlistError as exc:
            return None, exc.code, exc.sentence
        return plan, Plan((plan,)).hash, ""

    before = outcome()
    random.shuffle(wanted)
    random.shuffle(found)
    assert outcome() == before


@given(WANTED, rules(), WANTED, rules())
def test_the_hash_differs_only_where_something_else_is_done(
    wanted: list[Wanted], found: list[IpRule], others: list[Wanted], found_too: list[IpRule]
) -> None:
    free = Options(me=None, prune=False, lock_me_out=True, allow_gap=True)
    try:
        one, two = planned(wanted, found, free), planned(others, found_too, free)
    except AllowlistError:
        assume(False)
    done = [
        (
            {(want.cidr, want.description) for want in plan.add},
            {(rule.id, rule.cidr) for rule in plan.remove_first},
            {(rule.id, rule.cidr) for rule in plan.remove_last},
        )
        for plan in (one, two)
    ]
    assert (Plan((one,)).hash == Plan((two,)).hash) == (done[0] == done[1])


@given(WANTED, rules())
def test_adding_by_hand_gives_what_was_there_and_what_is_wanted(wanted: list[Wanted], found: list[IpRule]) -> None:
    plan = plan_addition("pg-1", AddonKind.POSTGRES, wanted, found, owner=OWNER, limit=2 * LIMIT)
    at_end = carried_out(plan, found)[-1]
    assert {rule.id for rule in found} <= {rule.id for rule in at_end}
    assert {want.cidr for want in wanted} <= {network_of(rule) for rule in at_end}
    assert not plan_addition("pg-1", AddonKind.POSTGRES, wanted, at_end, owner=OWNER).has_changes


@given(st.lists(st.builds(Wanted, NETWORKS, st.sampled_from("abc"), st.sampled_from(["file", "my-ip", "list:x"]))))
def test_collapsing_covers_exactly_the_same_addresses(wanted: list[Wanted]) -> None:
    joined = collapse(wanted)
    before = {address for want in wanted for address in want.cidr}
    after = [address for want in joined for address in want.cidr]
    assert set(after) == before
    assert len(after) == len(before)
    assert len(joined) <= len({want.cidr for want in wanted})
    assert collapse(joined) == joined
    assert collapse(reversed(wanted)) == joined
    assert any(want.origin == "list:x" for want in wanted) == any(want.origin == "list:x" for want in joined)


@given(st.lists(NETWORKS, max_size=5), NETWORKS)
def test_what_is_covered(networks: list[IPv4Network], asked: IPv4Network) -> None:
    covered = {address for network in networks for address in network}
    assert Coverage(networks).covers(asked) == covered.issuperset(asked)
