"""Sessions that are looked into, and ended where nothing is in flight."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import Any

import pytest

from mtlskit.net.relay import Ending, HandOver, Relay, RelayPolicy
from mtlskit.net.relay.observed import ObservedPair, pair_for
from mtlskit.net.relay.pair import Buffers, Pair
from tests.support.relay_peers import (
    DEADLINE,
    Session,
    Sessions,
    fill,
    moved,
    noise,
    read_all,
    read_exactly,
    relayed,
    reset,
)
from tests.support.turns import Watch

FINAL = RelayPolicy(upstream_end_is_final=True)
SHORT = RelayPolicy(linger=0.05, upstream_end_is_final=True)
FAREWELL, GOODBYE = b"farewell", b"goodbye"


class FullStop:
    """An observer for whom a session is quiet when the last byte that went either way was a full stop."""

    def __init__(self, *, quiet: bool = True) -> None:
        self.quiet = quiet
        self.up = b""
        self.down = b""

    def from_client(self, data: memoryview) -> None:
        self.up += data
        self.quiet = bytes(data[-1:]) == b"."

    def from_upstream(self, data: memoryview) -> None:
        self.down += data
        self.quiet = bytes(data[-1:]) == b"."


class Broken(FullStop):
    """An observer with a fault."""

    def from_client(self, data: memoryview) -> None:
        raise ZeroDivisionError("ours")


def observed(session: Session[Any], observer: FullStop | None = None) -> Session[Any]:
    """The same session with an observer, which is quiet at the beginning."""
    return replace(session, handover=replace(session.handover, observer=observer or FullStop()))


def begin(handover: HandOver) -> ObservedPair:
    """A session without a thread: the test plays the selector."""
    pair = pair_for(handover, lambda pair: None)
    assert isinstance(pair, ObservedPair)
    return pair


class Ender(Relay):
    """A relay whose sessions are asked to end as soon as they begin."""

    def begin(self, *args: Any) -> Pair:
        pair = super().begin(*args)
        self.end_quietly(pair, FAREWELL, GOODBYE, firmly=True)
        return pair


@pytest.fixture
def ender(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """`relay`, for sessions that are asked to end at their beginning."""
    monkeypatch.setattr(relay, "__class__", Ender)
    return relay


# With the thread.


async def test_a_quiet_session_ends_at_once_and_in_order(ender: Relay, sessions: Sessions) -> None:
    session = observed(sessions.wire(FINAL))

    def client() -> bytes:
        heard = read_all(session.client)
        session.client.close()
        return heard

    outcome, heard, said = await relayed(ender, session, client, session.upstream.read_to_end)
    assert (outcome.ending, outcome.error) == (Ending.EXPIRED, None)
    assert (outcome.bytes_up, outcome.bytes_down) == (0, 0), "our own words are not counted"
    assert (heard, said) == (FAREWELL, GOODBYE)


async def test_an_upstream_without_tls_gets_its_goodbye_too(ender: Relay, sessions: Sessions) -> None:
    session = observed(sessions.plain(FINAL))

    def client() -> bytes:
        heard = read_all(session.client)
        session.client.close()
        return heard

    outcome, heard, said = await relayed(ender, session, client, lambda: read_all(session.upstream))
    assert (outcome.ending, heard, said) == (Ending.EXPIRED, FAREWELL, GOODBYE)


async def test_a_busy_session_goes_on_until_it_is_quiet_and_asked_again(
    ender: Relay, sessions: Sessions, watch: Watch
) -> None:
    observer = FullStop(quiet=False)
    session = observed(sessions.wire(FINAL), observer)
    answers = noise(20_000).replace(b".", b"!") + b"."

    def talk() -> None:
        for _ in range(3):
            session.client.sendall(b"question")
            assert session.upstream.read(8) == b"question"
            session.upstream.send(b"answer")
            assert read_exactly(session.client, 6) == b"answer"
        watch.settle(ender)
        assert ender.sessions == 1
        session.client.sendall(b"the last one")
        assert session.upstream.read(12) == b"the last one"

    def all_of_it() -> tuple[bytes, bytes]:
        with session.client:
            talk()
            session.upstream.send(answers)
            assert read_exactly(session.client, len(answers)) == answers
            session.client.sendall(b"and now?")
            return session.upstream.read_to_end(), read_all(session.client)

    outcome, (said, heard) = await relayed(ender, session, all_of_it)
    assert outcome.ending is Ending.EXPIRED
    assert (said, heard) == (GOODBYE, FAREWELL)
    assert (observer.up, observer.down) == (b"question" * 3 + b"the last one", b"answer" * 3 + answers)
    assert (outcome.bytes_up, outcome.bytes_down) == (len(observer.up), len(observer.down))


async def test_what_a_client_sends_too_late_does_not_cost_it_the_farewell(
    ender: Relay, sessions: Sessions, watch: Watch
) -> None:
    session = observed(sessions.plain(FINAL))

    def both() -> tuple[bytes, bytes]:
        said = read_all(session.upstream)
        session.client.sendall(b"one more question")  # it has not read the farewell
        watch.settle(ender)
        heard = read_all(session.client)
        session.client.close()
        return said, heard

    outcome, (said, heard) = await relayed(ender, session, both)
    assert (outcome.ending, said, heard) == (Ending.EXPIRED, GOODBYE, FAREWELL)


async def test_a_session_without_an_observer_goes_on(ender: Relay, sessions: Sessions, watch: Watch) -> None:
    session = sessions.plain(FINAL)

    def both() -> None:
        watch.settle(ender)
        session.client.sendall(b"still there")
        assert read_exactly(session.upstream, 11) == b"still there"
        session.client.close()
        session.upstream.close()

    outcome, _ = await relayed(ender, session, both)
    assert outcome.ending in (Ending.CLIENT_CLOSED, Ending.UPSTREAM_CLOSED)  # whichever the relay hears of first
    assert outcome.bytes_up == 11


async def test_asking_after_the_end_does_nothing(relay: Relay, sessions: Sessions, watch: Watch) -> None:
    session = observed(sessions.plain(FINAL))
    finished = threading.Event()
    pair = relay.begin(session.handover, lambda pair: finished.set())
    session.client.close()
    session.upstream.close()
    assert finished.wait(DEADLINE)
    before = pair.outcome
    relay.end_quietly(pair, FAREWELL, GOODBYE)
    watch.settle(relay)
    assert pair.outcome == before


async def test_a_fault_of_the_observer_ends_its_session_and_no_other(relay: Relay, sessions: Sessions) -> None:
    session = observed(sessions.plain(), Broken())
    session.client.sendall(b"x")
    outcome = await moved(relay, session.handover)
    assert outcome.ending is Ending.INTERNAL
    assert isinstance(outcome.error, ZeroDivisionError)


async def test_a_client_that_does_not_take_the_farewell_is_not_waited_for_for_ever(
    ender: Relay, sessions: Sessions
) -> None:
    session = observed(sessions.plain(SHORT))
    outcome, said = await relayed(ender, session, lambda: read_all(session.upstream))
    assert (outcome.ending, said) == (Ending.EXPIRED, GOODBYE)


# Without the thread, moment by moment.


@pytest.fixture
def buffers() -> Buffers:
    return Buffers()


def test_what_the_client_has_sent_and_nobody_has_read_is_seen_first(sessions: Sessions, buffers: Buffers) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    session.client.sendall(b"question")
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is None
    pair.on_readable(pair.client, buffers)
    assert read_exactly(session.upstream, 8) == b"question"
    session.upstream.sendall(b"answer.")
    pair.on_readable(pair.upstream, buffers)
    assert pair.ending is None, "it was not remembered"
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is Ending.EXPIRED
    assert read_all(session.client) == b"answer." + FAREWELL
    assert read_all(session.upstream) == GOODBYE
    pair.close()


def test_what_the_upstream_has_sent_is_seen_first(sessions: Sessions, buffers: Buffers) -> None:
    session = observed(sessions.wire(FINAL))
    pair = begin(session.handover)
    session.upstream.send(b"a notice.")
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is None
    pair.on_readable(pair.upstream, buffers)
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is Ending.EXPIRED
    assert read_all(session.client) == b"a notice." + FAREWELL
    assert session.upstream.read_to_end() == GOODBYE
    pair.close()


@pytest.mark.parametrize("asked", [1, 3])
def test_firmly_the_next_question_is_answered_by_the_farewell(sessions: Sessions, buffers: Buffers, asked: int) -> None:
    observer = FullStop()
    session = observed(sessions.wire(FINAL), observer)
    pair = begin(session.handover)
    for _ in range(asked):
        pair.end_quietly(FAREWELL, GOODBYE, rested=3600.0, firmly=True)
    session.client.sendall(b"question")
    pair.on_readable(pair.client, buffers)
    assert pair.ending is Ending.EXPIRED
    assert (observer.up, pair.bytes_up) == (b"", 0), "nobody has seen it"
    session.client.sendall(b"the rest of the question")
    pair.on_readable(pair.client, buffers)
    assert session.upstream.read_to_end() == GOODBYE
    assert read_all(session.client) == FAREWELL
    pair.close()


def test_firmly_but_the_upstream_has_said_something_that_nobody_has_read(sessions: Sessions, buffers: Buffers) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    pair.end_quietly(FAREWELL, GOODBYE, rested=3600.0, firmly=True)
    session.upstream.sendall(b"a notice.")
    session.client.sendall(b"question")
    pair.on_readable(pair.client, buffers)
    assert read_exactly(session.upstream, 8) == b"question"
    pair.on_readable(pair.upstream, buffers)
    session.client.sendall(b"another")
    pair.on_readable(pair.client, buffers)
    assert (read_all(session.upstream), read_all(session.client)) == (GOODBYE, b"a notice." + FAREWELL)
    pair.close()


def test_a_client_that_has_left_is_not_ended_by_us(sessions: Sessions, buffers: Buffers) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    session.client.close()
    pair.end_quietly(FAREWELL, GOODBYE)
    pair.on_readable(pair.client, buffers)
    assert pair.ending is Ending.CLIENT_CLOSED
    assert read_all(session.upstream) == b""
    pair.close()


def test_a_client_that_has_reset_is_not_ended_by_us(sessions: Sessions) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    reset(session.client)
    pair.end_quietly(FAREWELL, GOODBYE)
    assert (pair.ending, pair.finished) == (Ending.CLIENT_LOST, True)
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is Ending.CLIENT_LOST
    pair.close()


def test_an_upstream_that_has_reset_is_still_told_as_that(sessions: Sessions) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    reset(session.upstream)
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is Ending.UPSTREAM_LOST
    assert isinstance(pair.outcome.error, ConnectionResetError)
    assert read_all(session.client) == b""
    pair.close()


def test_a_client_that_is_lost_with_the_farewell(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    monkeypatch.setattr(ObservedPair, "_nothing_to_read", lambda pair, end: True)
    reset(session.client)
    pair.end_quietly(FAREWELL, GOODBYE)
    assert (pair.ending, pair.finished) == (Ending.CLIENT_LOST, True)
    pair.close()
    assert read_all(session.upstream) == b"", "whom nobody has told anything"


def test_a_session_that_has_not_rested_is_left_as_it_was(sessions: Sessions, buffers: Buffers) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    pair.end_quietly(FAREWELL, GOODBYE, rested=3600.0)
    session.upstream.sendall(b"a notice.")
    pair.on_readable(pair.upstream, buffers)
    assert pair.ending is None, "it was not remembered"
    assert read_exactly(session.client, 9) == b"a notice."
    pair.end_quietly(FAREWELL, GOODBYE, rested=1e-9)
    assert pair.ending is Ending.EXPIRED
    assert (read_all(session.client), read_all(session.upstream)) == (FAREWELL, GOODBYE)
    pair.close()


def test_a_session_that_rests_in_a_transaction_goes_on(sessions: Sessions, buffers: Buffers) -> None:
    session = observed(sessions.plain(FINAL), FullStop(quiet=False))
    pair = begin(session.handover)
    pair.end_quietly(FAREWELL, GOODBYE, rested=1e-9)
    session.upstream.sendall(b"done.")
    pair.on_readable(pair.upstream, buffers)
    assert pair.ending is None
    pair.close()


def test_what_is_held_is_delivered_first(sessions: Sessions, buffers: Buffers) -> None:
    observer = FullStop()
    session = observed(sessions.plain(FINAL, upstream_buffers=4096), observer)
    pair = begin(session.handover)
    size = fill(session.client, 1 << 20)
    while not pair.upstream.held:
        pair.on_readable(pair.client, buffers)
    observer.quiet = True  # whatever it has seen
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is None
    session.upstream.setblocking(False)
    said = b""
    while pair.ending is None:
        said += _read_ready(session.upstream)
        if pair.upstream.held:
            pair.on_writable(pair.upstream)
        else:
            pair.on_readable(pair.client, buffers)
            observer.quiet = True
            pair.end_quietly(FAREWELL, GOODBYE)
    session.upstream.settimeout(DEADLINE)
    said += read_all(session.upstream)
    assert said.endswith(GOODBYE)
    assert len(said) == size + len(GOODBYE)
    assert read_all(session.client) == FAREWELL
    pair.close()


def _read_ready(sock: socket.socket) -> bytes:
    try:
        return sock.recv(1 << 20)
    except BlockingIOError:
        return b""


def test_an_upstream_that_is_lost_with_the_goodbye(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session = observed(sessions.plain(FINAL))
    pair = begin(session.handover)
    monkeypatch.setattr(ObservedPair, "_nothing_to_read", lambda pair, end: True)
    reset(session.upstream)
    pair.end_quietly(FAREWELL, GOODBYE)
    assert pair.ending is Ending.EXPIRED
    assert read_all(session.client) == FAREWELL
    pair.close()


def test_the_farewell_is_held_for_a_client_that_is_slow(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    session = observed(sessions.plain(FINAL, client_buffers=4096))
    pair = begin(session.handover)
    long = noise(1_000_000)
    pair.end_quietly(long, GOODBYE)
    assert pair.client.held
    assert read_all(session.upstream) == GOODBYE
    session.client.setblocking(False)
    heard = b""
    while pair.client.held:
        heard += _read_ready(session.client)
        pair.on_writable(pair.client)
    session.client.settimeout(DEADLINE)
    assert heard + read_all(session.client) == long
    pair.on_deadline()
    assert (pair.ending, pair.finished) == (Ending.EXPIRED, True)
    pair.close()
