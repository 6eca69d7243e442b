"""Fairness: interactive sessions first, bulk transfers in parts and with rests, and nobody forgotten."""

from __future__ import annotations

import math
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

from mtlskit.net.relay import Relay
from mtlskit.net.relay.fairness import BULK_SHARE, BURST, COMPANY, LONGEST_REST, SMALL
from mtlskit.net.relay.pair import BUFFER_SIZE, PART_SIZE, Buffers, End, Pair
from mtlskit.net.relay.watcher import READ, WRITE
from tests.support.relay_peers import Session, Sessions, digest, fill, moved, noise, read_exactly, reset, together


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(by_hand: Relay) -> Clock:
    """Of the fairness of `by_hand`."""
    clock = Clock()
    by_hand._fairness.clock = clock
    return clock


@pytest.mark.usefixtures("clock")
def test_an_interactive_session_beside_bulk_ones_moves_in_every_turn(by_hand: Relay, sessions: Sessions) -> None:
    bulk, interactive = [sessions.plain() for _ in range(3)], sessions.plain()
    pairs = [Pair(session.handover, lambda pair: None) for session in (*bulk, interactive)]
    for pair in pairs:
        by_hand._start(pair)
    for number in range(20):
        for session in bulk:
            fill(session.client, 64 << 20)
        interactive.client.sendall(b"q%02d" % number)
        before = [pair.bytes_up for pair in pairs[:3]]
        by_hand._turn()
        interactive.upstream.settimeout(0)
        assert interactive.upstream.recv(100) == b"q%02d" % number
        moved = [pair.bytes_up - was for pair, was in zip(pairs, before, strict=False)]
        assert all(0 < count <= BUFFER_SIZE for count in moved), moved
        for session, count in zip(bulk, moved, strict=True):
            assert len(read_exactly(session.upstream, count)) == count


def _bulk_turn(relay: Relay, session: Session[socket.socket], pair: Pair) -> int:
    """A turn in which there is more to read than any buffer takes; the bytes that it has moved."""
    fill(session.client, 64 << 20)
    before = pair.bytes_up
    relay._turn()
    moved = pair.bytes_up - before
    read_exactly(session.upstream, moved)
    return moved


def test_bulk_transfers_read_parts_and_come_last_while_others_are_about(
    by_hand: Relay, clock: Clock, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk, interactive = sessions.plain(), sessions.plain()
    pair, other = [Pair(session.handover, lambda pair: None) for session in (bulk, interactive)]
    for each in (pair, other):
        by_hand._start(each)
    order: list[Pair] = []
    real = Pair.on_readable

    def noted(self: Pair, end: End, buffers: Buffers) -> None:
        order.append(self)
        real(self, end, buffers)

    monkeypatch.setattr(Pair, "on_readable", noted)
    assert _bulk_turn(by_hand, bulk, pair) > PART_SIZE, "alone, it reads whole buffers"
    for number in range(5):
        interactive.client.sendall(b"q%02d" % number)
        order.clear()
        assert _bulk_turn(by_hand, bulk, pair) <= PART_SIZE
        assert order == [other, pair]
        assert read_exactly(interactive.upstream, 3) == b"q%02d" % number
    clock.now += COMPANY - 0.000_01
    assert _bulk_turn(by_hand, bulk, pair) <= PART_SIZE, "they may be back in a moment"
    clock.now += 0.000_02
    assert _bulk_turn(by_hand, bulk, pair) > PART_SIZE, "they have gone"


def test_a_bulk_transfer_is_no_company_to_itself(by_hand: Relay, sessions: Sessions) -> None:
    """The answers to it do not make it read parts."""
    bulk = sessions.plain()
    pair = Pair(bulk.handover, lambda pair: None)
    by_hand._start(pair)
    for _ in range(5):
        bulk.upstream.sendall(b"still here")
        assert _bulk_turn(by_hand, bulk, pair) > PART_SIZE
        read_exactly(bulk.client, 10)


class Dear:
    """What a bulk transfer reads takes time: the clock is turned by `cost` at each read of `PART_SIZE` or more."""

    def __init__(self, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cost = 0.0
        real = Pair.on_readable

        def costly(pair: Pair, end: End, buffers: Buffers) -> None:
            before = pair.bytes_up + pair.bytes_down
            real(pair, end, buffers)
            if pair.bytes_up + pair.bytes_down - before >= PART_SIZE:
                clock.now += self.cost

        monkeypatch.setattr(Pair, "on_readable", costly)


@pytest.fixture
def dear(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Dear:
    """Free as yet."""
    return Dear(clock, monkeypatch)


def _started(relay: Relay, *all_sessions: Session[socket.socket]) -> list[Pair]:
    pairs = [Pair(session.handover, lambda pair: None) for session in all_sessions]
    for pair in pairs:
        relay._start(pair)
    return pairs


def _ask(relay: Relay, interactive: Session[socket.socket], text: bytes = b"q") -> None:
    """One message, one turn."""
    interactive.client.sendall(text)
    relay._turn()
    interactive.upstream.settimeout(0)
    assert interactive.upstream.recv(100) == text


def _at_rest(relay: Relay, dear: Dear, bulk: Session[socket.socket], interactive: Session[socket.socket]) -> Pair:
    """Bulk transfer and interactive session; the first has just had more than its share."""
    pair, _ = _started(relay, bulk, interactive)
    _bulk_turn(relay, bulk, pair)
    dear.cost = 2 * BURST
    interactive.client.sendall(b"?")
    assert _bulk_turn(relay, bulk, pair) == PART_SIZE
    assert interactive.upstream.recv(100) == b"?"
    return pair


def test_a_bulk_transfer_that_had_its_share_rests_and_interactive_sessions_do_not(
    by_hand: Relay, clock: Clock, dear: Dear, sessions: Sessions
) -> None:
    bulk, interactive = sessions.plain(), sessions.plain()
    pair = _at_rest(by_hand, dear, bulk, interactive)
    fill(bulk.client, 64 << 20)
    before = pair.bytes_up
    for _ in range(50):
        _ask(by_hand, interactive)
    assert pair.bytes_up == before, "it rests"
    # Five sixths of the time are for others: what took 2 ms, after 1 ms for nothing, is followed by a rest of 9.
    clock.now += 2 * BURST * (1 / BULK_SHARE - 1) - BURST - 0.000_01
    _ask(by_hand, interactive)
    _ask(by_hand, interactive)
    assert pair.bytes_up == before, "still"
    clock.now += 0.000_02
    _ask(by_hand, interactive)
    by_hand._turn()
    assert pair.bytes_up == before + PART_SIZE


def test_a_rest_ends_by_itself(by_hand: Relay, dear: Dear, sessions: Sessions) -> None:
    """Nobody says anything meanwhile; the real clock runs."""
    bulk, interactive = sessions.plain(), sessions.plain()
    pair = _at_rest(by_hand, dear, bulk, interactive)
    fill(bulk.client, 64 << 20)
    before = pair.bytes_up
    by_hand._fairness.clock = ticking = Ticking(by_hand._fairness.clock())
    for _ in range(3):
        by_hand._turn()  # waits for the rest to end, ends it, and reads
    assert pair.bytes_up > before
    assert ticking() - ticking.began < 1


class Ticking:
    """Real time, from where another clock stood."""

    def __init__(self, start: float) -> None:
        self.began = start
        self._offset = start - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._offset


def test_a_resting_transfer_is_written_to(by_hand: Relay, dear: Dear, sessions: Sessions) -> None:
    """Only what it says itself has to wait: what is held for it goes out, and what comes for it too."""
    bulk, interactive = sessions.plain(), sessions.plain()
    pair = _at_rest(by_hand, dear, bulk, interactive)
    bulk.upstream.sendall(b"an answer")
    by_hand._turn()
    assert read_exactly(bulk.client, 9) == b"an answer"
    while not pair.client.held:
        bulk.upstream.sendall(bytes(16 * 1024))
        by_hand._turn()
    assert pair.client.resting, "through all this"
    assert pair.client.mask == WRITE
    while pair.client.held:
        bulk.client.recv(1 << 20)
        by_hand._turn()
    assert pair.client.resting


@pytest.mark.parametrize("how", ["the interactive session ends", "the bulk transfer is aborted", "it is reset"])
def test_an_end_during_a_rest(by_hand: Relay, clock: Clock, dear: Dear, sessions: Sessions, how: str) -> None:
    bulk, interactive = sessions.plain(), sessions.plain()
    pair = _at_rest(by_hand, dear, bulk, interactive)
    fill(bulk.client, 64 << 20)
    if how == "the interactive session ends":
        interactive.client.close()
        interactive.upstream.close()
    elif how == "the bulk transfer is aborted":
        by_hand._abort(pair)
        assert pair.finished
    else:
        reset(bulk.upstream)
        reset(bulk.client)
    dear.cost = 0
    clock.now += LONGEST_REST
    by_hand._turn()
    assert not by_hand._resting
    while how == "it is reset" and not pair.finished:
        by_hand._turn()  # what the kernel has of it comes first
    assert pair.finished == (how != "the interactive session ends")
    if not pair.finished:
        assert pair.client.mask & READ


def test_a_session_of_small_questions_and_large_answers_is_no_company_to_itself(
    by_hand: Relay, clock: Clock, dear: Dear, sessions: Sessions
) -> None:
    session = sessions.plain()
    (pair,) = _started(by_hand, session)
    dear.cost = LONGEST_REST
    for number in range(40):
        session.client.sendall(b"how much?")
        by_hand._turn()
        assert read_exactly(session.upstream, 9) == b"how much?"
        answer = bytes(6 if number % 12 else 5 * PART_SIZE)
        session.upstream.sendall(answer)
        wanted = pair.bytes_down + len(answer)
        while pair.bytes_down < wanted:
            by_hand._turn()
            assert not by_hand._resting
        assert read_exactly(session.client, len(answer)) == answer


@pytest.mark.parametrize(("size", "rests"), [(1, True), (SMALL, True), (SMALL + 1, False), (16 * 1024, False)])
def test_for_whom_a_transfer_rests(
    by_hand: Relay, clock: Clock, dear: Dear, sessions: Sessions, size: int, *, rests: bool
) -> None:
    """For small messages. For what is neither small nor a bulk transfer it reads parts, and no more is done."""
    bulk, other = sessions.plain(), sessions.plain()
    pair, _ = _started(by_hand, bulk, other)
    _bulk_turn(by_hand, bulk, pair)
    other.client.sendall(bytes(size))
    _bulk_turn(by_hand, bulk, pair)
    assert len(read_exactly(other.upstream, size)) == size
    clock.now += COMPANY  # nothing was known of a session that had not said anything yet
    dear.cost = LONGEST_REST
    other.upstream.sendall(b"an answer")
    assert _bulk_turn(by_hand, bulk, pair) == PART_SIZE
    assert bool(by_hand._resting) == rests, "an answer is judged by its question"


def test_a_transfer_that_has_just_ended_is_no_company(by_hand: Relay, clock: Clock, sessions: Sessions) -> None:
    bulk, other = sessions.plain(), sessions.plain()
    pair, other_pair = _started(by_hand, bulk, other)
    other.client.sendall(bytes(BUFFER_SIZE))
    while other_pair.bytes_up < BUFFER_SIZE:
        _bulk_turn(by_hand, bulk, pair)
    assert len(read_exactly(other.upstream, BUFFER_SIZE)) == BUFFER_SIZE
    moved = []
    for _ in range(3):
        clock.now += COMPANY
        other.client.sendall(b"a few")
        moved.append(_bulk_turn(by_hand, bulk, pair))
        assert len(read_exactly(other.upstream, 5)) == 5
    assert min(moved[1:]) > PART_SIZE
    clock.now += 1
    other.client.sendall(b"a few")
    assert _bulk_turn(by_hand, bulk, pair) == PART_SIZE


@pytest.mark.parametrize("timer", ["exact", "epoll"])
@pytest.mark.parametrize("part", [0.000_06, 0.000_3, 0.001])
def test_the_share_is_kept_over_many_rests(by_hand: Relay, clock: Clock, timer: str, part: float) -> None:
    """A timer that counts in milliseconds oversleeps, and what was overslept is not lost."""
    fairness = by_hand._fairness
    began, served = clock.now, 0.0
    while clock.now < began + 10:
        fairness._interactive_until = clock.now + COMPANY
        assert fairness.begin_bulk()
        clock.now += part
        served += part
        if not fairness.end_bulk():
            left = fairness.rest_left()
            assert BURST < left <= LONGEST_REST
            clock.now += left if timer == "exact" else math.ceil(left * 1000) / 1000
    assert served / (clock.now - began) == pytest.approx(BULK_SHARE, rel=0.05)


def test_a_transfer_below_its_share_never_rests(by_hand: Relay, clock: Clock) -> None:
    fairness = by_hand._fairness
    for _ in range(10_000):
        fairness._interactive_until = clock.now + COMPANY
        assert fairness.begin_bulk()
        clock.now += 0.000_1
        assert fairness.end_bulk()
        clock.now += 0.000_1 * (1 / BULK_SHARE - 1)


async def test_transfers_that_rest_arrive_whole(
    relay: Relay, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways at once, over TLS, beside somebody who asks all the time; each turn of theirs is followed by a rest."""
    monkeypatch.setattr("mtlskit.net.relay.fairness.BURST", 0.0)
    rests: list[float] = []
    real = Relay._end_rest

    def counted(self: Relay) -> None:
        rests.append(self._fairness.rest_left())
        real(self)

    monkeypatch.setattr(Relay, "_end_rest", counted)
    payload = noise(4 << 20, seed=5)
    up, down, interactive = sessions.tls(), sessions.tls(), sessions.plain()
    over = threading.Event()

    def ask() -> int:
        asked = 0
        while not over.is_set():
            interactive.client.sendall(b"?")
            assert read_exactly(interactive.upstream, 1) == b"?"
            asked += 1
        return asked

    def move() -> tuple[bytes, bytes]:
        try:
            with ThreadPoolExecutor(4) as pool:
                pool.submit(up.client.sendall, payload)
                pool.submit(down.upstream.sendall, payload)
                received = pool.submit(read_exactly, up.upstream, len(payload))
                return received.result(), pool.submit(read_exactly, down.client, len(payload)).result()
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        for session in (up, down, interactive):
            nursery.start_soon(moved, relay, session.handover)
        asked, (sent_up, sent_down) = await together(ask, move)
        nursery.cancel_scope.cancel()
    assert digest(sent_up) == digest(sent_down) == digest(payload)
    assert asked
    assert rests
    assert max(rests) <= LONGEST_REST
