"""What names have led to a moment ago, so that a burst of connections asks the resolver once.

getaddrinfo(3) blocks, so each lookup takes a thread, and it reads its configuration anew: even for a name in /etc/hosts
a tenth of the CPU of a new session. Resolvers keep an answer for as long as its record says, which is seconds or
minutes; the one second here comes on top, and ends at once when no address takes us.
"""

from __future__ import annotations

from socket import AddressFamily
from typing import Any, TypeAlias

import trio

__all__ = ["FRESH", "Address", "Names"]

Address: TypeAlias = tuple[AddressFamily, Any]
"""As getaddrinfo(3) gives it: a link-local one of IPv6 has its interface in it (RFC 4007 section 11)."""

FRESH = 1.0
"""Seconds for which an answer is used again."""


class Names:
    """Looks names up, and remembers what they led to for `FRESH` seconds. Failures are not remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, tuple[Address, ...]]] = {}
        """With the time until which it is fresh."""

    async def addresses(self, host: str, port: int) -> tuple[Address, ...]:
        """The addresses of `host`, at least one, in the resolver's order. Raises OSError; has no deadline."""
        known = self._known.get((host, port))
        if known is not None and trio.current_time() < known[0]:
            return known[1]
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
        addresses = tuple(dict.fromkeys((family, sockaddr) for family, *_, sockaddr in found))
        now = trio.current_time()
        # Whatever is no longer fresh goes: the addresses that cancels travel to are asked for here, too.
        self._known = {asked: entry for asked, entry in self._known.items() if now < entry[0]}
        self._known[host, port] = now + FRESH, addresses
        return addresses

    def forget(self, host: str, port: int) -> None:
        """Ask the resolver next time: these addresses did not take us, and the name may have others by now."""
        self._known.pop((host, port), None)
