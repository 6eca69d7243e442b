"""Established sessions: one task hears of all their ends, gives back what they held, and cuts those that are left."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint
from mtlskit.net.dial import Route
from mtlskit.net.relay import HandOver, Relay
from mtlskit.proxy.cancel import CancelKeys
from mtlskit.proxy.endings import SessionFacts
from mtlskit.proxy.established import Established
from mtlskit.proxy.events import SessionClosed, SessionCrashed, SessionCut
from mtlskit.proxy.seats import Seats
from mtlskit.proxy.stay import Stay
from mtlskit.telemetry import Event
from tests.support.fake_upstream import PATIENCE

ROUTE = Route(Endpoint("db", 5432), "192.0.2.1", 5432)

TakeOver = Callable[[Established, str], Stay]


@pytest.fixture
def seats() -> Seats:
    """Where each session sits."""
    return Seats(10)


@pytest.fixture
def keys() -> CancelKeys:
    """Where each session's key is noted."""
    return CancelKeys()


@pytest.fixture
def far() -> Iterator[dict[str, list[socket.socket]]]:
    """The far ends of each session: its client and its upstream."""
    ends: dict[str, list[socket.socket]] = {}
    yield ends
    for sock in [sock for pair in ends.values() for sock in pair]:
        sock.close()


@pytest.fixture
def take_over(seats: Seats, keys: CancelKeys, far: dict[str, list[socket.socket]]) -> TakeOver:
    """Hand over a session of that name."""

    def begin(established: Established, name: str) -> Stay:
        (client, far_client), (upstream, far_upstream) = socket.socketpair(), socket.socketpair()
        far[name] = [far_client, far_upstream]
        for sock in (client, upstream):
            sock.setblocking(False)
        stay = Stay(keys, lambda: None)
        stay.sit(seats)
        stay.note_key((7, name.encode()), ROUTE)
        facts = SessionFacts("t", name, "db:5432", trio.current_time())
        established.take_over(HandOver(client, upstream), facts, stay)
        return stay

    return begin


async def until(done: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not done():
            await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_session_that_ends_gives_back_what_it_held(
    take_over: TakeOver, seats: Seats, keys: CancelKeys, far: dict[str, list[socket.socket]]
) -> None:
    told: list[Event] = []
    async with Relay() as relay, trio.open_nursery() as nursery:
        established = Established(relay, told.append)
        nursery.start_soon(established.run)
        stays = [take_over(established, name) for name in ("one", "two")]
        assert all(stay.established for stay in stays)
        assert (seats.seated, len(keys)) == (2, 2)
        for sock in far["one"]:
            sock.close()
        await until(lambda: bool(told))
        assert [(type(event), getattr(event, "client", "")) for event in told] == [(SessionClosed, "one")]
        assert (seats.seated, len(keys)) == (1, 1)
        stays[0].end()
        assert seats.seated == 1, "an end counts once"
        nursery.cancel_scope.cancel()
    assert [(type(event), getattr(event, "client", "")) for event in told[1:]] == [(SessionCut, "two")]
    assert (seats.seated, len(keys)) == (0, 0)
    assert far["two"][0].recv(1) == b"", "its sockets were closed before the task ended"


async def test_a_fault_in_the_telling_is_one_session_s(
    take_over: TakeOver, seats: Seats, far: dict[str, list[socket.socket]]
) -> None:
    told: list[Event] = []

    def emit(event: Event) -> None:
        if isinstance(event, SessionClosed) and event.client == "one":
            raise ZeroDivisionError("ours")
        told.append(event)

    async with Relay() as relay, trio.open_nursery() as nursery:
        established = Established(relay, emit)
        nursery.start_soon(established.run)
        for name in ("one", "two"):
            take_over(established, name)
            for sock in far[name]:
                sock.close()
        await until(lambda: len(told) == 2)
        assert seats.seated == 0
        nursery.cancel_scope.cancel()
    crashed = next(event for event in told if isinstance(event, SessionCrashed))
    assert (crashed.client, "ZeroDivisionError: ours" in crashed.traceback) == ("one", True)
    assert any(isinstance(event, SessionClosed) and event.client == "two" for event in told)


async def test_many_that_end_at_once_are_all_told(take_over: TakeOver, far: dict[str, list[socket.socket]]) -> None:
    told: list[Event] = []
    names = [f"s{number}" for number in range(50)]
    async with Relay() as relay, trio.open_nursery() as nursery:
        established = Established(relay, told.append)
        nursery.start_soon(established.run)
        for name in names:
            take_over(established, name)
        for name in names:
            for sock in far[name]:
                sock.close()
        await until(lambda: len(told) == len(names))
        nursery.cancel_scope.cancel()
    assert sorted(event.client for event in told if isinstance(event, SessionClosed)) == sorted(names)


def test_a_stay_holds_one_key_and_one_seat(seats: Seats, keys: CancelKeys) -> None:
    left: list[bool] = []
    stay = Stay(keys, lambda: left.append(True))
    for number in range(3):
        stay.sit(seats)
        stay.note_key((number, b"k"), ROUTE)
    assert (seats.seated, len(keys), keys.route_of(2, b"k")) == (1, 1, ROUTE)
    stay.end()
    stay.end()
    assert (seats.seated, len(keys), left) == (0, 0, [True])
