"""What a plan does with each rule, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from mtlskit.allowlist.owner import NOBODY, Owner
from mtlskit.allowlist.plan import AddonPlan, Plan, Wanted, plan_addition, plan_addon, plan_removal
from mtlskit.errors import AllowlistError, Code, ConfigError
from mtlskit.heroku.values import AddonKind, IpRule

OWNER = Owner("sales", "web-1")
ME = frozenset({IPv4Address("203.0.113.7")})
ELSEWHERE = frozenset({IPv4Address("192.0.2.1")})
PG = AddonKind.POSTGRES


def want(cidr: str, description: str = "office", origin: str = "file") -> Wanted:
    return Wanted(IPv4Network(cidr), description, origin)


def rule(cidr: str, description: str = "by hand", status: str = "Authorized", id: str = "") -> IpRule:  # noqa: A002
    return IpRule(id or f"id-{cidr}", cidr, description, status)


def ours(cidr: str, status: str = "Authorized", id: str = "") -> IpRule:  # noqa: A002
    return rule(cidr, OWNER.tagged("office"), status, id)


def plan(
    wanted: list[Wanted],
    found: list[IpRule],
    *,
    me: frozenset[IPv4Address] | None = ELSEWHERE,
    prune: bool = False,
    lock_me_out: bool = False,
    allow_gap: bool = False,
    limit: int = 60,
) -> AddonPlan:
    return plan_addon(
        "pg-1", PG, wanted, found,
        owner=OWNER, me=me, prune=prune, lock_me_out=lock_me_out, allow_gap=allow_gap, limit=limit,
    )  # fmt: skip


def refused(code: Code, wanted: list[Wanted], found: list[IpRule], **options: object) -> AllowlistError:
    with pytest.raises(AllowlistError) as caught:
        plan(wanted, found, **options)  # type: ignore[arg-type] # passed on as they are
    assert caught.value.code is code
    assert caught.value.sentence.startswith("pg-1: ")
    assert "mtlskit allowlist" in caught.value.hint or "--lock-me-out" in caught.value.hint
    return caught.value


def test_each_rule_in_its_place() -> None:
    stays, goes = ours("198.51.100.1"), ours("198.51.100.2/32")
    relied, foreign = rule("198.51.100.3/32"), rule("198.51.100.4/32", Owner("sales", "web-2").tagged("office"))
    odd = [rule("203.0.113.7/24"), ours("2001:db8::/32"), rule("everybody")]
    wanted = [want("198.51.100.1"), want("198.51.100.3"), want("198.51.100.5")]
    found = plan(wanted, [*odd, foreign, relied, goes, stays])
    assert found.add == (wanted[2],)
    assert found.remove == (goes,)
    assert found.keep == (stays, relied)
    assert found.relied == (relied,)
    assert found.foreign == (foreign,)
    assert set(found.unreadable) == set(odd)
    assert (found.over, found.waiting, found.has_changes) == (0, (), True)
    assert found.description(wanted[2]) == "office [mtlskit:sales/web-1]"


def test_prune_takes_what_others_made_and_nothing_that_is_wanted_or_unclear() -> None:
    relied, foreign, odd = rule("198.51.100.3"), rule("198.51.100.4"), rule("::/0")
    found = plan([want("198.51.100.3")], [relied, foreign, odd], prune=True)
    assert (found.keep, found.remove, found.unreadable) == ((relied,), (foreign,), (odd,))


def test_prune_is_not_for_published_lists() -> None:
    with pytest.raises(ConfigError) as caught:
        plan([want("198.51.100.3"), want("198.51.100.3", origin="list:vendor.txt")], [], prune=True)
    assert caught.value.code is Code.USAGE
    assert "vendor.txt" in caught.value.sentence
    assert plan([want("198.51.100.3", origin="list:vendor.txt")], []).lists == ("vendor.txt",)


def test_of_two_with_one_range_the_first_describes() -> None:
    assert plan([want("198.51.100.3", "a"), want("198.51.100.3", "b", "my-ip")], []).add == (want("198.51.100.3", "a"),)


def test_ranges_within_each_other_stay_apart() -> None:
    assert len(plan([want("198.51.100.0/24"), want("198.51.100.3")], []).add) == 2


@pytest.mark.parametrize("cidr", ["0.0.0.0/0", "10.0.0.0/8", "198.51.100.0/24"])
def test_what_is_there_is_there_however_it_was_let_in(cidr: str) -> None:
    assert not plan([want(cidr)], [rule(cidr)]).has_changes


def test_a_rule_that_does_not_act_yet_is_waited_for() -> None:
    slow = ours("198.51.100.1", "Authorizing")
    found = plan([want("198.51.100.1")], [slow])
    assert (found.waiting, found.has_changes) == ((slow,), False)


def test_two_of_ours_for_one_range_are_kept() -> None:
    twice = [ours("198.51.100.1", id="a"), ours("198.51.100.1", id="b")]
    assert plan([want("198.51.100.1")], twice).keep == tuple(twice)
    assert plan([], twice).remove == tuple(twice)


# Not to lock oneself out.


def test_my_own_rule_stays() -> None:
    error = refused(Code.ALLOW_LOCKOUT, [want("198.51.100.1")], [ours("203.0.113.0/24")], me=ME)
    assert error.sentence == "pg-1: removing 203.0.113.0/24 would lock out 203.0.113.7, this host's own address"
    assert "my_ip = true" in error.hint
    assert plan([], [ours("203.0.113.0/24")], me=ME, lock_me_out=True).remove
    refused(Code.ALLOW_LOCKOUT, [], [rule("203.0.113.0/24")], me=ME, prune=True)


@pytest.mark.parametrize(
    ("wanted", "others"),
    [
        ([want("203.0.113.7")], []),
        ([want("203.0.113.7")], [ours("203.0.113.7", "Authorizing")]),
        ([], [rule("203.0.113.0/28")]),
        ([want("0.0.0.0/0")], [rule("0.0.0.0/0")]),
    ],
)
def test_my_own_rule_goes_where_another_lets_me_in(wanted: list[Wanted], others: list[IpRule]) -> None:
    mine = ours("203.0.113.0/24")
    assert plan(wanted, [*others, mine], me=ME).remove == (mine,)


@pytest.mark.parametrize("other", [rule("203.0.113.7", status="Authorizing"), rule("203.0.113.7/24"), rule("::/0")])
def test_what_nobody_waits_for_or_understands_lets_nobody_in(other: IpRule) -> None:
    refused(Code.ALLOW_LOCKOUT, [], [other, ours("203.0.113.0/24")], me=ME)


def test_every_one_of_my_addresses_counts() -> None:
    two = ME | {IPv4Address("203.0.113.8")}
    error = refused(Code.ALLOW_LOCKOUT, [want("203.0.113.7")], [ours("203.0.113.0/24")], me=two)
    assert "203.0.113.8" in error.sentence


@pytest.mark.parametrize("me", [None, frozenset[IPv4Address]()])
def test_not_knowing_who_i_am(me: frozenset[IPv4Address] | None) -> None:
    gone = ours("198.51.100.0/31")
    error = refused(Code.ALLOW_LOCKOUT, [want("203.0.113.7")], [gone], me=me)
    assert "this host's address is not known, and removing 198.51.100.0/31 might lock it out" in error.sentence
    assert plan([], [gone], me=me, lock_me_out=True).remove == (gone,)
    assert plan([want("203.0.113.7")], [], me=me).add
    # What stays or comes lets the same addresses in.
    assert plan([want("198.51.100.0"), want("198.51.100.1")], [gone], me=me).remove == (gone,)
    refused(Code.ALLOW_LOCKOUT, [want("198.51.100.0")], [gone], me=me)


# No more rules than Heroku takes.


def many(count: int, start: int = 0) -> list[IpRule]:
    return [ours(f"198.51.100.{number}") for number in range(start, start + count)]


def test_the_61st() -> None:
    wanted = [want(f"198.51.100.{number}") for number in range(60)]
    assert len(plan(wanted, []).add) == 60
    error = refused(Code.ALLOW_FULL, [*wanted, want("192.0.2.9")], [])
    assert error.sentence == "pg-1: 0 rules there, 61 to add and 0 to remove make 61, and Heroku takes 60"
    assert "collapse = true" in error.hint
    refused(Code.ALLOW_FULL, [want("192.0.2.9")], [rule(f"198.51.100.{number}") for number in range(60)])
    refused(Code.ALLOW_FULL, [want("192.0.2.9")], [rule("::1", id=str(number)) for number in range(60)])
    # Too many that are there already are nobody's fault.
    assert plan([], many(70), limit=60).over == 0


def test_a_gap_is_asked_for() -> None:
    found = many(60)
    wanted = [want(f"198.51.100.{number}") for number in range(2, 60)] + [want("192.0.2.9")]
    error = refused(Code.ALLOW_FULL, wanted, found)
    assert error.sentence == (
        "pg-1: 60 rules there and 1 to add make 61 for a while, and Heroku takes 60; "
        "1 rule would have to go before the new ones act"
    )
    assert "--allow-gap" in error.hint
    gap = plan(wanted, found, allow_gap=True)
    assert (gap.over, gap.remove_first, gap.remove_last) == (1, (found[0],), (found[1],))
    assert plan([*wanted[:-2], wanted[-1]], found[:59], allow_gap=True).over == 0


def test_in_the_gap_my_rule_goes_last() -> None:
    mine, other = ours("198.51.100.0"), ours("198.51.100.1")
    me = frozenset({IPv4Address("198.51.100.0")})
    gap = plan([want("198.51.100.0/24")], [mine, other], allow_gap=True, limit=2, me=me)
    assert (gap.remove_first, gap.remove_last) == ((other,), (mine,))
    wanted = [want("198.51.100.0/24"), want("192.0.2.9")]
    error = refused(Code.ALLOW_LOCKOUT, wanted, [mine, other], allow_gap=True, limit=2, me=me)
    assert error.sentence.endswith("this host's own address until the new rules act")
    assert plan(wanted, [mine, other], allow_gap=True, limit=2, me=me, lock_me_out=True).over == 2


def test_in_the_gap_only_what_acts_lets_me_in() -> None:
    me = frozenset({IPv4Address("198.51.100.0")})
    wanted = [want("198.51.100.0/24"), want("192.0.2.9")]
    mine = ours("198.51.100.0")
    refused(Code.ALLOW_LOCKOUT, wanted, [mine, ours("198.51.100.0/24", "Authorizing")], allow_gap=True, limit=2, me=me)
    assert plan(wanted, [mine, ours("198.51.100.0/24")], allow_gap=True, limit=2, me=me).remove_first == (mine,)


# By hand.


def test_adding_by_hand_removes_nothing() -> None:
    gone, there = ours("198.51.100.1"), rule("198.51.100.2")
    found = plan_addition("pg-1", PG, [want("198.51.100.2"), want("198.51.100.3", "me")], [gone, there], owner=NOBODY)
    assert (found.add, found.remove, found.keep, found.foreign) == (
        (want("198.51.100.3", "me"),), (), (there,), (gone,),
    )  # fmt: skip
    assert found.description(found.add[0]) == "me"
    with pytest.raises(AllowlistError) as caught:
        plan_addition("pg-1", PG, [want("192.0.2.9")], many(60), owner=OWNER)
    assert caught.value.code is Code.ALLOW_FULL


def test_removing_by_hand_takes_exactly_that_range() -> None:
    gone, wider, odd = rule("198.51.100.0/25"), ours("198.51.100.0/24"), rule("x")
    named = [IPv4Network("198.51.100.0/25")]
    found = plan_removal("pg-1", PG, named, [gone, wider, odd], owner=OWNER, me=None)
    assert (found.remove, found.foreign, found.unreadable) == ((gone,), (wider,), (odd,))
    with pytest.raises(AllowlistError) as caught:
        plan_removal("pg-1", PG, named, [gone], owner=OWNER, me=frozenset({IPv4Address("198.51.100.3")}))
    assert caught.value.code is Code.ALLOW_LOCKOUT
    assert plan_removal("pg-1", PG, named, [gone], owner=OWNER, me=None, lock_me_out=True).remove


def test_removing_what_is_not_there() -> None:
    named = [IPv4Network("198.51.100.7/32"), IPv4Network("192.0.2.1/32")]
    with pytest.raises(AllowlistError) as caught:
        plan_removal("pg-1", PG, named[:1], [rule("198.51.100.0/24")], owner=OWNER, me=ELSEWHERE)
    assert caught.value.code is Code.ALLOW_NO_RULE
    assert caught.value.sentence == "pg-1: there is no rule for 198.51.100.7/32; 198.51.100.0/24 lets it in"
    with pytest.raises(AllowlistError, match=r"no rule for 192.0.2.1/32 \(and for 1 more\) \["):
        plan_removal("pg-1", PG, named, [], owner=OWNER, me=ELSEWHERE)


# The hash.


def test_the_hash_is_of_what_would_be_done() -> None:
    added = plan([want("198.51.100.1")], [ours("198.51.100.2"), rule("198.51.100.3")])
    whole = Plan((added,))
    assert len(whole.hash) == 20
    assert int(whole.hash, 16) >= 0
    same = [
        replace(added, foreign=()),
        replace(added, keep=(ours("192.0.2.1"),)),
        replace(added, add=(want("198.51.100.1", origin="my-ip"),)),
        replace(added, lists=("x",)),
    ]
    assert {Plan((each,)).hash for each in same} == {whole.hash}
    unchanged = AddonPlan("pg-2", PG, OWNER, keep=(ours("192.0.2.1"),))
    assert Plan((unchanged, added)).hash == whole.hash
    others = [
        replace(added, addon="pg-2"),
        replace(added, kind=AddonKind.KAFKA),
        replace(added, owner=Owner("sales", "web-2")),
        replace(added, add=()),
        replace(added, add=(want("198.51.100.1", "another"),)),
        replace(added, remove=()),
        replace(added, remove=(ours("198.51.100.2", id="another"),)),
        replace(added, over=1),
    ]
    hashes = {Plan((each,)).hash for each in others} | {whole.hash, Plan(()).hash, Plan((added, others[0])).hash}
    assert len(hashes) == len(others) + 3


def test_a_plan_of_several() -> None:
    changing = plan([want("198.51.100.1", origin="list:b")], [])
    still = replace(changing, addon="pg-2", add=(), lists=("a", "b"))
    assert Plan((changing, still)).lists == ("a", "b")
    assert Plan((changing, still)).has_changes
    assert not Plan((still,)).has_changes
    assert Plan((changing, replace(changing, addon="z"))).hash == Plan((replace(changing, addon="z"), changing)).hash


def test_a_range_that_moves_to_another_list_keeps_its_rule() -> None:
    """One list relies on a rule of the other, which therefore must not remove it."""
    found = [ours("198.51.100.0/24"), ours("198.51.100.7/32")]
    other = plan_addon("pg-1", PG, [want("198.51.100.0/24")], found, owner=Owner("offices", "web-1"), me=ELSEWHERE)
    assert (other.add, other.relied) == ((), (found[0],))
    for prune in (False, True):
        made = plan_addon(
            "pg-1", PG, [], found, owner=OWNER, me=ELSEWHERE, prune=prune, spared={IPv4Network("198.51.100.0/24")}
        )
        assert (made.remove, made.foreign) == ((found[1],), (found[0],))


def test_two_lists_cannot_both_remove_what_lets_this_host_in() -> None:
    other = Owner("offices", "web-1")
    found = [ours("203.0.113.7", id="a"), rule("203.0.113.7", other.tagged("office"), id="b")]
    first = plan([], found, me=ME)
    assert [each.id for each in first.remove] == ["a"]
    with pytest.raises(AllowlistError) as caught:
        plan_addon("pg-1", PG, [], first.after(found), owner=other, me=ME)
    assert caught.value.code is Code.ALLOW_LOCKOUT


def test_what_is_there_after_a_plan() -> None:
    found = [ours("198.51.100.1"), ours("198.51.100.2"), rule("198.51.100.3")]
    made = plan([want("198.51.100.2"), want("198.51.100.4/32")], found)
    after = made.after(found)
    assert after[:2] == tuple(found[1:])
    assert [(each.cidr, each.authorized) for each in after[2:]] == [("198.51.100.4/32", False)]
    assert plan([want("198.51.100.2"), want("198.51.100.4/32")], list(after)).has_changes is False
