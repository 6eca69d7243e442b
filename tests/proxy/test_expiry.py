"""Sessions whose certificate is about to end: who is asked to end, when, and what the log hears."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import Pair
from mtlskit.proxy.events import SessionCrashed, SessionsBusy, SessionsExpiring, SessionsKept
from mtlskit.proxy.expiry import Expiry, HasIdentity, drain_time, farewell
from mtlskit.telemetry import Event
from mtlskit.wire.postgres.messages import parse_error_fields

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True)
class Leaf:
    not_valid_before_utc: datetime


@dataclass(frozen=True)
class FakeSnapshot:
    """As much of a snapshot as matters here."""

    serial: str
    not_after: datetime
    life: timedelta = 90 * DAY

    @property
    def pair(self) -> Any:
        @dataclass(frozen=True)
        class Checked:
            leaf: Leaf

        return Checked(Leaf(self.not_after - self.life))


def snapshot(serial: str, not_after: datetime, life: timedelta = 90 * DAY) -> IdentitySnapshot:
    return cast(IdentitySnapshot, FakeSnapshot(serial, not_after, life))


@dataclass
class FakeTunnel:
    identity: IdentitySnapshot


@dataclass
class FakeRelay:
    """Notes who was asked to end, and when: gently at first, firmly once."""

    now: Any
    gently: dict[int, datetime] = field(default_factory=dict)
    firmly: dict[int, datetime] = field(default_factory=dict)
    farewells: set[bytes] = field(default_factory=set)

    def end_quietly(
        self, pair: Pair, farewell: bytes, goodbye: bytes, *, rested: float = 0.0, firmly: bool = False
    ) -> None:
        number = cast(int, pair)
        assert goodbye == b"X\0\0\0\4"
        assert rested > 1, "nobody is ended right behind an answer"
        (self.firmly if firmly else self.gently).setdefault(number, self.now())
        self.farewells.add(farewell)


class Bench:
    """An `Expiry` whose clock is that of the test, which moves it; sessions are numbers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.offset = timedelta(0)
        self.opened: list[int] = []
        self.told: list[Event] = []
        self.relay = FakeRelay(self.now)
        self.expiry = Expiry(self.relay, self.told.append, self.now)
        self._began = trio.current_time()
        nursery.start_soon(self.expiry.run)

    def now(self) -> datetime:
        """NOON, and what has passed since, and by how much the clock was set."""
        return NOON + timedelta(seconds=trio.current_time() - self._began) + self.offset

    def open(self, count: int, opened_with: IdentitySnapshot, tunnel: HasIdentity) -> list[int]:
        numbers = list(range(len(self.opened), len(self.opened) + count))
        for number in numbers:
            self.expiry.add(cast(Pair, number), "t", opened_with, tunnel)
        self.opened += numbers
        return numbers

    async def passes(self, time: timedelta) -> None:
        await trio.sleep(time.total_seconds())
        await trio.testing.wait_all_tasks_blocked()

    def events(self) -> list[str]:
        return [type(event).__name__ for event in self.told]


@pytest.fixture
async def bench(nursery: trio.Nursery, autojump_clock: MockClock) -> Bench:
    """Its time passes when nobody has anything to do."""
    return Bench(nursery)


OLD = snapshot("aa", NOON + HOUR)
NEW = snapshot("bb", NOON + 90 * DAY)


@pytest.mark.parametrize(
    ("life", "before"),
    [(timedelta(days=365), 10 * MINUTE), (HOUR, 6 * MINUTE), (MINUTE, timedelta(seconds=6))],
    ids=["a year", "an hour", "a minute"],
)
def test_the_drain_begins_ten_minutes_or_a_tenth_of_the_life_before_the_end(life: timedelta, before: timedelta) -> None:
    assert drain_time(snapshot("aa", NOON, life)) == before


def test_what_the_client_is_told() -> None:
    told = farewell(OLD)
    fields = parse_error_fields(told[5:])
    assert told[:1] == b"E"
    assert (fields.severity, fields.sqlstate) == ("FATAL", "57P01")
    assert "2026-06-01 13:00 UTC" in fields.message
    assert "[MTLS-DOOR-006]" in fields.message
    assert "new certificate" in fields.hint


async def test_sessions_are_asked_one_by_one_well_before_the_end(bench: Bench, autojump_clock: MockClock) -> None:
    bench.open(60, OLD, FakeTunnel(NEW))
    await bench.passes(HOUR - 10 * MINUTE)
    assert not bench.relay.gently
    await bench.passes(10 * MINUTE)
    gently, firmly = sorted(bench.relay.gently.values()), sorted(bench.relay.firmly.values())
    assert (len(set(gently)), len(set(firmly))) == (60, 60), "not all at once"
    assert NOON + HOUR - 10 * MINUTE <= gently[0] < gently[-1] <= NOON + HOUR - 4 * MINUTE
    assert NOON + HOUR - 5 * MINUTE <= firmly[0] < firmly[-1] <= NOON + HOUR - 2 * MINUTE
    assert bench.relay.farewells == {farewell(OLD)}
    assert bench.events()[0] == "SessionsExpiring"
    (expiring,) = [event for event in bench.told if isinstance(event, SessionsExpiring)]
    assert (expiring.serial, expiring.sessions) == ("aa", 60)
    assert expiring.sentence() == (
        "t: 60 sessions opened with the client certificate of serial aa, which ends at 2026-06-01 13:00 UTC,"
        " will be ended while nothing is in flight"
    )


async def test_sessions_with_the_new_certificate_are_left_alone(bench: Bench, autojump_clock: MockClock) -> None:
    tunnel = FakeTunnel(NEW)
    bench.open(3, NEW, tunnel)
    old = bench.open(2, OLD, tunnel)
    await bench.passes(2 * HOUR)
    assert sorted(bench.relay.gently) == sorted(bench.relay.firmly) == old


async def test_without_anything_newer_they_go_on_and_that_is_said_once(bench: Bench, autojump_clock: MockClock) -> None:
    tunnel = FakeTunnel(OLD)
    bench.open(2, OLD, tunnel)
    await bench.passes(HOUR - MINUTE)
    assert not bench.relay.gently
    assert bench.events() == ["SessionsKept"]
    (kept,) = bench.told
    assert isinstance(kept, SessionsKept)
    assert (kept.serial, kept.sessions) == ("aa", 2)
    assert "reload" in kept.sentence()
    tunnel.identity = NEW
    await bench.passes(2 * timedelta(seconds=1))
    assert sorted(bench.relay.gently) == [0, 1]
    assert bench.events() == ["SessionsKept", "SessionsExpiring"]
    await bench.passes(MINUTE)
    assert sorted(bench.relay.firmly) == [0, 1]


async def test_after_the_end_they_are_asked_as_soon_as_there_is_something_newer_but_not_all_at_once(
    bench: Bench, autojump_clock: MockClock
) -> None:
    tunnel = FakeTunnel(OLD)
    bench.open(30, OLD, tunnel)
    await bench.passes(5 * HOUR)
    tunnel.identity = NEW
    await bench.passes(timedelta(seconds=2))
    assert 1 <= len(bench.relay.gently) <= 3
    await bench.passes(MINUTE)
    assert len(bench.relay.gently) == len(bench.relay.firmly) == 30


async def test_an_identity_that_ends_no_later_is_not_newer(bench: Bench, autojump_clock: MockClock) -> None:
    bench.open(1, OLD, FakeTunnel(snapshot("cc", OLD.not_after)))
    await bench.passes(2 * HOUR)
    assert not bench.relay.gently


async def test_going_back_to_an_old_identity_stops_the_asking(bench: Bench, autojump_clock: MockClock) -> None:
    tunnel = FakeTunnel(NEW)
    bench.open(200, OLD, tunnel)
    await bench.passes(HOUR - 7 * MINUTE)
    assert 0 < len(bench.relay.gently) < 200
    tunnel.identity = OLD
    asked = len(bench.relay.gently)
    await bench.passes(HOUR)
    assert len(bench.relay.gently) == asked
    assert not bench.relay.firmly


async def test_who_is_still_busy_at_the_end_is_counted_once_and_goes_on(
    bench: Bench, autojump_clock: MockClock
) -> None:
    first, *others = bench.open(3, OLD, FakeTunnel(NEW))
    await bench.passes(HOUR - MINUTE)
    assert len(bench.relay.firmly) == 3
    bench.expiry.discard(cast(Pair, first), "t", OLD)
    await bench.passes(HOUR)
    assert bench.events() == ["SessionsExpiring", "SessionsBusy"]
    (busy,) = [event for event in bench.told if isinstance(event, SessionsBusy)]
    assert busy.sessions == 2
    assert "still busy" in busy.sentence()
    for number in others:
        bench.expiry.discard(cast(Pair, number), "t", OLD)
    assert not bench.expiry._groups


async def test_sessions_that_end_by_themselves_are_forgotten(bench: Bench, autojump_clock: MockClock) -> None:
    numbers = bench.open(3, OLD, FakeTunnel(NEW))
    for number in numbers:
        bench.expiry.discard(cast(Pair, number), "t", OLD)
    bench.expiry.discard(cast(Pair, 77), "t", OLD)
    assert not bench.expiry._groups
    await bench.passes(2 * HOUR)
    assert (bench.relay.gently, bench.told) == ({}, [])


async def test_a_clock_that_is_set_is_noticed_within_a_minute(bench: Bench, autojump_clock: MockClock) -> None:
    bench.open(1, OLD, FakeTunnel(NEW))
    await bench.passes(MINUTE)
    bench.offset = HOUR - 5 * MINUTE  # or the machine has slept
    await bench.passes(MINUTE + timedelta(seconds=1))
    assert len(bench.relay.gently) == 1


async def test_a_clock_that_is_set_back_stops_the_asking_until_it_is_time_again(
    bench: Bench, autojump_clock: MockClock
) -> None:
    bench.open(200, OLD, FakeTunnel(NEW))
    await bench.passes(HOUR - 7 * MINUTE)
    asked = len(bench.relay.gently)
    bench.offset = -HOUR
    await bench.passes(HOUR - 5 * MINUTE)
    assert 0 < len(bench.relay.gently) == asked
    await bench.passes(HOUR)
    assert len(bench.relay.gently) == len(bench.relay.firmly) == 200


async def test_one_that_joins_late_wakes_the_sleeper(bench: Bench, autojump_clock: MockClock) -> None:
    await bench.passes(timedelta(seconds=1))
    bench.open(1, snapshot("dd", NOON + timedelta(seconds=30)), FakeTunnel(NEW))
    await bench.passes(timedelta(seconds=1))
    assert len(bench.relay.gently) == 1


async def test_a_fault_costs_one_group_its_drain_and_nobody_else(bench: Bench, autojump_clock: MockClock) -> None:
    class Bad:
        @property
        def identity(self) -> IdentitySnapshot:
            raise ZeroDivisionError("ours")

    bench.open(1, snapshot("ee", NOON + 30 * MINUTE), Bad())
    bench.open(1, OLD, FakeTunnel(NEW))
    await bench.passes(HOUR)
    assert list(bench.relay.firmly) == [1]
    (crashed,) = [event for event in bench.told if isinstance(event, SessionCrashed)]
    assert "ZeroDivisionError" in crashed.traceback
    bench.expiry.discard(cast(Pair, 0), "t", snapshot("ee", NOON + 30 * MINUTE))
