"""Rounds of reloading: whoever asks is told how a read went that began after they asked, and requests do not pile up.

A round that has begun may have read a file just before it was replaced, so it counts for nobody who asks later. Those
who come while one is under way share the next. A round goes on whatever becomes of those who wait for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import trio

from mtlskit.errors import MtlskitError
from mtlskit.proxy.tunnel import Tunnel

__all__ = ["Reloaded", "Reloads", "Round"]


@dataclass(frozen=True)
class Reloaded:
    """How it went for a tunnel: with an `error`, what it had before stays in use."""

    tunnel: Tunnel
    error: MtlskitError | None

    @property
    def ok(self) -> bool:
        """Whether the tunnel serves what was read."""
        return self.error is None


@dataclass
class Round:
    """A reload of some tunnels that has not begun yet, or goes on, or is `done`."""

    tunnels: dict[Tunnel, None] = field(default_factory=dict)
    results: tuple[Reloaded, ...] = ()
    done: trio.Event = field(default_factory=trio.Event)


class Reloads:
    """Runs one round at a time in `nursery`. `work` reloads tunnels; `alone` keeps others from changing them."""

    def __init__(
        self,
        nursery: trio.Nursery,
        alone: trio.Lock,
        work: Callable[[Iterable[Tunnel]], Awaitable[tuple[Reloaded, ...]]],
    ) -> None:
        self._nursery = nursery
        self._alone = alone
        self._work = work
        self._next: Round | None = None

    def request(self, tunnels: Iterable[Tunnel]) -> Round:
        """Have these read again, in a round that has not begun."""
        if self._next is None:
            self._next = Round()
            self._nursery.start_soon(self._run)
        self._next.tunnels.update(dict.fromkeys(tunnels))
        return self._next

    async def _run(self) -> None:
        async with self._alone:
            begun, self._next = self._next, None
            if begun is not None:
                begun.results = await self._work(list(begun.tunnels))
                begun.done.set()
