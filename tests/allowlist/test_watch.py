"""Watching: the address changes, changes again, cannot be told, is several; the API fails; processes end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random

import pytest
import trio

from mtlskit.allowlist.apply import apply
from mtlskit.allowlist.events import AddressBelieved, RulesActing, RulesAuthorizing, WatchRecovered, WatchTroubled
from mtlskit.allowlist.gather import Found, gather
from mtlskit.allowlist.my_ip import MyAddresses
from mtlskit.allowlist.owner import Owner
from mtlskit.allowlist.plan import Plan, Wanted, plan_addon
from mtlskit.allowlist.state import prepare_state
from mtlskit.allowlist.turns import lock_path, turn
from mtlskit.allowlist.watch import watch
from mtlskit.errors import AllowlistError, Code, HerokuError
from mtlskit.heroku.values import AddonKind
from mtlskit.store.lock import FileLock
from mtlskit.telemetry import Event
from tests.support.fake_rules import Call, Crashed, FakeRules, Phase, crash, lost, no_trouble, shuffled

OWNER = Owner("office", "0123abcd")
MINE = OWNER.tagged("my address")
A, B, C = "203.0.113.1", "203.0.113.2", "203.0.113.3"
ADDONS = [Found("db", AddonKind.POSTGRES, ()), Found("kafka", AddonKind.KAFKA, ())]
LONG = 4 * 3600.0


@dataclass
class Host:
    """A host and its way out: what the services see it as, and since when."""

    api: FakeRules
    state: Path
    seen: list[tuple[float, str]] = field(default_factory=lambda: [(0.0, A)])
    """From which second on which address, or addresses with a space between, or `?`."""
    events: list[Event] = field(default_factory=list)
    looks: int = 0

    async def look(self) -> MyAddresses:
        self.looks += 1
        now = [text for since, text in self.seen if since <= trio.current_time()][-1]
        if now == "?":
            raise AllowlistError(Code.ALLOW_MY_IP_UNKNOWN, "no service told my address", "wait")
        return MyAddresses(frozenset(IPv4Address(text) for text in now.split()), ())

    async def run(self) -> None:
        await watch(
            self.api,
            ADDONS,
            owner=OWNER,
            look=self.look,
            state=self.state,
            emit=self.events.append,
            rng=Random(1),  # noqa: S311 - jitter, no secret
            fixed=(IPv4Network("198.51.100.9"),),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.run)
            yield
            nursery.cancel_scope.cancel()

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    api = FakeRules()
    for addon in ("db", "kafka"):
        api.put(addon, "192.0.2.9/32", "somebody's")
        api.put(addon, "198.51.100.8/32", OWNER.tagged("the file's"))
        api.put(addon, "198.51.100.9/32", MINE)  # the file names this one too
        api.put(addon, "198.51.100.0/24", MINE)
        api.put(addon, "198.51.100.7/32", Owner("office", "ffff0000").tagged("my address"))
    return Host(api, tmp_path)


OTHERS = ["192.0.2.9/32", "198.51.100.0/24", "198.51.100.7/32", "198.51.100.8/32", "198.51.100.9/32"]


def mine(host: Host, addon: str = "db") -> list[str]:
    """The rules that come and go."""
    there = host.api.cidrs(addon)
    assert [cidr for cidr in there if cidr in OTHERS] == OTHERS
    return [cidr.removesuffix("/32") for cidr in there if cidr not in OTHERS]


def guarded(host: Host) -> None:
    """At no time is there no acting rule of ours, once there was one."""
    had: set[str] = set()

    def look(api: FakeRules) -> None:
        for addon in ("db", "kafka"):
            acting = any(rule.authorized for rule in api.at(addon) if rule.cidr not in OTHERS)
            assert acting or addon not in had
            if acting:
                had.add(addon)

    host.api.on_change = look


async def test_the_address_is_let_in_and_followed(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    guarded(host)
    host.seen += [(1000.0, B)]
    async with host.running():
        await trio.sleep(60)
        assert mine(host) == mine(host, "kafka") == [A]
        await trio.sleep(1100)
        assert mine(host) == [A, B]  # the new one does not act yet
        await trio.sleep(600)
        assert mine(host) == mine(host, "kafka") == [B]
    told = [(event.address, event.before) for event in host.of(AddressBelieved) if isinstance(event, AddressBelieved)]
    assert told == [(A, ""), (B, A)]
    assert len(host.of(RulesActing)) == 4
    assert len(host.of(RulesAuthorizing)) > 4 * 20  # each wait, poll by poll
    assert all(event.sentence() for event in host.events)


async def test_a_second_change_while_the_first_is_waited_for(
    autojump_clock: trio.testing.MockClock, host: Host
) -> None:
    guarded(host)
    host.seen += [(1000.0, B), (1200.0, C)]
    async with host.running():
        await trio.sleep(1400)
        assert mine(host) == [A, B, C]
        await trio.sleep(1000)
        assert mine(host) == mine(host, "kafka") == [C]


async def test_a_change_back_while_the_new_one_is_waited_for(
    autojump_clock: trio.testing.MockClock, host: Host
) -> None:
    guarded(host)
    host.seen += [(1000.0, B), (1200.0, A)]
    async with host.running():
        await trio.sleep(1400)
        assert mine(host) == mine(host, "kafka") == [A]  # at once: it acts already
    assert host.api.verbs("db").count("add") == 2


async def test_it_asks_seldom_when_nothing_changes(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    async with host.running():
        await trio.sleep(3600 * 10)
        looks, lists = host.looks, host.api.verbs("db").count("list")
        await trio.sleep(3600 * 10)
    assert 500 < host.looks - looks < 700  # about one a minute
    assert 50 < host.api.verbs("db").count("list") - lists < 70  # about one in ten minutes


async def test_a_rule_that_somebody_removed_comes_back(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    async with host.running():
        await trio.sleep(1000)
        (rule,) = [rule for rule in host.api.at("db") if rule.cidr == f"{A}/32"]
        host.api.take("db", rule.id)
        await trio.sleep(1000)
        assert mine(host) == [A]


async def test_outages_are_told_once_and_survived(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    guarded(host)

    def outage(call: Call, phase: Phase) -> None:
        if call.addon == "db" and 900 < trio.current_time() < 9000:
            raise HerokuError(Code.API_UNREACHABLE, "db: no connection", "wait")

    host.api.trouble = outage
    host.seen += [(1000.0, B), (2000.0, "?"), (7000.0, C)]
    async with host.running():
        await trio.sleep(6000)
        assert mine(host, "kafka") == [B]  # the other add-on is not held up
        calls = len(host.api.verbs("db"))
        await trio.sleep(LONG)
        assert mine(host) == mine(host, "kafka") == [C]
    assert calls < 60  # it draws back
    troubled = [event.what for event in host.of(WatchTroubled) if isinstance(event, WatchTroubled)]
    recovered = [event.what for event in host.of(WatchRecovered) if isinstance(event, WatchRecovered)]
    assert sorted(troubled) == sorted(recovered) == ["db", "my address"]


async def test_it_never_ends_for_an_error_of_the_api(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    def refused(call: Call, phase: Phase) -> None:
        raise HerokuError(Code.API_TOKEN_REFUSED, "the token is refused", status=401)

    host.api.trouble = refused
    async with host.running():
        await trio.sleep(LONG)
        host.api.trouble = no_trouble
        await trio.sleep(LONG)
        assert mine(host) == mine(host, "kafka") == [A]
    assert len(host.of(WatchTroubled)) == 2


async def test_a_pool_of_addresses_ends_it_and_nothing_is_removed(
    autojump_clock: trio.testing.MockClock, host: Host
) -> None:
    host.seen += [(1000.0, f"{C} {B}")]
    with pytest.raises(AllowlistError, match=f"seen with several addresses: {B}, {C}") as caught:
        await host.run()
    assert caught.value.code is Code.ALLOW_MY_IP_DISAGREE
    assert mine(host) == [A]


async def test_services_that_disagree_for_a_moment_do_not_end_it(
    autojump_clock: trio.testing.MockClock, host: Host
) -> None:
    look = host.look

    async def torn() -> MyAddresses:
        """Some services are asked before the change, some after it."""
        found = await look()
        return MyAddresses(frozenset({IPv4Address(A), IPv4Address(B)}), ()) if host.looks in (5, 6) else found

    host.look = torn  # type: ignore[method-assign]
    host.seen += [(240.0, B)]
    async with host.running():
        await trio.sleep(LONG)
        assert mine(host) == mine(host, "kafka") == [B]


async def test_a_full_addon_is_told_and_nothing_goes(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    host.seen += [(1000.0, B)]
    async with host.running():
        await trio.sleep(900)
        for number in range(60 - len(host.api.at("db"))):
            host.api.put("db", f"192.0.2.{100 + number}/32", "somebody's")
        await trio.sleep(3600)
        assert f"{A}/32" in host.api.cidrs("db")
        assert f"{B}/32" not in host.api.cidrs("db")
        assert mine(host, "kafka") == [B]
    (event,) = host.of(WatchTroubled)
    assert isinstance(event, WatchTroubled)
    assert (event.what, event.code) == ("db", Code.ALLOW_FULL.value)


async def test_a_wider_rule_of_ours_is_enough(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    for addon in ("db", "kafka"):
        host.api.put(addon, "203.0.113.0/24", OWNER.tagged("the office"))
    async with host.running():
        await trio.sleep(LONG)
    assert "add" not in host.api.verbs()


async def test_it_adds_at_once_and_removes_in_its_turn(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    prepare_state(host.state)
    lock = FileLock(lock_path(host.state, OWNER))
    host.seen += [(1000.0, B)]
    async with host.running():
        await trio.sleep(900)
        assert lock.acquire()  # another process applies
        try:
            await trio.sleep(LONG)
            assert mine(host) == [A, B]
        finally:
            lock.release()
        await trio.sleep(60)
        assert mine(host) == mine(host, "kafka") == [B]
    assert not host.of(WatchTroubled)


async def test_two_watchers_of_one_owner_leave_one_rule(autojump_clock: trio.testing.MockClock, host: Host) -> None:
    guarded(host)
    host.seen += [(1000.0, B)]
    async with host.running(), host.running():
        await trio.sleep(LONG)
        assert mine(host) == mine(host, "kafka") == [B]


@pytest.mark.parametrize("seed", range(20))
async def test_applying_the_file_beside_it_harms_neither(
    autojump_clock: trio.testing.MockClock, host: Host, seed: int
) -> None:
    """The same owner; the address changes while the file, with the address of before, is being applied."""
    guarded(host)
    host.api.latency = shuffled(seed)
    host.seen += [(1300.0, B)]
    wanted = [
        Wanted(IPv4Network("198.51.100.8"), "the file's"),
        Wanted(IPv4Network("198.51.100.9"), "the file's"),
        Wanted(IPv4Network("198.51.100.0/24"), "the file's"),
        Wanted(IPv4Network("192.0.2.77"), "new in the file"),
        Wanted(IPv4Network(A), "my address"),
    ]
    async with host.running():
        await trio.sleep(900)
        async with turn(host.state, OWNER, wait=60):
            found = await gather(host.api, host.api, ["db", "kafka"])
            plans = [
                plan_addon(each.addon, each.kind, wanted, each.rules, owner=OWNER, me=frozenset({IPv4Address(A)}))
                for each in found
            ]
            assert (await apply(host.api, Plan(tuple(plans)), wait=1800)).done
        await trio.sleep(1800)
        assert mine(host) == mine(host, "kafka") == ["192.0.2.77", B]
    assert not [event for event in host.events if event.name == "rule_put_back"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [lost, crash])
async def test_after_a_fault_at_any_call_it_ends_as_it_should(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, fault: Callable[[int, Phase], object], when: Phase
) -> None:
    """The address changes, and one call fails or is the last one of the process; a new process follows."""
    number, reached = 0, True
    while reached:
        number += 1
        api = FakeRules(takes=lambda cidr: 30.0)
        for addon in ("db", "kafka"):
            api.put(addon, f"{A}/32", MINE)
            for cidr in OTHERS:
                api.put(addon, cidr, "somebody's")
        host = Host(api, tmp_path, seen=[(0.0, B)])
        guarded(host)
        host.api.trouble = fault(number, when)  # type: ignore[assignment] # a Trouble
        with trio.move_on_after(300):
            try:
                await host.run()
            except* Crashed:
                pass
        reached = len(api.calls) >= number
        api.trouble = no_trouble
        with trio.move_on_after(300):
            await host.run()
        assert mine(host) == mine(host, "kafka") == [B], f"call {number}"
    assert number > 8


async def test_without_an_addon_it_only_waits(autojump_clock: trio.testing.MockClock, tmp_path: Path) -> None:
    host = Host(FakeRules(), tmp_path)
    with trio.move_on_after(LONG) as scope:
        rng = Random(1)  # noqa: S311 - jitter, no secret
        await watch(host.api, [], owner=OWNER, look=host.look, state=tmp_path, rng=rng)
    assert scope.cancelled_caught
