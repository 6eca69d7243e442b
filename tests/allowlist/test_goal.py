"""What is still to be done at an add-on, from what is wanted and what is there."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from itertools import permutations

import pytest

from mtlskit.allowlist.goal import Goal, Missing, goal_of
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Wanted, plan_addon
from mtlskit.heroku.values import AddonKind, IpRule

OWNER = Owner("office", "0123abcd")
OURS, THEIRS = OWNER.tagged("office"), "somebody's"
ONE, TWO = IPv4Network("203.0.113.1"), IPv4Network("203.0.113.2")
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def rule(
    name: str, cidr: str = "203.0.113.1/32", description: str = OURS, *, acts: bool = True, age: float | None = 0
) -> IpRule:
    made = EPOCH - timedelta(seconds=age) if age is not None else None
    return IpRule(name, cidr, description, "Authorized" if acts else "Authorizing", made)


def goal(*unwanted: str, wanted: tuple[IPv4Network, ...] = (ONE,)) -> Goal:
    return Goal("db", AddonKind.POSTGRES, dict.fromkeys(wanted, OURS), unwanted, OWNER)


@pytest.mark.parametrize(
    ("found", "unwanted", "missing", "waiting", "extra"),
    [
        pytest.param([], [], [ONE], [], [], id="nothing there"),
        pytest.param([rule("a")], [], [], [], [], id="as it should be"),
        pytest.param([rule("a", "203.0.113.1")], [], [], [], [], id="told without a prefix"),
        pytest.param([rule("a", acts=False)], [], [], ["a"], [], id="not acting yet"),
        pytest.param([rule("a", description=THEIRS, acts=False)], [], [], ["a"], [], id="another's is waited for too"),
        pytest.param([rule("a"), rule("b", "198.51.100.1/32")], ["b"], [], [], ["b"], id="an old one goes"),
        pytest.param([rule("a"), rule("b", "198.51.100.1/32")], [], [], [], [], id="one made since the plan stays"),
        pytest.param([rule("a"), rule("b", "2001:db8::1/128")], [], [], [], [], id="one that cannot be read stays"),
        pytest.param([rule("a"), rule("b", age=9)], [], [], [], ["a"], id="of two of ours the older stays"),
        pytest.param([rule("b"), rule("a")], [], [], [], ["b"], id="of the same second, the smaller id"),
        pytest.param([rule("b", age=0.9), rule("a", age=0.1)], [], [], [], ["b"], id="parts of a second do not count"),
        pytest.param([rule("a", age=None), rule("b")], [], [], [], ["a"], id="without a time, it is the younger"),
        pytest.param([rule("a", acts=False), rule("b")], [], [], ["a"], ["b"], id="the one that stays must act"),
        pytest.param([rule("a"), rule("b", description=THEIRS)], [], [], [], [], id="another's beside ours stays"),
        pytest.param([rule("a"), rule("b", description=THEIRS)], ["b"], [], [], ["b"], id="unless it is to go"),
        pytest.param([rule("a", description=THEIRS)], ["a"], [], [], [], id="the last one of a wanted range stays"),
        pytest.param([rule("a")], ["a"], [], [], [], id="also one of ours"),
        pytest.param([rule("a"), rule("b")], ["a"], [], [], ["b"], id="everybody keeps the same one"),
        pytest.param([rule("a"), rule("b")], ["a", "b"], [], [], ["b"], id="whatever was planned"),
    ],
)
def test_what_is_left_to_do(
    found: list[IpRule], unwanted: list[str], missing: list[IPv4Network], waiting: list[str], extra: list[str]
) -> None:
    for order in permutations(found):
        outlook = goal(*unwanted).look(order)
        assert outlook.missing == tuple(Missing(network, OURS) for network in missing)
        assert [each.id for each in outlook.waiting] == waiting
        assert [each.id for each in outlook.extra] == extra


def test_what_goes_goes_in_the_order_of_the_plan() -> None:
    found = [rule("a"), *(rule(name, f"198.51.100.{number}/32") for number, name in enumerate("bcd"))]
    assert [each.id for each in goal("d", "b", "c").look(found).extra] == ["d", "b", "c"]


def test_a_plan_as_a_goal() -> None:
    found = [
        rule("a", description=THEIRS),
        rule("b", "198.51.100.1/32"),
        rule("c", "198.51.100.2/32", THEIRS),
        rule("d", "203.0.113.0/32", OWNER.tagged("kept")),
    ]
    wanted = [Wanted(network, "new") for network in (ONE, TWO, IPv4Network("203.0.113.0"))]
    plan = plan_addon("db", AddonKind.KAFKA, wanted, found, owner=OWNER, me=None, lock_me_out=True)
    made = goal_of(plan)
    assert (made.addon, made.kind, made.unwanted) == ("db", AddonKind.KAFKA, ("b",))
    assert made.wanted == {
        ONE: OWNER.tagged("somebody's"),  # if theirs goes meanwhile, ours takes its place
        TWO: OWNER.tagged("new"),
        IPv4Network("203.0.113.0"): OWNER.tagged("kept"),
    }
