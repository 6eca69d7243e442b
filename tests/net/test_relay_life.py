"""The thread: it starts and stops, sleeps when idle, and one session's trouble is its own."""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import socket
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.net.relay import Ending, HandOver, Outcome, Relay, RelayPolicy
from mtlskit.net.relay.pair import Pair
from mtlskit.net.relay.thread import SWITCH_INTERVAL
from mtlskit.net.relay.watcher import SelectorWatcher, Watcher
from mtlskit.proxy.limits import raise_descriptor_limit
from tests.net.conftest import WatcherFactory, select_watcher, take_down
from tests.support.relay_peers import Session, Sessions, fill, moved, read_exactly, together
from tests.support.turns import Watch

RESETS = RelayPolicy(ragged_end_resets=True)


def _echo(session: Session[socket.socket], text: bytes = b"ping") -> None:
    """Both directions work."""
    session.client.sendall(text)
    assert read_exactly(session.upstream, len(text)) == text
    session.upstream.sendall(text)
    assert read_exactly(session.client, len(text)) == text


def _descriptors() -> int:
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - Path.iterdir would count a descriptor of its own


# Start, stop, cancel.


async def test_hundreds_of_sessions_leave_no_descriptor_behind(
    watcher_factory: WatcherFactory, sessions: Sessions
) -> None:
    before = _descriptors()

    async def one(relay: Relay, index: int) -> None:
        with closing_all(session := sessions.tls() if index % 10 == 0 else sessions.plain()):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(moved, relay, session.handover)
                if index % 3:
                    nursery.cancel_scope.cancel()
                else:
                    session.client.close()
                    session.upstream.close()

    async with Relay(watcher_factory=watcher_factory) as relay:
        for batch in range(10):
            async with trio.open_nursery() as nursery:
                for index in range(30):
                    nursery.start_soon(one, relay, batch + index)
        assert relay.sessions == 0
    assert _descriptors() == before


class closing_all:  # noqa: N801 - used like contextlib.closing
    """Close the test's ends of a session."""

    def __init__(self, session: Session[Any]) -> None:
        self._session = session

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        self._session.client.close()
        self._session.upstream.close()


@pytest.mark.parametrize("policy", [RESETS, RelayPolicy()], ids=["resets", "usual"])
async def test_stopping_ends_the_sessions_that_are_open(
    watcher_factory: WatcherFactory, sessions: Sessions, policy: RelayPolicy
) -> None:
    outcomes: list[Outcome] = []
    open_ones = [sessions.plain(policy) for _ in range(5)]

    async with trio.open_nursery() as nursery, Relay(watcher_factory=watcher_factory) as relay:

        async def run(handover: HandOver) -> None:
            outcomes.append(await moved(relay, handover))

        for session in open_ones:
            nursery.start_soon(run, session.handover)
        await together(*[lambda session=session: _echo(session) for session in open_ones])
        assert relay.sessions == 5
    assert [outcome.ending for outcome in outcomes] == [Ending.ABORTED] * 5
    assert {outcome.bytes_up for outcome in outcomes} == {4}
    for session in open_ones:
        if policy is RESETS:
            with pytest.raises(ConnectionResetError):
                session.client.recv(1)
        else:
            assert session.client.recv(1) == b""


async def test_a_session_for_a_relay_that_has_stopped_is_closed(
    watcher_factory: WatcherFactory, sessions: Sessions
) -> None:
    async with Relay(watcher_factory=watcher_factory) as relay:
        pass
    session = sessions.plain()
    outcome = await moved(relay, session.handover)
    assert outcome.ending is Ending.ABORTED
    assert session.client.recv(1) == session.upstream.recv(1) == b""


async def test_a_session_that_comes_while_the_relay_stops_is_closed(
    watcher_factory: WatcherFactory, sessions: Sessions
) -> None:
    session = sessions.plain()
    async with trio.open_nursery() as nursery, Relay(watcher_factory=watcher_factory) as relay:
        relay._submit(relay._stop)
        nursery.start_soon(moved, relay, session.handover)
        await trio.testing.wait_all_tasks_blocked()
    assert session.client.recv(1) == session.upstream.recv(1) == b""


async def test_cancelling_ends_the_session_and_waits_until_it_is_closed(relay: Relay, sessions: Sessions) -> None:
    session, other = sessions.tls(), sessions.plain()
    async with trio.open_nursery() as outer:
        outer.start_soon(moved, relay, other.handover)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(moved, relay, session.handover)
                await together(lambda: session.upstream.sendall(b"up"), lambda: read_exactly(session.client, 2))
                scope.cancel()
        assert session.handover.client.fileno() == session.handover.upstream.fileno() == -1
        await together(lambda: _echo(other))
        outer.cancel_scope.cancel()


async def test_cancelled_before_it_begins(relay: Relay, sessions: Sessions) -> None:
    session = sessions.plain()
    with trio.CancelScope() as scope:
        scope.cancel()
        await moved(relay, session.handover)
    assert scope.cancelled_caught
    assert session.handover.client.fileno() == -1


async def test_the_switch_interval_is_short_while_a_relay_runs(watcher_factory: WatcherFactory) -> None:
    found = sys.getswitchinterval()
    try:
        for before, during in ((0.005, SWITCH_INTERVAL), (SWITCH_INTERVAL / 5, SWITCH_INTERVAL / 5)):
            sys.setswitchinterval(before)
            async with Relay(watcher_factory=watcher_factory):
                assert sys.getswitchinterval() == pytest.approx(during, abs=2e-6)
            assert sys.getswitchinterval() == pytest.approx(before, abs=2e-6)
    finally:
        sys.setswitchinterval(found)


# Faults.


async def _one_fails_and_the_other_goes_on(relay: Relay, bad: Session[Any], good: Session[socket.socket]) -> Outcome:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(moved, relay, good.handover)
        await together(lambda: _echo(good))
        bad.client.sendall(b"boom")
        with trio.fail_after(30):
            outcome = await moved(relay, bad.handover)
        await together(lambda: _echo(good))
        nursery.cancel_scope.cancel()
    assert bad.handover.client.fileno() == bad.handover.upstream.fileno() == -1
    return outcome


@pytest.mark.parametrize("where", ["_forward", "start"])
async def test_a_fault_in_one_session_ends_that_one_only(
    relay: Relay, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    bad, good = sessions.plain(), sessions.plain()
    real: Callable[..., Any] = getattr(Pair, where)

    def faulty(pair: Pair, *arguments: Any) -> Any:
        if pair.client.sock is bad.handover.client:
            raise RuntimeError("a fault of ours")
        return real(pair, *arguments)

    monkeypatch.setattr(Pair, where, faulty)
    outcome = await _one_fails_and_the_other_goes_on(relay, bad, good)
    assert outcome.ending is Ending.INTERNAL
    assert str(outcome.error) == "a fault of ours"


@pytest.mark.parametrize("method", ["register", "modify"])
async def test_a_watcher_that_takes_no_more(watcher_factory: WatcherFactory, sessions: Sessions, method: str) -> None:
    bad, good = sessions.plain(client_buffers=4096), sessions.plain()

    def make() -> Watcher:
        watcher = watcher_factory()
        real: Callable[[int, int], None] = getattr(watcher, method)

        def full(fd: int, mask: int) -> None:
            if fd == bad.handover.client.fileno():
                watcher.unregister(fd) if method == "modify" else None  # as `selectors` does when it fails
                raise OSError(errno.ENOSPC, "No space left on device")
            real(fd, mask)

        setattr(watcher, method, full)
        return watcher

    async with Relay(watcher_factory=make) as relay:
        if method == "modify":  # make the session hold bytes for its client
            fill(bad.upstream, 50_000)
        outcome = await _one_fails_and_the_other_goes_on(relay, bad, good)
    assert outcome.ending is Ending.INTERNAL
    assert isinstance(outcome.error, OSError)


async def test_a_descriptor_that_is_too_high_for_select(sessions: Sessions) -> None:
    raise_descriptor_limit()  # the usual soft limit is 1024, and a descriptor beyond select() is needed
    bad, good = sessions.plain(), sessions.plain()
    near = bad.handover.client
    high = socket.socket(fileno=fcntl.fcntl(near.fileno(), fcntl.F_DUPFD_CLOEXEC, 1500))
    high.setblocking(False)
    near.close()
    bad = Session(bad.client, bad.upstream, HandOver(high, bad.handover.upstream))
    async with Relay(watcher_factory=select_watcher) as relay:
        outcome = await _one_fails_and_the_other_goes_on(relay, bad, good)
    assert outcome.ending is Ending.INTERNAL
    assert isinstance(outcome.error, ValueError)


def test_the_session_that_select_cannot_watch_ends_and_not_the_newest(sessions: Sessions) -> None:
    relay = Relay(watcher_factory=select_watcher)
    bad, good = sessions.plain(), sessions.plain()
    pairs = [Pair(session.handover, lambda pair: None) for session in (bad, good)]
    for pair in pairs:
        relay._start(pair)
    bad.handover.client.close()  # a descriptor that select() refuses
    relay._turn()
    assert [pair.finished for pair in pairs] == [True, False]
    take_down(relay)


async def test_too_many_sockets_for_select_end_the_newest_session(sessions: Sessions) -> None:
    class Small(selectors.SelectSelector):
        """What select() does on Windows with more than 512 sockets."""

        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if len(self.get_map()) > 3:
                raise ValueError("too many file descriptors in select()")
            return super().select(timeout)

    bad, good = sessions.plain(), sessions.plain()
    async with Relay(watcher_factory=lambda: SelectorWatcher(Small())) as relay:
        outcome = await _one_fails_and_the_other_goes_on(relay, bad, good)
    assert outcome.ending is Ending.INTERNAL


# Turns.


async def test_nothing_turns_while_nothing_happens(relay: Relay, sessions: Sessions, watch: Watch) -> None:
    idle, half, other_half = sessions.tls(), sessions.wire(), sessions.wire()
    gone = sessions.plain(buffers=4096)
    async with trio.open_nursery() as nursery:
        for session in (idle, half, other_half, gone):
            nursery.start_soon(moved, relay, session.handover)
        await trio.testing.wait_all_tasks_blocked()

        def look() -> None:
            half.client.shutdown(socket.SHUT_WR)
            other_half.upstream.close_write(fin=True)
            fill(gone.upstream, 1 << 20)
            gone.upstream.close()  # all of it cannot be read while the client does not take it
            # A selector that spins never sleeps, and `settle` fails. The kernel may have a window update of its own now
            # and then, so one interval without a turn of its own is enough.
            turns = [watch.settle(relay) for _ in range(6)]
            assert 1 in [later - earlier for earlier, later in pairwise(turns)]

        await together(look)
        assert relay.sessions == 4
        nursery.cancel_scope.cancel()


async def test_a_fault_of_the_thread_itself_frees_everybody(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr("threading.excepthook", lambda arguments: seen.append(arguments.exc_type))
    session, late = sessions.plain(), sessions.plain()

    def die() -> None:
        raise ZeroDivisionError

    async with Relay() as relay:
        relay._submit(die)
        with trio.fail_after(30):
            outcome = await moved(relay, session.handover)
            await trio.to_thread.run_sync(relay._thread.join)
            assert (await moved(relay, late.handover)).ending is Ending.ABORTED
    assert outcome.ending is Ending.ABORTED
    assert seen == [ZeroDivisionError]
