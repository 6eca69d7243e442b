"""The real client against the sandbox's API: what the figures promise, and connections lost at any call.

Time is trio's test clock, for the API as well: rules take their ten minutes, and nobody waits for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random

import pytest
import trio

from mtlskit.allowlist.applied import ApplyUnfinished
from mtlskit.allowlist.apply import apply
from mtlskit.allowlist.gather import Found, gather
from mtlskit.allowlist.my_ip import my_addresses
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, Wanted, plan_addon
from mtlskit.allowlist.watch import watch
from mtlskit.errors import AllowlistError, Code
from mtlskit.heroku.client import Heroku, Patience, Settings, open_heroku
from mtlskit.heroku.token import Token
from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.faults import make_fault
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.telemetry import Event
from tests.support.sandbox_api import ADDON, KAFKA, TOKEN, RunningApi, running_api

OWNER = Owner("office", "0123abcd")
WANTED = [Wanted(IPv4Network(f"203.0.113.{number}"), "office") for number in range(3)]
OLD = [Wanted(IPv4Network("198.51.100.1"), "gone soon"), Wanted(IPv4Network("203.0.113.0"), "stays")]
CALLS = "/ip-rules"


@pytest.fixture
def clock() -> trio.testing.MockClock:
    """Jumps when nothing has happened for a moment: answers of the server need one."""
    return trio.testing.MockClock(autojump_threshold=0.002)


@asynccontextmanager
async def sandbox(folder: Path, **options: object) -> AsyncIterator[tuple[RunningApi, Heroku]]:
    terms = ApiOptions(**{"speed_up": 1, **options})  # type: ignore[arg-type] # as the tests give them
    async with running_api(folder, options=terms) as api:
        began = api.clock.now - timedelta(seconds=trio.current_time())
        api.state.clock = lambda: began + timedelta(seconds=trio.current_time())
        settings = Settings(api.url, api.url, Token(TOKEN, "HEROKU_API_KEY"))
        async with open_heroku(settings, environ={}, patience=Patience(tries=2, total=30)) as heroku:
            yield api, heroku


async def look(heroku: Heroku) -> tuple[Found, ...]:
    return await gather(heroku.data, heroku.platform, [ADDON, KAFKA])


def planned(found: tuple[Found, ...], wanted: list[Wanted]) -> Plan:
    return Plan(
        tuple(
            plan_addon(each.addon, each.kind, wanted, each.rules, owner=OWNER, me=None, lock_me_out=True)
            for each in found
        )
    )


def rules(api: RunningApi, addon: str) -> list[tuple[str, str]]:
    return sorted((rule.cidr, rule.description) for rule in api.state.addon(addon).rules)


def expected(before: list[tuple[str, str]], *, first: str = "office") -> list[tuple[str, str]]:
    described = zip(WANTED, (first, "office", "office"), strict=True)
    return sorted([*before, *((str(rule.cidr), OWNER.tagged(description)) for rule, description in described)])


async def test_sixty_rules_of_twenty_addons_are_planned_in_a_few_round_trips(
    clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    async with sandbox(tmp_path, addons=20, latency=0.1) as (api, heroku):
        names = [each.name for each in api.state.world.addons if each.kind is AddonKind.POSTGRES and each.endpoint]
        assert len(names) == 20
        began = trio.current_time()
        found = await gather(heroku.data, heroku.platform, names)
        plan = planned(found, [Wanted(IPv4Network(f"203.0.113.{number}"), "office") for number in range(58)])
        assert trio.current_time() - began < 2
        assert [len(each.add) for each in plan.addons] == [58] * 20


async def test_rules_of_both_kinds_are_applied(clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (api, heroku):
        before = {addon: rules(api, addon) for addon in (ADDON, KAFKA)}
        applied = await apply(heroku.data, planned(await look(heroku), WANTED), wait=1800)
        assert applied.done
        assert applied.seconds < 600 + 30
        for addon in (ADDON, KAFKA):
            assert rules(api, addon) == expected(before[addon])
        again = planned(await look(heroku), WANTED)
        assert not again.has_changes
        gone = await apply(heroku.data, planned(await look(heroku), []), wait=1800)
        assert gone.done
        # The ranges were there a moment ago: Heroku fails to make them again for a while, which is waited out.
        assert (await apply(heroku.data, planned(await look(heroku), WANTED), wait=1800)).done


@pytest.mark.parametrize("fault", ["lose-before", "lose-after"])
async def test_a_connection_lost_at_any_call_is_not_noticed(
    clock: trio.testing.MockClock, tmp_path: Path, fault: str
) -> None:
    async with sandbox(tmp_path, speed_up=20) as (api, heroku):
        before = {addon: rules(api, addon) for addon in (ADDON, KAFKA)}
        await apply(heroku.data, planned(await look(heroku), OLD), wait=1800)
        first = {each.id: each for each in api.state.world.addons}
        for number in range(1, 11):
            for addon in first.values():
                api.state.change_addon(addon)  # as it was
            api.state.faults.add(make_fault(fault, match=CALLS, skip=number - 1, times=1))
            applied = await apply(heroku.data, planned(await look(heroku), WANTED), wait=1800)
            assert applied.done
            assert api.state.faults.acted(fault)
            api.state.faults.clear()
            for name in (ADDON, KAFKA):
                assert rules(api, name) == expected(before[name], first="stays"), f"call {number}"


@pytest.mark.parametrize("fault", ["lose-before", "lose-after", "500-after", "html"])
async def test_after_an_outage_from_any_call_on_the_next_run_finishes(
    clock: trio.testing.MockClock, tmp_path: Path, fault: str
) -> None:
    async with sandbox(tmp_path, speed_up=20) as (api, heroku):
        before = {addon: rules(api, addon) for addon in (ADDON, KAFKA)}
        await apply(heroku.data, planned(await look(heroku), OLD), wait=1800)
        first = {each.id: each for each in api.state.world.addons}
        for number in range(1, 11):
            for addon in first.values():
                api.state.change_addon(addon)
            plan = planned(await look(heroku), WANTED)
            api.state.faults.add(make_fault(fault, match=CALLS, skip=number - 1))
            with pytest.raises(ApplyUnfinished):
                await apply(heroku.data, plan, wait=60)
            api.state.faults.clear()
            assert (await apply(heroku.data, planned(await look(heroku), WANTED), wait=1800)).done
            for name in (ADDON, KAFKA):
                assert rules(api, name) == expected(before[name], first="stays"), f"call {number}"


@pytest.mark.parametrize("duplicates", [False, True])
async def test_two_hosts_that_apply_at_once_lose_no_rule(
    clock: trio.testing.MockClock, tmp_path: Path, duplicates: bool
) -> None:
    """Without turns, which only processes of one host can take; whether Heroku takes a range twice is not known."""
    async with sandbox(tmp_path, latency=0.1) as (api, heroku):
        before = {addon: rules(api, addon) for addon in (ADDON, KAFKA)}
        await apply(heroku.data, planned(await look(heroku), OLD), wait=1800)
        if duplicates:
            api.state.faults.add(make_fault("duplicates"))

        async def host() -> None:
            assert (await apply(heroku.data, planned(await look(heroku), WANTED), wait=1800)).done

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(host)
        for name in (ADDON, KAFKA):
            assert rules(api, name) == expected(before[name], first="stays")


async def test_my_address_moves_and_the_watcher_follows(clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (api, heroku):
        echoes = [f"{api.url}/echo/{service}" for service in "abc"]
        before = rules(api, KAFKA)
        events: list[Event] = []

        async def seen() -> object:
            return await my_addresses(echoes, trusted_only=True)

        async def run() -> None:
            rng = Random(1)  # noqa: S311 - jitter, no secret
            kept = [Found(KAFKA, AddonKind.KAFKA, ())]
            with pytest.raises(AllowlistError) as caught:
                await watch(
                    heroku.data,
                    kept,
                    owner=OWNER,
                    look=seen,  # type: ignore[arg-type] # what my_addresses returns
                    state=tmp_path,
                    emit=events.append,
                    rng=rng,
                )
            assert caught.value.code is Code.ALLOW_MY_IP_DISAGREE
            assert "127.0.0.99" in caught.value.sentence

        def mine(address: str) -> tuple[str, str]:
            return f"{address}/32", OWNER.tagged("my address")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            api.state.move("127.0.0.1", "203.0.113.7")
            await trio.sleep(900)
            assert rules(api, KAFKA) == sorted([*before, mine("203.0.113.7")])
            api.state.move("127.0.0.1", "203.0.113.8")
            await trio.sleep(300)
            assert rules(api, KAFKA) == sorted([*before, mine("203.0.113.7"), mine("203.0.113.8")])
            await trio.sleep(900)
            assert rules(api, KAFKA) == sorted([*before, mine("203.0.113.8")])
            api.state.faults.add(make_fault("echo-disagree"))
        assert rules(api, KAFKA) == sorted([*before, mine("203.0.113.8")])


async def test_the_sandboxes_echoes_are_believed(clock: trio.testing.MockClock, tmp_path: Path) -> None:
    async with sandbox(tmp_path) as (api, _):
        echoes = [f"{api.url}/echo/{service}" for service in "abc"]
        found = await my_addresses(echoes, source="127.0.0.5", trusted_only=True)
        assert found.agreed == IPv4Address("127.0.0.5")
        assert [answer.error for answer in found.answers] == ["", "", ""]
