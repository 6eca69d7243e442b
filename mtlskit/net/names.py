"""What names have led to a moment ago, so that a burst of connections asks the resolver once.

getaddrinfo(3) blocks, so each lookup takes a thread, and it reads its configuration anew: even for a name in /etc/hosts
a tenth of the CPU of a new session. Resolvers keep an answer for as long as its record says, which is seconds or
minutes; the one second here comes on top, and ends at once when no address takes us.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial
from socket import AddressFamily
from typing import Any, TypeAlias

import trio

__all__ = ["FRESH", "Address", "Names"]

Address: TypeAlias = tuple[AddressFamily, Any]
"""As getaddrinfo(3) gives it: a link-local one of IPv6 has its interface in it (RFC 4007 section 11)."""

FRESH = 1.0
"""Seconds for which an answer is used again."""


class Names:
    """Looks names up, and remembers what they led to for `FRESH` seconds. Failures are not remembered.

    A look-up that was given up keeps its thread until the resolver gives up too. With a `limiter`, which may be shared,
    that is one of its threads; else one of those that all of the process has.
    """

    def __init__(self, limiter: trio.CapacityLimiter | None = None) -> None:
        self._limiter = limiter
        self._known: dict[tuple[str, int], tuple[float, tuple[Address, ...]]] = {}
        """With the time until which it is fresh."""

    async def addresses(self, host: str, port: int) -> tuple[Address, ...]:
        """The addresses of `host`, at least one, in the resolver's order. Raises OSError; has no deadline."""
        known = self._known.get((host, port))
        if known is not None and trio.current_time() < known[0]:
            return known[1]
        found = await self._look_up(host, port)
        addresses = tuple(dict.fromkeys((family, sockaddr) for family, *_, sockaddr in found))
        now = trio.current_time()
        # Whatever is no longer fresh goes: the addresses that cancels travel to are asked for here, too.
        self._known = {asked: entry for asked, entry in self._known.items() if now < entry[0]}
        self._known[host, port] = now + FRESH, addresses
        return addresses

    async def _look_up(self, host: str, port: int) -> list[tuple[Any, ...]]:
        if self._limiter is None:
            return [*await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)]
        with suppress(socket.gaierror):  # an address waits for nobody
            return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]
        asked = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return [*await trio.to_thread.run_sync(asked, abandon_on_cancel=True, limiter=self._limiter)]

    def forget(self, host: str, port: int) -> None:
        """Ask the resolver next time: these addresses did not take us, and the name may have others by now."""
        self._known.pop((host, port), None)
