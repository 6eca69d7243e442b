"""Starting tunnels that must ask Heroku first: not in the way of the others, and again by themselves.

A file that is missing stays missing until somebody mends it, who then says so (`mtlskit reload`). That Heroku cannot be
asked mends itself, and nobody should have to notice.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias, TypeVar

import trio

from mtlskit.errors import HerokuError, MtlskitError
from mtlskit.proxy.tunnel import Tunnel, TunnelState

__all__ = ["StartFailure", "StartRetries", "start_order"]

T = TypeVar("T")

StartFailure: TypeAlias = tuple[str, MtlskitError]
"""The name of a tunnel, and why it did not start."""

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0


async def start_order(tunnels: Sequence[Tunnel], start: Callable[[Tunnel], Awaitable[T | None]]) -> list[T]:
    """Start them all, or start them again: one after another those that ask nobody, then the others at once.

    What `start` has to say of them, in file order.
    """
    said: dict[Tunnel, T] = {}

    async def attempt(tunnel: Tunnel) -> None:
        word = await start(tunnel)
        if word is not None:
            said[tunnel] = word

    for tunnel in tunnels:
        if tunnel.config.addon is None:
            await attempt(tunnel)
    async with trio.open_nursery() as nursery:
        for tunnel in tunnels:
            if tunnel.config.addon is not None:
                nursery.start_soon(attempt, tunnel)
    return [said[tunnel] for tunnel in tunnels if tunnel in said]


class StartRetries:
    """Has `reload` try again the tunnels that Heroku kept from starting, with pauses that grow."""

    def __init__(self, tunnels: Sequence[Tunnel], reload: Callable[[list[Tunnel]], Awaitable[object]]) -> None:
        self._tunnels = [tunnel for tunnel in tunnels if tunnel.config.addon is not None]
        self._reload = reload

    async def run(self) -> None:
        """Try until cancelled; returns at once where no tunnel asks Heroku."""
        pause = _FIRST_PAUSE
        while self._tunnels:
            await trio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311 - spreads load, guards nothing
            waiting = [tunnel for tunnel in self._tunnels if _waits_for_heroku(tunnel)]
            if waiting:
                pause = min(_LONGEST_PAUSE, 2 * pause)
                await self._reload(waiting)
            else:
                pause = _FIRST_PAUSE


def _waits_for_heroku(tunnel: Tunnel) -> bool:
    return tunnel.state is TunnelState.FAILED and isinstance(tunnel.failure, HerokuError)
