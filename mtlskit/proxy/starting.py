"""Starting tunnels that must ask Heroku first: not in the way of the others, and again by themselves.

A file that is missing stays missing until somebody mends it, who then says so (`mtlskit reload`). That Heroku cannot be
asked mends itself, and nobody should have to notice.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import trio

from mtlskit.errors import Code, HerokuError, MtlskitError
from mtlskit.proxy.tunnel import Tunnel, TunnelState

__all__ = ["StartFailure", "StartRetries", "may_pass", "start_order"]

StartFailure: TypeAlias = tuple[str, MtlskitError]
"""The name of a tunnel, and why it did not start."""

_PASSING: Final = frozenset(
    {Code.API_BUSY, Code.API_FAILED, Code.API_UNREACHABLE, Code.API_RUBBISH, Code.API_UNCERTAIN}
)
"""What is Heroku's, or the network's, and not a mistake in the configuration."""

_FIRST_PAUSE: Final = 5.0
_LONGEST_PAUSE: Final = 300.0


def may_pass(error: MtlskitError) -> bool:
    """Whether a tunnel that did not start for this may start later without anybody's doing."""
    return error.code in _PASSING


async def start_order(
    tunnels: Sequence[Tunnel], start: Callable[[Tunnel], Awaitable[StartFailure | None]]
) -> list[StartFailure]:
    """Start them all: one after another those that ask nobody, then the others at once. The failures, in file order."""
    failures: dict[Tunnel, StartFailure] = {}

    async def attempt(tunnel: Tunnel) -> None:
        failure = await start(tunnel)
        if failure is not None:
            failures[tunnel] = failure

    for tunnel in tunnels:
        if tunnel.config.addon is None:
            await attempt(tunnel)
    async with trio.open_nursery() as nursery:
        for tunnel in tunnels:
            if tunnel.config.addon is not None:
                nursery.start_soon(attempt, tunnel)
    return [failures[tunnel] for tunnel in tunnels if tunnel in failures]


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
