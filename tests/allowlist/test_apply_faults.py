"""Nothing is lost: the connection, or the process, ends before or after each call; the next run finishes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ipaddress import IPv4Network

import pytest
import trio

from mtlskit.allowlist.applied import ApplyUnfinished
from mtlskit.allowlist.apply import apply
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, Wanted, plan_addon
from mtlskit.heroku.values import AddonKind
from tests.support.fake_rules import Crashed, FakeRules, Phase, Trouble, crash, lost, no_trouble

OWNER = Owner("office", "0123abcd")
OTHER = Owner("office", "ffff0000")
ADDONS = {"db": AddonKind.POSTGRES, "kafka": AddonKind.KAFKA}
WANTED = [Wanted(IPv4Network(f"203.0.113.{number}"), "office") for number in range(3)]
FOREIGN = {("192.0.2.8/32", OTHER.tagged("office")), ("192.0.2.9/32", "somebody's")}
RESULT = sorted({(str(rule.cidr), OWNER.tagged(rule.description)) for rule in WANTED} | FOREIGN)


def stage() -> FakeRules:
    """Two add-ons: one rule stays, two are to go, and two are not ours."""
    api = FakeRules(takes=lambda cidr: 50.0)
    for addon in ADDONS:
        api.put(addon, "203.0.113.0/32", OWNER.tagged("office"))
        api.put(addon, "198.51.100.1/32", OWNER.tagged("old"))
        api.put(addon, "198.51.100.2/32", OWNER.tagged("older"))
        for cidr, description in FOREIGN:
            api.put(addon, cidr, description)
    return api


def watched(api: FakeRules) -> None:
    """After each change: foreign rules are there, and nothing old goes before everything new acts."""

    def look(rules: FakeRules) -> None:
        for addon in ADDONS:
            there = rules.at(addon)
            assert {(rule.cidr, rule.description) for rule in there} >= FOREIGN
            acting = {rule.cidr for rule in there if rule.authorized}
            if not acting >= {"198.51.100.1/32", "198.51.100.2/32"}:
                assert acting >= {str(rule.cidr) for rule in WANTED}

    api.on_change = look


def planned(api: FakeRules) -> Plan:
    return Plan(
        tuple(
            plan_addon(addon, kind, WANTED, api.at(addon), owner=OWNER, me=None, lock_me_out=True)
            for addon, kind in ADDONS.items()
        )
    )


def result(api: FakeRules, addon: str) -> list[tuple[str, str]]:
    return sorted((rule.cidr, rule.description) for rule in api.at(addon))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [lost, crash])
async def test_after_a_fault_at_any_call_the_next_run_finishes(
    autojump_clock: trio.testing.MockClock, fault: Callable[[int, Phase], Trouble], when: Phase
) -> None:
    number = 0
    while True:
        number += 1
        api = stage()
        watched(api)
        api.trouble = fault(number, when)
        with suppress(ApplyUnfinished):
            try:
                await apply(api, planned(api), wait=600)
            except* Crashed:
                pass
        reached = len(api.calls) >= number
        api.trouble = no_trouble
        applied = await apply(api, planned(api), wait=600)
        assert applied.done
        for addon in ADDONS:
            assert result(api, addon) == RESULT, f"call {number}"
        if not reached:
            break
    # list, two adds, list …, two removals, list: for both add-ons.
    assert number > 2 * 8


@pytest.mark.parametrize("when", ["before", "after"])
async def test_without_waiting_too(autojump_clock: trio.testing.MockClock, when: Phase) -> None:
    for number in range(1, 12):
        api = stage()
        watched(api)
        api.trouble = crash(number, when)
        try:
            await apply(api, planned(api), wait=None)
        except* Crashed:
            pass
        api.trouble = no_trouble
        await trio.sleep(60)
        await apply(api, planned(api), wait=None)
        await trio.sleep(60)
        applied = await apply(api, planned(api), wait=None)
        assert applied.done
        for addon in ADDONS:
            assert result(api, addon) == RESULT, f"call {number}"


async def test_a_connection_that_is_lost_again_and_again_loses_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each second call fails, by turns before and after its effect."""
    api = stage()
    watched(api)

    def trouble(call: object, phase: Phase) -> None:
        number = getattr(call, "number", 0)
        lost(number if number % 2 else 0, "after" if number % 4 == 1 else "before")(call, phase)  # type: ignore[arg-type] # a Call

    api.trouble = trouble
    for _ in range(10):
        with suppress(ApplyUnfinished):
            if (await apply(api, planned(api), wait=600)).done:
                break
    for addon in ADDONS:
        assert result(api, addon) == RESULT
