"""The pool over connections whose other end the test holds, on a clock that jumps whenever nothing else can happen.

A `run` that turned in circles would never let that clock move, and no socket or place in the budget may stay behind:
every test ends with a look at both, and at whether the counts add up.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from mtlskit.errors import UpstreamUnreachable
from mtlskit.net.dial import Upstream
from mtlskit.net.warm import Outage, WarmBudget, WarmPool
from mtlskit.net.warm import demand as demand_module
from mtlskit.net.warm import pool as pool_module
from tests.support.warm_peers import DEATHS, Dials, Peer, Peers

OLDEST = 45.0
"""Seconds within which a connection is replaced; PostgreSQL would end it after 60."""

LONG = 600.0
"""Seconds for which a burst is remembered."""


@pytest.fixture(scope="module")
def made_peers(tmp_path_factory: pytest.TempPathFactory) -> Peers:
    return Peers(tmp_path_factory.mktemp("papers"))


@pytest.fixture
async def peers(made_peers: Peers) -> AsyncIterator[Peers]:
    yield made_peers
    made_peers.close()


@pytest.fixture
def dials(peers: Peers) -> Dials:
    return Dials(peers)


@pytest.fixture
def budget() -> WarmBudget:
    return WarmBudget(100)


@asynccontextmanager
async def running(
    dials: Callable[[], object], limit: int, budget: WarmBudget, tell: Callable[[Outage], None] | None = None
) -> AsyncIterator[WarmPool]:
    """A pool that runs, and has had the time to make what it wants."""
    pool = WarmPool(dials, limit, budget, tell or (lambda _: None))  # type: ignore[arg-type]  # stand-ins for a dial
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        await trio.sleep(1)
        yield pool
        pool.close()
    assert budget.used == len(pool) == 0
    counts = pool.counts
    assert counts.made == counts.hits + counts.aged + counts.dead + counts.dropped


def taken(pool: WarmPool) -> Upstream:
    upstream = pool.take()
    assert upstream is not None
    return upstream


async def burst(pool: WarmPool, size: int) -> list[Upstream]:
    """So many clients at once, and the time to make connections for the next ones. Those that found one ready."""
    found = [upstream for _ in range(size) if (upstream := pool.take()) is not None]
    await trio.sleep(2)
    return found


# How many.


async def test_one_is_ready_before_the_first_client(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 5, budget) as pool:
        assert (len(pool), budget.used) == (1, 1)
        upstream = taken(pool)
        assert upstream is dials.peers[0].upstream
        assert (len(pool), budget.used) == (0, 0)
        await trio.sleep(1)
        assert (len(pool), budget.used) == (1, 1)
        assert (pool.counts.made, pool.counts.hits, pool.counts.misses) == (2, 1, 0)
    assert not dials.peers[0].closed  # it is the client's now
    assert dials.peers[1].parted


async def test_a_burst_is_met_by_as_many_the_next_time(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 10, budget) as pool:
        assert len(await burst(pool, 6)) == 1
        assert len(pool) == 6
        assert len(await burst(pool, 6)) == 6
        assert (pool.counts.hits, pool.counts.misses) == (7, 5)


async def test_the_limit_is_kept(autojump_clock: MockClock, dials: Dials, budget: WarmBudget) -> None:
    async with running(dials, 3, budget) as pool:
        await burst(pool, 20)
        assert len(pool) == 3


async def test_a_few_are_dialled_at_once_and_none_at_the_same_moment(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 20, budget) as pool:
        await burst(pool, 20)
        assert len(pool) == 20
        assert dials.most_under_way <= 4
        assert len(set(dials.begun)) == len(dials.begun)


async def test_after_a_long_quiet_one_is_left(autojump_clock: MockClock, dials: Dials, budget: WarmBudget) -> None:
    async with running(dials, 8, budget) as pool:
        await burst(pool, 8)
        await trio.sleep(LONG - 10)
        assert len(pool) + pool._dialling == 8  # one may just have grown too old
        await trio.sleep(10 + OLDEST)
        assert len(pool) + pool._dialling == 1
        assert len(dials.alive) == len(pool) + 1  # and the one that the first client got


# How long.


@pytest.mark.parametrize("seconds", [0.1, 14.0], ids=["quick dials", "slow dials"])
async def test_none_grows_old(autojump_clock: MockClock, dials: Dials, budget: WarmBudget, seconds: float) -> None:
    """The server counts from the beginning of the dial, so a slow one leaves less time to wait."""
    dials.seconds = seconds
    async with running(dials, 5, budget) as pool:
        await burst(pool, 5)
        theirs = {peer for peer in dials.peers if peer.upstream not in [w.upstream for w in pool._waiting]}
        await trio.sleep(60)
        for _ in range(300):
            await trio.sleep(1)
            now = trio.current_time()
            assert all(now - peer.began <= OLDEST + 1 for peer in dials.alive if peer not in theirs)
        assert pool.counts.aged > 0
        assert pool.counts.dead == pool.counts.failed == 0
        assert all(peer.parted for peer in dials.peers if peer.closed)


async def test_what_is_made_together_does_not_end_together(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 12, budget) as pool:
        await burst(pool, 12)
        ends = sorted(waiting.until for waiting in pool._waiting)
        assert len(set(ends)) == 12
        assert ends[-1] - ends[0] > 1.0


async def test_none_is_dropped_in_place_of_one_that_was_too_old(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is too many just when the younger of two grows too old: the other one stays."""

    class Scripted:
        ages: deque[float]

        def uniform(self, low: float, high: float) -> float:
            return self.ages.popleft() if high > 1 else 0.0

    scripted = Scripted()
    scripted.ages = deque([40.0, 45.0, 36.0])
    monkeypatch.setattr(pool_module, "random", scripted)
    monkeypatch.setattr(demand_module, "_MEMORY", 30.0)
    async with running(dials, 2, budget) as pool:
        await burst(pool, 2)
        stays, goes = dials.peers[1:]
        await trio.sleep(36)
        assert (stays.closed, goes.parted) == (False, True)
        assert len(dials.peers) == 3


# Whether it is still alive.


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=["1.3", "1.2"])
async def test_what_died_is_not_given_away(
    autojump_clock: MockClock,
    peers: Peers,
    dials: Dials,
    budget: WarmBudget,
    death: Callable[[Peer], None],
    version: ssl.TLSVersion,
) -> None:
    peers.limit_to(version)
    async with running(dials, 3, budget) as pool:
        await burst(pool, 3)
        *dying, alive = list(pool._waiting)[::-1]
        for waiting in dying:
            death(next(peer for peer in dials.peers if peer.upstream is waiting.upstream))
        assert taken(pool) is alive.upstream
        assert pool.counts.dead == len(dying) == 2
        assert all(waiting.upstream.tls.socket.fileno() == -1 for waiting in dying)
        assert pool.take() is None


async def test_those_beside_one_that_proved_dead_are_dropped_and_newer_ones_stay(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 3, budget) as pool:
        await burst(pool, 3)
        beside = [waiting.upstream for waiting in pool._waiting]
        taken_at = trio.current_time()
        assert taken(pool) is beside.pop()
        await trio.sleep(1)
        newer = pool._waiting[-1].upstream
        assert newer not in beside
        pool.proved_dead(taken_at)
        assert [waiting.upstream for waiting in pool._waiting] == [newer]
        assert (budget.used, pool.counts.replayed) == (1, 1)
        await trio.sleep(1)
        assert len(pool) == 3


# A new identity.


async def test_a_renewal_drops_what_waits_and_what_is_being_made(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 2, budget) as pool:
        await burst(pool, 2)
        dials.seconds = 10.0
        taken(pool)
        await trio.sleep(5)  # another is half made
        [waited] = pool._waiting
        pool.renew()
        assert len(pool) == 0
        assert next(peer for peer in dials.peers if peer.upstream is waited.upstream).parted
        before = len(dials.peers)
        await trio.sleep(6)
        assert len(dials.peers) == before + 1
        assert dials.peers[-1].parted  # made with the old identity
        await trio.sleep(20)
        assert len(pool) == 2
        assert {peer.upstream for peer in dials.peers[-2:]} == {waiting.upstream for waiting in pool._waiting}


async def test_a_renewal_ends_the_pause(autojump_clock: MockClock, dials: Dials, budget: WarmBudget) -> None:
    """The old certificate may have been what the upstream refused."""
    dials.down = True
    async with running(dials, 1, budget) as pool:
        await trio.sleep(300)
        assert pool._pause == 60.0
        dials.down = False
        pool.renew()
        await trio.sleep(1)
        assert len(pool) == 1


async def test_what_fails_with_the_old_identity_is_no_reason_to_pause(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 1, budget) as pool:
        dials.down, dials.seconds = True, 10.0
        taken(pool)
        await trio.sleep(5)
        pool.renew()
        dials.seconds = 0.1
        await trio.sleep(4.9)
        dials.begun.clear()
        await trio.sleep(0.2)  # the old one has failed, and one was begun at once
        assert len(dials.begun) == 1


# The upstream is down.


async def test_after_a_failure_none_waits_and_the_pauses_grow(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 4, budget) as pool:
        await burst(pool, 4)
        waiting = [waiting.upstream for waiting in pool._waiting]
        dials.down = True
        taken(pool)
        await trio.sleep(0.5)
        assert len(pool) == 0
        assert all(upstream.tls.socket.fileno() == -1 for upstream in waiting[:-1])
        dials.begun.clear()
        await trio.sleep(3600)
        # Four at once, 45 s or more apart but for the first few.
        assert 3600 / 80 <= len(dials.begun) <= 4 * (3600 / 45 + 6)
        assert budget.used == 0


async def test_it_comes_back_within_two_minutes_of_the_upstream(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    dials.down = True
    async with running(dials, 1, budget) as pool:
        await trio.sleep(3600)
        dials.down = False
        await trio.sleep(120)
        assert len(pool) == 1
        dials.down = True
        taken(pool)
        await trio.sleep(1)
        assert pool._pause == 1.0  # and the next pause is short again


async def test_clients_who_come_during_a_pause_cause_no_dials(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    dials.down = True
    async with running(dials, 4, budget) as pool:
        await trio.sleep(300)
        dials.seconds = 10.0
        await trio.sleep_until(pool._resume_at + 12)  # four have failed together, and a pause of 45 s or more began
        dials.seconds = 0.1
        dials.begun.clear()
        for _ in range(50):
            assert pool.take() is None
            await trio.lowlevel.checkpoint()
        await trio.sleep(1)
        assert dials.begun == []


async def test_an_outage_is_told_when_it_begins_and_when_it_ends(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    told: list[Outage] = []
    async with running(dials, 4, budget, told.append) as pool:
        await burst(pool, 4)
        assert told == []
        for outages in (1, 2):
            dials.down = True
            taken(pool)
            await trio.sleep(600)
            assert len(told) == 2 * outages - 1
            assert pool.counts.failed > outages
            assert isinstance(told[-1], UpstreamUnreachable)
            dials.down = False
            await trio.sleep(600)
            assert len(told) == 2 * outages
            assert told[-1] is None


async def test_what_fails_with_the_old_identity_or_after_the_end_is_not_told(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    told: list[Outage] = []
    async with running(dials, 1, budget, told.append) as pool:
        dials.down, dials.seconds = True, 10.0
        taken(pool)
        await trio.sleep(5)
        pool.renew()
        await trio.sleep(6)  # the one before the renewal has failed, the one after it has not yet
        assert pool.counts.failed == 1
    assert told == []


# A budget over all pools.


async def test_the_budget_bounds_the_sum_and_a_free_place_is_told(autojump_clock: MockClock, dials: Dials) -> None:
    budget = WarmBudget(3)
    async with running(dials, 3, budget) as first:
        await burst(first, 3)
        assert len(first) == 3
        async with running(dials, 3, budget) as second:
            assert len(second) == 0
            first.close()
            await trio.sleep(1)
            assert len(second) == 1


async def test_no_budget_no_connections(autojump_clock: MockClock, dials: Dials) -> None:
    async with running(dials, 3, WarmBudget(0)) as pool:
        await burst(pool, 3)
        assert dials.begun == []


# The end.


@pytest.fixture(params=["closed", "cancelled"])
def ended(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("after", [0.0, 0.02, 5.0, 11.0], ids=["at once", "before a dial", "dialling", "waiting"])
async def test_nothing_is_left_whenever_it_ends(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget, ended: str, after: float
) -> None:
    dials.seconds = 10.0
    pool = WarmPool(dials, 3, budget)
    pool.take()
    pool.take()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pool.run)
        if after:
            await trio.sleep(after)
        if ended == "closed":
            pool.close()
        else:
            nursery.cancel_scope.cancel()
    assert (len(pool), budget.used, dials.under_way) == (0, 0, 0)
    assert len(dials.peers) == (2 if after == 11.0 else 0)
    assert all(peer.parted for peer in dials.peers)
    assert pool.take() is None


async def test_closing_twice_and_taking_after_it_are_harmless(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    async with running(dials, 3, budget) as pool:
        pool.close()
        assert pool.take() is None
        await trio.sleep(100)
        assert len(dials.peers) == 1


async def test_a_fault_of_ours_ends_it_and_leaves_nothing(
    autojump_clock: MockClock, dials: Dials, budget: WarmBudget
) -> None:
    class Fault(Exception):
        pass

    made = iter([dials, dials])

    async def dial() -> Upstream:
        try:
            return await next(made)()
        except StopIteration:
            raise Fault from None

    pool = WarmPool(dial, 3, budget)
    for _ in range(3):
        pool.take()
    with pytest.RaisesGroup(Fault):
        await pool.run()
    assert (len(pool), budget.used) == (0, 0)
    assert all(peer.closed for peer in dials.peers)
