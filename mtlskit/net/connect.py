"""A TCP connection to a host: the name first, then its addresses, each with a head start on the next (RFC 8305).

The two steps are told apart, because a resolver that does not answer and a firewall that drops packets look the same
from further away and are mended in different places.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import AddressFamily
from typing import Any, TypeAlias

import trio

from mtlskit.config.values import Endpoint
from mtlskit.net.faults import dns_fault, tcp_fault

__all__ = ["connect_tcp"]

_Address: TypeAlias = tuple[AddressFamily, Any]
"""As getaddrinfo(3) gives it: a link-local one of IPv6 has its interface in it (RFC 4007 section 11)."""

_EYEBALLS_DELAY = 0.25
"""Seconds before the next address is tried beside the first (RFC 8305 section 5)."""


async def connect_tcp(
    host: str, port: int, endpoint: Endpoint, on_resolved: Callable[[], None]
) -> trio.socket.SocketType:
    """Connect to the first address of `host` that takes us; `on_resolved` is called when the addresses are known.

    `endpoint` is what the errors name. Raises UpstreamUnreachable, UpstreamTimeout or UpstreamLost; has no deadline.
    """
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except OSError as exc:
        raise dns_fault(endpoint.host, exc) from exc
    on_resolved()
    addresses = _alternating([(family, sockaddr) for family, *_, sockaddr in found])
    race = _Race()
    try:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                lost = trio.Event()
                nursery.start_soon(race.run, address, lost, nursery.cancel_scope)
                with trio.move_on_after(_EYEBALLS_DELAY):
                    await lost.wait()
    except BaseException:
        if race.winner is not None:
            race.winner.close()
        raise
    if race.winner is None:
        raise tcp_fault(str(endpoint), race.failures[0])
    return race.winner


class _Race:
    """The addresses of one name, in competition."""

    def __init__(self) -> None:
        self.winner: trio.socket.SocketType | None = None
        self.failures: list[OSError] = []

    async def run(self, address: _Address, lost: trio.Event, scope: trio.CancelScope) -> None:
        try:
            sock = await open_socket(*address)
        except OSError as exc:
            self.failures.append(exc)
            lost.set()
            return
        if self.winner is None:
            self.winner = sock
            scope.cancel()
        else:
            sock.close()


async def open_socket(family: AddressFamily, sockaddr: Any) -> trio.socket.SocketType:
    """Connect to one address. Raises OSError.

    `trio.open_tcp_stream` would look the address up again and open a nursery of its own: a tenth of the CPU that a new
    session costs.
    """
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        await sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


def _alternating(addresses: list[_Address]) -> list[_Address]:
    """In the resolver's order, but the first of the other family second: one family may lead nowhere altogether."""
    addresses = list(dict.fromkeys(addresses))
    other = next((address for address in addresses if address[0] != addresses[0][0]), None)
    if other is not None:
        addresses.remove(other)
        addresses.insert(1, other)
    return addresses
