"""The thread that moves the bytes of all established sessions, and its door from trio.

One watcher (`mtlskit.net.relay.watcher`) looks after the sockets of every `Pair`. Trio tasks never touch them: they
send commands (start, abort, end quietly, stop) through a queue and a wake-up socket, and are called back when a session
has finished.

The GIL is shared with trio's thread. A thread that computes keeps it for the *switch interval*, 5 ms by default, and a
relay that becomes runnable meanwhile waits that long; so the interval is shortened while a relay runs.

What goes wrong in one session ends that one. That includes a watcher that takes no more sockets: epoll says so when a
socket is registered, select() only when it is asked, and then for all of them, so `_evict` looks for the culprit.

A session of small messages costs little but what happens between two system calls, so `_turn` and what it calls of
`Pair` are written for few steps: no clock unless something ends, and no look at what a turn cannot have changed.
"""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from types import TracebackType
from typing import Self

import trio

from mtlskit.net.relay.fairness import Fairness
from mtlskit.net.relay.observed import ObservedPair, pair_for
from mtlskit.net.relay.pair import PART_SIZE, Buffers, End, Pair
from mtlskit.net.relay.terms import HandOver
from mtlskit.net.relay.watcher import READ, WRITE, Watcher, default_watcher

__all__ = ["SWITCH_INTERVAL", "Relay"]

SWITCH_INTERVAL = 0.0005
"""Seconds. Ten times shorter than Python's default: see the module's text."""

_STOP_PATIENCE = 10.0
"""Seconds that stopping waits for the thread, which only has sockets to close."""


class Relay:
    """Moves the bytes of established sessions in one thread. Use as an async context manager under trio.

    Leaving the block aborts the sessions that are left and ends the thread.
    """

    def __init__(self, *, watcher_factory: Callable[[], Watcher] = default_watcher) -> None:
        self._watcher = watcher_factory()
        self._watched: dict[int, End] = {}
        """By descriptor. All that the watcher watches, but for the one that wakes the thread."""
        self._commands: deque[Callable[[], None]] = deque()
        self._buffers = Buffers()
        self._fairness = Fairness(self._watched, self._buffers)
        self._resting: list[End] = []
        """Bulk transfers that are not read until `Fairness.rest_left` says so."""
        self._pairs: dict[Pair, None] = {}
        """In the order in which they came."""
        self._ending: set[Pair] = set()
        """The sessions that have a deadline; nearly always empty."""
        self._watcher_factory = watcher_factory
        self._stopping = False
        self._dead = False
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="mtlskit-relay", daemon=True)
        self._old_interval = sys.getswitchinterval()

    async def __aenter__(self) -> Self:
        self._old_interval = sys.getswitchinterval()
        sys.setswitchinterval(min(SWITCH_INTERVAL, self._old_interval))
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._submit(self._stop)
        with trio.CancelScope(shield=True):
            # A limiter of our own: name lookups that hang may hold all tokens of trio's.
            await trio.to_thread.run_sync(self._thread.join, _STOP_PATIENCE, limiter=trio.CapacityLimiter(1))
        if not self._thread.is_alive():
            # Here and not in the thread, which would close them under a `_submit` of ours: the byte that wakes could
            # then go to another connection that got the same descriptor number.
            self._wake_out.close()
            self._wake_in.close()
        sys.setswitchinterval(self._old_interval)

    @property
    def sessions(self) -> int:
        """How many sessions are being moved now."""
        return len(self._pairs)

    def begin(self, handover: HandOver, on_finished: Callable[[Pair], None]) -> Pair:
        """Move a session from now on. The sockets belong to the relay, whatever happens.

        `on_finished` is called in the relay's thread once the sockets are closed, exactly once, with what this returns;
        its `outcome` says how the session ended.
        """
        pair = pair_for(handover, on_finished)
        self._submit(lambda: self._start(pair))
        return pair

    def abort(self, pair: Pair) -> None:
        """End a session now, if it has not ended yet. `on_finished` is still to be waited for."""
        self._submit(lambda: self._abort(pair))

    def end_quietly(
        self, pair: Pair, farewell: bytes, goodbye: bytes, *, rested: float = 0.0, firmly: bool = False
    ) -> None:
        """End a session if it is quiet and nothing has moved for `rested` seconds; else it goes on.

        `firmly`: if it is not ended now, the next thing that its client says at a quiet point is answered by that.

        The client is sent `farewell`, the upstream `goodbye` (encrypted, where it speaks TLS), and both are closed, in
        the ways of `mtlskit.net.relay.observed`. Where a session has no observer, nobody knows its quiet points, and it
        goes on. `on_finished` is still to be waited for, and may tell of another ending that came first.
        """
        self._submit(lambda: self._end_quietly(pair, farewell, goodbye, rested, firmly))

    # From trio's thread.

    def _submit(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        if self._dead:
            # The thread has ended (its `finally` has run, or will not look at the queue again): do its work here.
            self._run_commands()
            return
        # A full pipe means that a wake-up is on its way already.
        with suppress(BlockingIOError):
            self._wake_in.send(b"\0")

    # In the relay's thread.

    def _start(self, pair: Pair) -> None:
        if self._dead or self._stopping:
            pair.abort()
            pair.close()
            pair.on_finished(pair)
            return
        self._pairs[pair] = None
        self._guarded(pair, lambda: pair.start(self._buffers))

    def _abort(self, pair: Pair) -> None:
        if not pair.finished:
            pair.abort()
            self._settle(pair)

    def _end_quietly(self, pair: Pair, farewell: bytes, goodbye: bytes, rested: float, firmly: bool) -> None:
        if isinstance(pair, ObservedPair) and not pair.finished:
            self._guarded(pair, lambda: pair.end_quietly(farewell, goodbye, rested=rested, firmly=firmly))

    def _stop(self) -> None:
        self._stopping = True

    def _run(self) -> None:
        try:
            self._watcher.register(self._wake_out.fileno(), READ)
            while not self._stopping:
                self._turn()
        finally:
            self._dead = True
            for pair in list(self._pairs):
                pair.abort()
                self._settle(pair)
            self._run_commands()
            self._watcher.close()

    def _turn(self) -> None:
        try:
            ready = self._watcher.select(self._patience() if self._ending or self._resting else None)
        except (OSError, ValueError) as exc:
            self._evict(exc)
            return
        if self._buffers.greedy:
            self._serve_fairly(ready)
        else:
            self._serve(ready)
        if self._resting:
            self._end_rest()
        if self._ending:
            self._expire()

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        watched, buffers = self._watched, self._buffers
        for fd, mask in ready:
            end = watched.get(fd)
            if end is None:
                self._hear_wake_up()  # or an earlier event of this batch has closed the session
                continue
            pair = end.pair
            try:
                # What the other end of this session heard may have put an end to the interest.
                if mask & ~READ and end.mask & WRITE:
                    pair.on_writable(end)
                if mask & ~WRITE and end.mask & READ and not pair.finished:
                    pair.on_readable(end, buffers)
            except Exception as exc:  # noqa: BLE001 - a fault of ours ends one session, never the thread of all
                pair.fail(exc)
            if pair.changed or pair.finished:
                self._settle(pair)

    def _serve_fairly(self, ready: list[tuple[int, int]]) -> None:
        """Interactive sessions first, and bulk transfers as long as they are not to rest."""
        fairness = self._fairness
        first, bulk = fairness.order(ready)
        self._serve(first)
        if not bulk:
            return
        if fairness.begin_bulk():
            self._serve(bulk)
            if fairness.end_bulk():
                return
        for fd, _ in bulk:
            end = self._watched.get(fd)
            if end is not None and end.size >= PART_SIZE:
                end.resting = True
                self._resting.append(end)
                self._settle(end.pair)

    def _end_rest(self) -> None:
        if self._fairness.rest_left() > 0:
            return
        rested, self._resting = self._resting, []
        for end in rested:
            end.resting = False
            self._settle(end.pair)

    def _hear_wake_up(self) -> None:
        with suppress(BlockingIOError):
            self._wake_out.recv(4096)
        self._run_commands()

    def _run_commands(self) -> None:
        # Two threads may be here while the relay ends, so the queue may be empty a moment after it was not.
        with suppress(IndexError):
            while True:
                command = self._commands.popleft()
                command()

    def _guarded(self, pair: Pair, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as exc:  # noqa: BLE001 - as in _turn
            pair.fail(exc)
        self._settle(pair)

    def _patience(self) -> float:
        now = time.monotonic()
        waits = [(pair.deadline or 0.0) - now for pair in self._ending]
        if self._resting:
            waits.append(self._fairness.rest_left())
        return max(0.0, min(waits))

    def _expire(self) -> None:
        now = time.monotonic()
        for pair in [pair for pair in self._ending if (pair.deadline or 0.0) <= now]:
            pair.on_deadline()
            self._settle(pair)

    def _settle(self, pair: Pair) -> None:
        """Make the watcher and our books agree with what the session wants now."""
        pair.changed = False
        if not pair.finished:
            try:
                for end in (pair.client, pair.upstream):
                    self._watch(end, pair.interest(end))
            except (OSError, ValueError, LookupError) as exc:
                # The watcher takes no more sockets: epoll has a limit per user.
                pair.fail(exc)
        if pair.finished:
            self._forget(pair)
        elif pair.deadline is not None:
            self._ending.add(pair)

    def _forget(self, pair: Pair) -> None:
        if pair not in self._pairs:
            return
        del self._pairs[pair]
        self._ending.discard(pair)
        for end in (pair.client, pair.upstream):
            # A watcher that refused to change what it watches may have forgotten the socket already.
            with suppress(OSError, ValueError, LookupError):
                self._watch(end, 0)
        pair.close()
        pair.on_finished(pair)

    def _watch(self, end: End, mask: int) -> None:
        if mask == end.mask:
            return
        fd = end.fd
        if not end.mask:
            self._watcher.register(fd, mask)
            self._watched[fd] = end
        elif mask:
            self._watcher.modify(fd, mask)
        else:
            del self._watched[fd]
            self._watcher.unregister(fd)
        end.mask = mask

    def _evict(self, exc: Exception) -> None:
        """End the sessions that the watcher cannot watch: descriptors that are too high for select(), or not open.

        Where none is to blame alone, there are too many (Windows), and the newest goes. Raises `exc` when none is left.
        """
        culprits = [pair for pair in self._pairs if not self._can_watch(pair)] or list(self._pairs)[-1:]
        if not culprits:
            raise exc
        for pair in culprits:
            pair.fail(exc)
            self._settle(pair)

    def _can_watch(self, pair: Pair) -> bool:
        with closing(self._watcher_factory()) as watcher:
            try:
                for end in (pair.client, pair.upstream):
                    watcher.register(end.fd, READ)
                watcher.select(0)
            except (OSError, ValueError, LookupError):
                return False
        return True
