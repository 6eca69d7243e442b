"""A pool of upstream connections that have finished TCP, SSLRequest and TLS, and wait for a StartupMessage.

From far away, four round trips of five are spent before the StartupMessage; a client that finds a connection ready
saves them. What can go wrong with a connection that waits, and what is done about it:

* The server ends it after its authentication_timeout (60 s by default). Each has an age limit well below, drawn at
  random, so that those made together do not end together.
* It may have been ended without our noticing. Before it is given away it is looked at: an end, an alert or any plain
  byte disqualifies it. (Session tickets, which TLS 1.3 servers send after the handshake, are read and kept inside.)
  The moment between that look and the server's first byte is the session's business: it replays once.
* The identity has been reloaded: `renew` drops those made with the old one.
* The upstream is down: after a failed dial none is made until a pause has passed, which doubles up to a minute, and
  those that wait are dropped, as they are likely to be dead too.
* Many tunnels, many connections: a budget bounds the sum.

Dialling happens a few at a time, each after a random moment, so that the server never sees a burst that no client made.
"""

from __future__ import annotations

import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from mtlskit.errors import UpstreamError
from mtlskit.net.dial import Upstream
from mtlskit.net.warm.demand import Demand

__all__ = ["WarmBudget", "WarmCounts", "WarmPool"]

_OLDEST = (35.0, 45.0)
"""Seconds. Between these, at random, a connection that waits is replaced: PostgreSQL's 60 s less a slow handshake."""

_AT_ONCE = 4
"""Connections that one pool dials at the same time."""

_JITTER = 0.05
"""Seconds. Each dial starts after a random part of this."""

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass
class WarmBudget:
    """How many connections may wait over all pools together."""

    limit: int
    used: int = 0

    def take(self) -> bool:
        """Claim a place; False when all are taken."""
        if self.used >= self.limit:
            return False
        self.used += 1
        return True

    def give_back(self) -> None:
        """Return a place."""
        self.used -= 1


@dataclass
class WarmCounts:
    """What became of a pool's connections and its clients."""

    made: int = 0
    hits: int = 0
    misses: int = 0
    aged: int = 0
    dead: int = 0
    failed: int = 0
    replayed: int = 0


@dataclass(frozen=True)
class _Waiting:
    upstream: Upstream
    until: float


class WarmPool:
    """The connections of one tunnel that wait. `take` is synchronous; `run` keeps the pool filled until cancelled."""

    def __init__(self, dial: Callable[[], Awaitable[Upstream]], limit: int, budget: WarmBudget) -> None:
        self.counts = WarmCounts()
        self._dial = dial
        self._demand = Demand(limit)
        self._budget = budget
        self._waiting: deque[_Waiting] = deque()
        self._dialling = 0
        self._generation = 0
        """Raised by `renew`; a dial that began before it is thrown away."""
        self._closed = False
        self._pause = 0.0
        self._resume_at = 0.0
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self) -> Upstream | None:
        """A connection that is ready and seems alive, or None. The youngest is given: it has the longest to live."""
        self._demand.arrived(trio.current_time())
        self._wake.set()
        while self._waiting:
            upstream = self._waiting.pop().upstream
            self._budget.give_back()
            if is_quiet(upstream):
                self.counts.hits += 1
                return upstream
            upstream.tls.close()
            self.counts.dead += 1
        self.counts.misses += 1
        return None

    def renew(self) -> None:
        """The identity has changed: drop what waits, and what is being made."""
        self._generation += 1
        self._drop_all()
        self._wake.set()

    def close(self) -> None:
        """Close what waits, and let `run` end."""
        self._closed = True
        self._generation += 1
        self._drop_all()
        self._wake.set()

    async def run(self) -> None:
        """Keep the pool filled until it is closed. On the way out, cancelled or not, what waits is closed."""
        try:
            async with trio.open_nursery() as nursery:
                while not self._closed:
                    self._wake = trio.Event()
                    now = trio.current_time()
                    self._retire(now)
                    for _ in range(self._missing(now)):
                        self._dialling += 1
                        nursery.start_soon(self._add_one)
                    with trio.move_on_at(self._next_change(now)):
                        await self._wake.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._drop_all()

    def _missing(self, now: float) -> int:
        if now < self._resume_at:
            return 0
        missing = self._demand.wanted(now) - len(self._waiting) - self._dialling
        wanted = max(0, min(missing, _AT_ONCE - self._dialling))
        return sum(self._budget.take() for _ in range(wanted))

    def _next_change(self, now: float) -> float:
        times = [waiting.until for waiting in self._waiting]
        if now < self._resume_at:
            times.append(self._resume_at)
        return min(times, default=float("inf"))

    async def _add_one(self) -> None:
        generation = self._generation
        kept = False
        try:
            await trio.sleep(random.uniform(0, _JITTER))  # noqa: S311 - spreads load, guards nothing
            upstream = await self._dial()
            if generation == self._generation:
                self._keep(upstream)
                kept = True
            else:
                upstream.tls.close()
        except UpstreamError:
            # Clients hear the reason from their own dials; here it only means that there is nothing to be had.
            self._back_off()
        finally:
            self._dialling -= 1
            if not kept:
                self._budget.give_back()
            self._wake.set()

    def _keep(self, upstream: Upstream) -> None:
        self.counts.made += 1
        self._pause = 0.0
        until = trio.current_time() + random.uniform(*_OLDEST)  # noqa: S311 - as above
        self._waiting.append(_Waiting(upstream, until))

    def _back_off(self) -> None:
        self.counts.failed += 1
        now = trio.current_time()
        if now < self._resume_at:
            return  # one of several that failed together
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self._resume_at = now + self._pause * random.uniform(0.75, 1.25)  # noqa: S311 - as above
        self._drop_all()

    def _retire(self, now: float) -> None:
        kept = deque[_Waiting]()
        excess = len(self._waiting) - self._demand.wanted(now)
        for waiting in self._waiting:  # the oldest first
            if waiting.until <= now or excess > 0:
                excess -= 1
                self.counts.aged += 1
                self._drop(waiting)
            else:
                kept.append(waiting)
        self._waiting = kept

    def _drop_all(self) -> None:
        while self._waiting:
            self._drop(self._waiting.pop())

    def _drop(self, waiting: _Waiting) -> None:
        waiting.upstream.tls.close()
        self._budget.give_back()


def is_quiet(upstream: Upstream) -> bool:
    """Whether the server has said nothing since the handshake but what TLS says by itself. Does not wait."""
    engine = upstream.tls.engine
    room = memoryview(bytearray(16))
    while True:
        data = _read_now(upstream)
        if data is None:
            return True
        if not data:
            return False
        engine.feed(data)
        if engine.read_into(room) or engine.closed or engine.failure is not None:
            return False


def _read_now(upstream: Upstream) -> bytes | None:
    """What has arrived already: None for nothing, empty for the end of the connection, whatever ended it."""
    sock = socket.socket(fileno=upstream.tls.socket.fileno())
    try:
        return sock.recv(4096)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    finally:
        sock.detach()
