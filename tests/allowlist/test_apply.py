"""Applying: add, wait, remove; as quick as the slowest rule; and what it says where something is left."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

import pytest
import trio

from mtlskit.allowlist.applied import Applied, ApplyUnfinished
from mtlskit.allowlist.apply import apply
from mtlskit.allowlist.events import AddonFailed, RuleAdded, RulePutBack, RuleRemoved, RulesActing, RulesAuthorizing
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, Wanted, plan_addon
from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import AddonKind
from mtlskit.telemetry import Event
from tests.support.fake_rules import Call, FakeRules, Phase, lost

OWNER = Owner("office", "0123abcd")
OTHER = Owner("office", "ffff0000")


def wanted(*cidrs: str) -> list[Wanted]:
    return [Wanted(IPv4Network(cidr), "office") for cidr in cidrs]


def plan(api: FakeRules, addons: Iterable[str], rules: Iterable[Wanted], *, allow_gap: bool = False) -> Plan:
    rules = list(rules)
    return Plan(
        tuple(
            plan_addon(
                addon,
                AddonKind.POSTGRES,
                rules,
                api.at(addon),
                owner=OWNER,
                me=None,
                lock_me_out=True,
                allow_gap=allow_gap,
            )
            for addon in addons
        )
    )


async def test_new_rules_act_before_old_ones_go(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    old = api.put("db", "198.51.100.1/32", OWNER.tagged("office"))
    api.put("db", "192.0.2.9/32", "somebody's")
    api.put("db", "192.0.2.8/32", OTHER.tagged("office"))
    acting_at_removal: list[bool] = []

    def look(rules: FakeRules) -> None:
        if old not in {rule.id for rule in rules.at("db")}:
            acting_at_removal.append(all(rule.authorized for rule in rules.at("db")))

    api.on_change = look
    applied = await apply(api, plan(api, ["db"], wanted("203.0.113.1", "203.0.113.2")), wait=1800)

    assert applied.done
    assert api.cidrs("db") == ["192.0.2.8/32", "192.0.2.9/32", "203.0.113.1/32", "203.0.113.2/32"]
    assert acting_at_removal == [True]
    (addon,) = applied.addons
    assert [rule.cidr for rule in addon.removed] == ["198.51.100.1/32"]
    assert sorted(rule.cidr for rule in addon.added) == ["203.0.113.1/32", "203.0.113.2/32"]
    assert {rule.description for rule in addon.added} == {OWNER.tagged("office")}


async def test_twenty_rules_at_three_addons_take_as_long_as_the_slowest_rule(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slowest = 900.0
    api = FakeRules(takes=lambda cidr: slowest if cidr.endswith(".7/32") else 300.0)
    rules = wanted(*(f"203.0.113.{number}" for number in range(20)))
    applied = await apply(api, plan(api, ["db-1", "db-2", "kafka"], rules), wait=1800)
    # The adds take five rounds of four, and the last poll comes at most 20 s after the rule acts.
    assert slowest <= applied.seconds < slowest + 20 + 2
    assert all(len(each.added) == 20 for each in applied.addons)
    assert api.busiest <= 3 * 4
    # One list a round, not one a rule: 5 quick ones, then every 20 s.
    assert api.verbs("db-1").count("list") < 60


async def test_nothing_to_do_is_one_look(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    api.put("db", "203.0.113.1/32", OWNER.tagged("office"))
    events: list[Event] = []
    applied = await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=60, emit=events.append)
    assert applied.done
    assert api.verbs() == ["list"]
    assert not events


async def test_progress_is_told(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules(takes=lambda cidr: 10.0, latency=lambda: 0.0)
    events: list[Event] = []
    await apply(api, plan(api, ["db"], wanted("203.0.113.1", "203.0.113.2")), wait=60, emit=events.append)
    polls = [event for event in events if isinstance(event, RulesAuthorizing)]
    assert [event.next_look for event in polls] == [1, 2, 4, 8]
    assert [round(event.elapsed) for event in polls] == [0, 1, 3, 7]
    assert {(event.authorizing, event.rules) for event in polls} == {(2, 2)}
    assert "2 of 2 rules authorizing, 7 s so far; looking again in 8 s" in polls[-1].sentence()
    assert [type(event) for event in events if not isinstance(event, RulesAuthorizing)] == [
        RuleAdded,
        RuleAdded,
        RulesActing,
    ]
    assert all(event.sentence().startswith("db: ") for event in events)


async def test_the_time_is_over_and_is_told_with_what_is_done(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules(takes=lambda cidr: 5000.0 if cidr == "203.0.113.1/32" else 100.0)
    api.put("db-1", "198.51.100.1/32", OWNER.tagged("old"))
    two = plan(api, ["db-1"], wanted("203.0.113.1", "203.0.113.2")).addons
    one = plan(api, ["db-2"], wanted("203.0.113.2")).addons
    with pytest.raises(ApplyUnfinished) as caught:
        await apply(api, Plan(two + one), wait=600, again="mtlskit allowlist apply office")
    assert caught.value.code is Code.ALLOW_UNFINISHED
    assert caught.value.sentence == (
        "not finished: db-1: 1 of 2 rules act, still authorizing: 203.0.113.1/32, not removed: 198.51.100.1/32; "
        "db-2: done"
    )
    assert "go on with `mtlskit allowlist apply office`" in caught.value.hint
    assert caught.value.applied.seconds < 601
    assert "198.51.100.1/32" in api.cidrs("db-1")
    # The same command takes it up: nothing is added twice.
    applied = await apply(api, plan(api, ["db-1"], wanted("203.0.113.1", "203.0.113.2")), wait=6000)
    assert applied.done
    assert api.cidrs("db-1") == ["203.0.113.1/32", "203.0.113.2/32"]
    assert api.verbs("db-1").count("add") == 2


async def test_without_waiting_what_is_replaced_stays(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    api.put("db", "198.51.100.1/32", OWNER.tagged("old"))
    applied = await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=None)
    assert applied.finished
    assert not applied.done
    assert [rule.cidr for rule in applied.addons[0].waiting] == ["203.0.113.1/32"]
    assert [rule.cidr for rule in applied.addons[0].left] == ["198.51.100.1/32"]
    assert api.cidrs("db") == ["198.51.100.1/32", "203.0.113.1/32"]


async def test_without_waiting_what_nothing_replaces_goes(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    api.put("db", "198.51.100.1/32", OWNER.tagged("old"))
    applied = await apply(api, plan(api, ["db"], []), wait=None)
    assert applied.done
    assert api.cidrs("db") == []


async def test_one_addon_fails_and_the_others_go_on(autojump_clock: trio.testing.MockClock) -> None:
    def forbidden(call: Call, phase: Phase) -> None:
        if call.addon == "bad" and call.verb == "add":
            raise HerokuError(Code.API_FORBIDDEN, "bad: you may not", "ask its owner", status=403)

    api = FakeRules(trouble=forbidden)
    api.put("bad", "198.51.100.1/32", OWNER.tagged("old"))
    with pytest.raises(ApplyUnfinished) as caught:
        await apply(api, plan(api, ["bad", "good"], wanted("203.0.113.1")), wait=1800)
    bad, good = caught.value.applied.addons
    assert good.done
    assert bad.failure is not None
    assert bad.failure.code is Code.API_FORBIDDEN
    assert "bad: 0 of 1 rules act, not added: 203.0.113.1/32" in caught.value.sentence
    assert caught.value.hint.startswith("ask its owner; then nothing is lost")
    assert api.cidrs("bad") == ["198.51.100.1/32"]  # nothing goes where something wanted is missing
    assert api.verbs("bad").count("add") == 1


async def test_an_addon_that_cannot_be_listed_says_nothing_of_its_rules(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def gone(call: Call, phase: Phase) -> None:
        raise HerokuError(Code.API_NOT_FOUND, "there is no db", status=404)

    api = FakeRules()
    planned = plan(api, ["db"], wanted("203.0.113.1"))
    api.trouble = gone
    with pytest.raises(ApplyUnfinished, match="not finished: db: there is no db"):
        await apply(api, planned, wait=60)


async def test_an_outage_while_waiting_is_sat_out(autojump_clock: trio.testing.MockClock) -> None:
    def outage(call: Call, phase: Phase) -> None:
        if call.verb == "list" and 50 < trio.current_time() < 500:
            raise HerokuError(Code.API_UNREACHABLE, "no connection")

    api = FakeRules(trouble=outage)
    api.put("db", "198.51.100.1/32", OWNER.tagged("old"))
    applied = await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=1800)
    assert applied.done
    assert api.cidrs("db") == ["203.0.113.1/32"]


async def test_an_outage_that_outlasts_the_wait_is_told(autojump_clock: trio.testing.MockClock) -> None:
    def outage(call: Call, phase: Phase) -> None:
        if trio.current_time() > 50:
            raise HerokuError(Code.API_UNREACHABLE, "no connection")

    api = FakeRules(trouble=outage)
    with pytest.raises(ApplyUnfinished, match=r"still authorizing: 203.0.113.1/32, no connection \[MTLS-API-010\]"):
        await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=300)


async def test_a_lost_answer_costs_a_round_and_no_second_rule(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules(trouble=lost(2, "after"))
    applied = await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=None)
    assert applied.finished
    assert api.verbs() == ["list", "add", "list"]


async def test_a_rule_that_is_refused_is_told(autojump_clock: trio.testing.MockClock) -> None:
    def refused(call: Call, phase: Phase) -> None:
        if call.verb == "add" and call.what == "203.0.113.1/32":
            raise HerokuError(Code.API_REFUSED, "db: not this one", status=422)

    api = FakeRules(trouble=refused)
    with pytest.raises(ApplyUnfinished, match=r"not added: 203\.0\.113\.1/32, db: not this one"):
        await apply(api, plan(api, ["db"], wanted("203.0.113.1", "203.0.113.2")), wait=1800)
    assert api.cidrs("db") == ["203.0.113.2/32"]


async def test_an_api_that_never_takes_a_rule_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    def busy(call: Call, phase: Phase) -> None:
        if call.verb == "add":
            raise HerokuError(Code.API_BUSY, "too many requests", status=429)

    api = FakeRules(trouble=busy)
    with pytest.raises(ApplyUnfinished, match="too many requests"):
        await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=1800)
    assert api.verbs().count("add") == 3


@pytest.mark.parametrize(("wait", "tries"), [(None, 1), (20.0, 1), (1800.0, 3)])
async def test_a_try_that_took_minutes_is_made_again_only_where_there_is_time(
    wait: float | None, tries: int, autojump_clock: trio.testing.MockClock
) -> None:
    """The client is patient with a rule that Heroku fails to add, and has said so already."""

    def trouble(call: Call, phase: Phase) -> None:
        if call.verb == "add":
            raise HerokuError(Code.API_FAILED, "given up after 20 tries, and it is not there", status=500)

    api = FakeRules(latency=lambda: 300.0, trouble=trouble)
    with pytest.raises(ApplyUnfinished) as caught:
        await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=wait)
    assert api.verbs().count("add") == tries
    assert [str(each.cidr) for each in caught.value.applied.addons[0].missing] == ["203.0.113.1/32"]


async def test_what_another_removes_is_put_back_and_told(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    kept = api.put("db", "203.0.113.1/32", OWNER.tagged("office"))
    planned = plan(api, ["db"], wanted("203.0.113.1", "203.0.113.2"))
    removed: list[str] = []

    def another(call: Call, phase: Phase) -> None:
        if call.verb == "add" and phase == "after" and not removed:
            api.take("db", kept)
            removed.append(kept)

    api.trouble = another
    events: list[Event] = []
    applied = await apply(api, planned, wait=1800, emit=events.append)
    assert applied.done
    assert api.cidrs("db") == ["203.0.113.1/32", "203.0.113.2/32"]
    assert [event.cidr for event in events if isinstance(event, RulePutBack)] == ["203.0.113.1/32"]
    assert {rule.description for rule in api.at("db")} == {OWNER.tagged("office")}


async def test_a_quarrel_with_another_host_ends(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()

    def another(call: Call, phase: Phase) -> None:
        if call.verb == "list" and phase == "before":
            for rule in api.at("db"):
                api.take("db", rule.id)

    api.trouble = another
    with pytest.raises(ApplyUnfinished, match="removed again and again by somebody else"):
        await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=1800)
    assert api.verbs().count("add") == 4


async def test_of_two_rules_of_ours_for_one_range_the_older_stays(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    older = api.put("db", "203.0.113.1/32", OWNER.tagged("office"))
    api.put("db", "203.0.113.1/32", OWNER.tagged("office"))
    foreign = api.put("db", "203.0.113.1/32", OTHER.tagged("office"))
    events: list[Event] = []
    applied = await apply(api, plan(api, ["db"], wanted("203.0.113.1")), wait=60, emit=events.append)
    assert applied.done
    assert [rule.id for rule in api.at("db")] == [older, foreign]
    assert [event.duplicate for event in events if isinstance(event, RuleRemoved)] == [True]


async def test_a_rule_that_another_made_meanwhile_is_enough(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    planned = plan(api, ["db"], wanted("203.0.113.1"))
    api.put("db", "203.0.113.1/32", OTHER.tagged("office"), acts_in=60)
    applied = await apply(api, planned, wait=1800)
    assert applied.done
    assert "add" not in api.verbs()


async def test_a_full_addon_makes_room_only_where_a_gap_is_allowed(autojump_clock: trio.testing.MockClock) -> None:
    def full() -> FakeRules:
        api = FakeRules()
        for number in range(58):
            api.put("db", f"192.0.2.{number}/32", "somebody's")
        for number in range(2):
            api.put("db", f"198.51.100.{number}/32", OWNER.tagged("old"))
        return api

    api = full()
    least: list[int] = []
    api.on_change = lambda rules: least.append(len(rules.at("db")))
    applied = await apply(api, plan(api, ["db"], wanted("203.0.113.1"), allow_gap=True), wait=1800)
    assert applied.done
    assert least == [59, 60, 59]  # no more than needed goes first

    api = full()
    planned = plan(FakeRules(), ["db"], wanted("203.0.113.1"))  # made when there was room
    with pytest.raises(ApplyUnfinished, match="db: no room for 1 more rule: the limit is 60"):
        await apply(api, planned, wait=1800)
    assert len(api.at("db")) == 60


async def test_no_more_goes_first_than_the_plan_has_looked_at(autojump_clock: trio.testing.MockClock) -> None:
    """Whom the first of them lock out was looked at for one. Somebody has taken the room since."""
    api = FakeRules()
    for number in range(57):
        api.put("db", f"192.0.2.{number}/32", "somebody's")
    for number in range(3):
        api.put("db", f"198.51.100.{number}/32", OWNER.tagged("old"))
    planned = plan(api, ["db"], wanted("203.0.113.1"), allow_gap=True)
    assert planned.addons[0].over == 1
    api.put("db", "192.0.2.200/32", "somebody's")
    with pytest.raises(ApplyUnfinished, match="no room for 1 more rule"):
        await apply(api, planned, wait=1800)
    assert len(api.at("db")) == 61


async def test_two_lists_for_one_addon_are_applied_at_once(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    for owner in (OWNER, OTHER):
        api.put("db", "198.51.100.1/32", owner.tagged("old"))
    plans = [
        plan_addon("db", AddonKind.POSTGRES, wanted(cidr), api.at("db"), owner=owner, me=None, lock_me_out=True)
        for owner, cidr in ((OWNER, "203.0.113.1"), (OTHER, "203.0.113.2"))
    ]
    applied = await apply(api, Plan(tuple(plans)), wait=1800)
    assert [[rule.cidr for rule in each.added] for each in applied.addons] == [["203.0.113.1/32"], ["203.0.113.2/32"]]
    assert applied.seconds < 600 + 30
    assert sorted((rule.cidr, rule.description) for rule in api.at("db")) == [
        ("203.0.113.1/32", OWNER.tagged("office")),
        ("203.0.113.2/32", OTHER.tagged("office")),
    ]


async def test_a_result_without_addons_is_done(autojump_clock: trio.testing.MockClock) -> None:
    assert await apply(FakeRules(), Plan(()), wait=1.0) == Applied((), 0.0, waited=True)


def test_a_failure_names_its_add_on_once() -> None:
    for reason in ("db: no room for 2 more rules", "no room for 2 more rules"):
        event = AddonFailed(addon="db", code="MTLS-ALW-005", reason=reason, hint="")
        assert event.sentence() == "db: no room for 2 more rules [MTLS-ALW-005]"
