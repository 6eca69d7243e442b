"""A pool of upstream connections that have finished TCP, SSLRequest and TLS, and wait for a StartupMessage.

Three or four round trips are spent before the StartupMessage; a client that finds a connection ready saves them. What
can go wrong with a connection that waits, and what is done about it:

* The server ends it after its authentication_timeout (60 s by default, counted from the beginning of the dial). Each
  has an age limit well below, drawn at random, so that those made together do not end together.
* It may have been ended without our noticing. Before it is given away it is looked at: an end, an alert or any plain
  byte disqualifies it. (Session tickets, which TLS 1.3 servers send after the handshake, are read and kept inside.)
  The moment between that look and the server's first byte is the session's business: it begins again, once, and calls
  `proved_dead`, because those that are as old are likely to have died of the same.
* The identity has been reloaded: `renew` drops those made with the old one. It also ends a pause, for which the old
  identity may have been the reason, and the dials that are under way no longer count, whether they succeed or fail.
* The upstream is down: after a failed dial none is made until a pause has passed, which doubles up to a minute, and
  those that wait are dropped, as they are likely to be dead too. The first failure and the first success after it are
  told to whoever owns the pool; the attempts in between are not.
* Many tunnels, many connections: a budget bounds the sum, and tells those who came too late when a place is free.

Dialling happens a few at a time, each after a random moment, so that the server never sees a burst that no client made.

`run` sleeps until `_wake` is set or the next thing falls due. It replaces the event before it looks at the state, and
nothing is awaited in between, so that no wake-up is lost.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

from mtlskit.errors import UpstreamError
from mtlskit.net.dial import Upstream
from mtlskit.net.warm.demand import Demand
from mtlskit.net.warm.idle import is_quiet, part

__all__ = ["Outage", "WarmBudget", "WarmCounts", "WarmPool"]

Outage: TypeAlias = UpstreamError | None
"""Why no connection can be made in advance, or None for the end of such a time."""

_OLDEST = (35.0, 45.0)
"""Seconds. Between these, at random, a connection is replaced: PostgreSQL's 60 s less a login that comes late."""

_AT_ONCE = 4
"""Connections that one pool dials at the same time."""

_JITTER = 0.05
"""Seconds. Each dial starts after a random part of this."""

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


@dataclass
class WarmBudget:
    """How many connections may wait, or be under way, over all pools together."""

    limit: int
    used: int = 0
    _refused: dict[Callable[[], None], None] = field(default_factory=dict)
    """Whom to call when a place is free; a dict because it keeps the order."""

    def take(self, when_free: Callable[[], None]) -> bool:
        """Claim a place. False when all are taken; then `when_free` is called once, as soon as asking is worth it."""
        if self.used >= self.limit:
            self._refused[when_free] = None
            return False
        self.used += 1
        return True

    def give_back(self) -> None:
        """Return a place."""
        self.used -= 1
        refused, self._refused = self._refused, {}
        for when_free in refused:
            when_free()


@dataclass
class WarmCounts:
    """What became of a pool's connections and its clients. `made` = `hits` + `aged` + `dead` + `dropped` + waiting."""

    made: int = 0
    hits: int = 0
    misses: int = 0
    aged: int = 0
    """Those that waited in vain: too long, or for clients that no longer come."""
    dead: int = 0
    """Those that were found dead when a client came."""
    dropped: int = 0
    """Those that were closed for another reason: the end, a new identity, an outage, or one beside them was dead."""
    failed: int = 0
    """Dials that failed: they made nothing."""
    replayed: int = 0
    """Hits that proved dead after all."""


@dataclass(frozen=True)
class _Waiting:
    upstream: Upstream
    since: float
    """When its dial began: the server's clock runs from then."""
    until: float


class WarmPool:
    """The connections of one tunnel that wait. `take` is synchronous; `run` keeps the pool filled until cancelled.

    `tell` hears of each outage twice: when the first dial fails, with its reason, and when one succeeds again.
    """

    def __init__(
        self,
        dial: Callable[[], Awaitable[Upstream]],
        limit: int,
        budget: WarmBudget,
        tell: Callable[[Outage], None] = lambda _: None,
    ) -> None:
        self.counts = WarmCounts()
        self._dial = dial
        self._demand = Demand(limit)
        self._budget = budget
        self._tell = tell
        self._down = False
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
            if is_quiet(upstream.tls):
                self.counts.hits += 1
                return upstream
            upstream.tls.close()
            self.counts.dead += 1
        self.counts.misses += 1
        return None

    def proved_dead(self, taken_at: float) -> None:
        """One that was taken at that time was dead after all. Those that were waiting beside it are not trusted."""
        self.counts.replayed += 1
        self._drop_unused([waiting for waiting in self._waiting if waiting.since <= taken_at])
        self._wake.set()

    def renew(self) -> None:
        """The identity has changed: drop what waits, and what is being made."""
        self._generation += 1
        self._pause = self._resume_at = 0.0
        self._drop_unused(list(self._waiting))
        self._wake.set()

    def close(self) -> None:
        """Close what waits, and let `run` end."""
        self._closed = True
        self._generation += 1
        self._drop_unused(list(self._waiting))
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
            self._drop_unused(list(self._waiting))

    def _missing(self, now: float) -> int:
        """How many dials to begin now; each has its place in the budget."""
        if now < self._resume_at:
            return 0
        missing = self._demand.wanted(now) - len(self._waiting) - self._dialling
        wanted = min(missing, _AT_ONCE - self._dialling)
        granted = 0
        while granted < wanted and self._budget.take(self._wake_up):
            granted += 1
        return granted

    def _wake_up(self) -> None:
        self._wake.set()

    def _next_change(self, now: float) -> float:
        times = [waiting.until for waiting in self._waiting]
        if now < self._resume_at:
            times.append(self._resume_at)
        return min(times, default=float("inf"))

    async def _add_one(self) -> None:
        kept = False
        try:
            await trio.sleep(random.uniform(0, _JITTER))  # noqa: S311 - spreads load, guards nothing
            generation, began = self._generation, trio.current_time()
            try:
                upstream = await self._dial()
            except UpstreamError as exc:
                self.counts.failed += 1
                if generation == self._generation:
                    self._back_off()
                    self._tell_once(exc)
            else:
                if generation == self._generation:
                    self._keep(upstream, began)
                    kept = True
                    self._tell_once(None)
                else:
                    part(upstream.tls)
        finally:
            self._dialling -= 1
            if not kept:
                self._budget.give_back()
            self._wake.set()

    def _tell_once(self, outage: Outage) -> None:
        if self._down is not (outage is not None):
            self._down = not self._down
            self._tell(outage)

    def _keep(self, upstream: Upstream, began: float) -> None:
        self.counts.made += 1
        self._pause = 0.0
        until = began + random.uniform(*_OLDEST)  # noqa: S311 - as above
        self._waiting.append(_Waiting(upstream, began, until))

    def _back_off(self) -> None:
        now = trio.current_time()
        if now < self._resume_at:
            return  # one of several that failed together
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, 2 * self._pause))
        self._resume_at = now + self._pause * random.uniform(0.75, 1.25)  # noqa: S311 - as above
        self._drop_unused(list(self._waiting))

    def _retire(self, now: float) -> None:
        """Drop those that are too old, and of the others the oldest ones that nobody wants any more."""
        retired = [waiting for waiting in self._waiting if waiting.until <= now]
        excess = len(self._waiting) - len(retired) - self._demand.wanted(now)
        if excess > 0:
            retired += [waiting for waiting in self._waiting if waiting.until > now][:excess]
        self.counts.aged += len(retired)
        self._drop(retired)

    def _drop_unused(self, those: list[_Waiting]) -> None:
        self.counts.dropped += len(those)
        self._drop(those)

    def _drop(self, those: list[_Waiting]) -> None:
        for waiting in those:
            self._waiting.remove(waiting)
            part(waiting.upstream.tls)
            self._budget.give_back()
