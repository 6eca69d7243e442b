"""Looking at many add-ons takes a few round trips, and names what is wrong with one of them."""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv4Address, IPv4Network

import pytest
import trio

from mtlskit.allowlist.applied import ApplyUnfinished
from mtlskit.allowlist.gather import gather
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Wanted
from mtlskit.allowlist.several import add_rules, remove_rules
from mtlskit.errors import AllowlistError, Code, HerokuError
from mtlskit.heroku.values import AddonKind
from tests.support.fake_rules import Call, FakeRules, Phase

OWNER = Owner("cli", "0123abcd")


def full_house() -> FakeRules:
    api = FakeRules()
    for addon in range(20):
        for rule in range(60):
            api.put(f"db-{addon}", f"203.0.113.{rule}/32", "somebody's")
    return api


async def test_sixty_rules_of_twenty_addons_are_a_few_round_trips(autojump_clock: trio.testing.MockClock) -> None:
    api = full_house()
    began = trio.current_time()
    found = await gather(api, api, [f"db-{number}" for number in range(20)])
    assert trio.current_time() - began == pytest.approx(4 * 0.1)  # twice two: 16 add-ons at once
    assert [each.addon for each in found] == [f"db-{number}" for number in range(20)]
    assert {len(each.rules) for each in found} == {60}
    assert Counter(api.verbs()) == {"addon": 20, "list": 20}


async def test_an_addon_is_looked_at_once_however_it_is_named(autojump_clock: trio.testing.MockClock) -> None:
    class Aliases(FakeRules):
        async def addon(self, name: str, /):  # type: ignore[no-untyped-def] # as the base has it
            return await super().addon(name.removesuffix("-alias"))

    api = Aliases()
    found = await gather(api, api, ["kafka-1", "db-alias", "db", "kafka-1"])
    assert [(each.addon, each.kind) for each in found] == [("kafka-1", AddonKind.KAFKA), ("db", AddonKind.POSTGRES)]


async def test_an_addon_without_rules_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    with pytest.raises(HerokuError, match="redis-1: an add-on of heroku-some has no IP rules") as caught:
        await gather(api, api, ["db", "redis-1"])
    assert caught.value.code is Code.API_NO_MTLS


async def test_the_first_error_in_the_order_of_names_is_raised(autojump_clock: trio.testing.MockClock) -> None:
    def missing(call: Call, phase: Phase) -> None:
        if call.addon.startswith("no"):
            raise HerokuError(Code.API_NOT_FOUND, f"there is no {call.addon}")

    api = FakeRules(trouble=missing)
    with pytest.raises(HerokuError, match="there is no no-b"):
        await gather(api, api, ["db", "no-b", "no-a"])
    with pytest.raises(HerokuError, match=r"there is no no-b \(the add-on is named by --addon\)"):
        await gather(api, api, ["db", "no-b", "no-a"], named_by={"no-b": "--addon", "no-a": "elsewhere"})


async def test_ranges_are_added_everywhere_beside_what_is_there(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    api.put("db", "198.51.100.1/32", OWNER.tagged("kept"))
    api.put("kafka", "203.0.113.0/24", "somebody's")
    found = await gather(api, api, ["db", "kafka", "db-2"])
    wanted = [Wanted(IPv4Network("203.0.113.0/24"), "office"), Wanted(IPv4Network("192.0.2.1"), "home")]
    applied = await add_rules(api, found, wanted, owner=OWNER, wait=1800)
    assert applied.done
    assert api.cidrs("db") == ["192.0.2.1/32", "198.51.100.1/32", "203.0.113.0/24"]
    assert api.cidrs("kafka") == ["192.0.2.1/32", "203.0.113.0/24"]
    assert api.cidrs("db-2") == ["192.0.2.1/32", "203.0.113.0/24"]
    assert {rule.description for rule in api.at("db-2")} == {OWNER.tagged("office"), OWNER.tagged("home")}


async def test_ranges_are_removed_everywhere_and_nothing_else(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    for addon in ("db", "kafka"):
        api.put(addon, "203.0.113.1/32", "somebody's")
        api.put(addon, "203.0.113.2/32", OWNER.tagged("kept"), acts_in=600)  # nobody waits for this one
    found = await gather(api, api, ["db", "kafka"])
    me = frozenset({IPv4Address("192.0.2.1")})
    applied = await remove_rules(api, found, [IPv4Network("203.0.113.1")], owner=OWNER, me=me)
    assert applied.done
    assert api.cidrs("db") == api.cidrs("kafka") == ["203.0.113.2/32"]
    with pytest.raises(AllowlistError) as caught:
        await remove_rules(api, found, [IPv4Network("203.0.113.9")], owner=OWNER, me=me)
    assert caught.value.code is Code.ALLOW_NO_RULE
    with pytest.raises(AllowlistError) as locked:
        await remove_rules(
            api, found, [IPv4Network("203.0.113.2")], owner=OWNER, me=frozenset({IPv4Address("203.0.113.2")})
        )
    assert locked.value.code is Code.ALLOW_LOCKOUT


async def test_a_rule_that_cannot_be_removed_is_told(autojump_clock: trio.testing.MockClock) -> None:
    api = FakeRules()
    api.put("db", "203.0.113.1/32", "somebody's")
    found = await gather(api, api, ["db"])

    def ignored(call: Call, phase: Phase) -> None:
        if call.verb == "remove" and phase == "after":
            api.put("db", "203.0.113.1/32", "somebody's")  # the same, again and again

    api.trouble = ignored
    applied = await remove_rules(api, found, [IPv4Network("203.0.113.1")], owner=OWNER, me=None, lock_me_out=True)
    assert applied.done  # what is planned is gone; what somebody else adds meanwhile is not ours to remove

    class Stubborn(FakeRules):
        async def delete_ip_rule(self, addon: str, kind: AddonKind, rule_id: str, /) -> None:
            """Say yes, and do nothing."""

    stubborn = Stubborn()
    stubborn.put("db", "203.0.113.1/32", "somebody's")
    found = await gather(stubborn, stubborn, ["db"])
    with pytest.raises(ApplyUnfinished, match="still listed after it was removed"):
        await remove_rules(stubborn, found, [IPv4Network("203.0.113.1")], owner=OWNER, me=None, lock_me_out=True)
