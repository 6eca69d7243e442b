"""A TCP connection to a host: the name first, then its addresses, each with a head start on the next (RFC 8305).

The two steps are told apart, because a resolver that does not answer and a firewall that drops packets look the same
from further away and are mended in different places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from socket import AddressFamily
from typing import Any

import trio

from mtlskit.config.values import Endpoint
from mtlskit.net.faults import dns_fault, tcp_fault
from mtlskit.net.names import Address, Names

__all__ = ["connect_tcp"]

_EYEBALLS_DELAY = 0.25
"""Seconds before the next address is tried beside the first (RFC 8305 section 5)."""


async def connect_tcp(
    host: str, port: int, endpoint: Endpoint, names: Names, on_resolved: Callable[[], None]
) -> trio.socket.SocketType:
    """Connect to the first address of `host` that takes us; `on_resolved` is called when the addresses are known.

    `endpoint` is what the errors name. Raises UpstreamUnreachable, UpstreamTimeout or UpstreamLost; has no deadline.
    """
    try:
        addresses = await names.addresses(host, port)
    except OSError as exc:
        raise dns_fault(endpoint.host, exc) from exc
    on_resolved()
    try:
        if len(addresses) == 1:
            # As most names have it; a race of one would be a twentieth of the CPU of a new session.
            return await open_socket(*addresses[0])
        return await _race(addresses)
    except OSError as exc:
        names.forget(host, port)
        raise tcp_fault(str(endpoint), exc) from exc
    except BaseException:  # nobody has answered in time: a Cancelled, or a group of them
        names.forget(host, port)
        raise


async def _race(addresses: Sequence[Address]) -> trio.socket.SocketType:
    """The first of several to connect. Raises the OSError of the first that refused, if all do."""
    race = _Race()
    try:
        async with trio.open_nursery() as nursery:
            for address in _alternating(addresses):
                lost = trio.Event()
                nursery.start_soon(race.run, address, lost, nursery.cancel_scope)
                with trio.move_on_after(_EYEBALLS_DELAY):
                    await lost.wait()
    except BaseException:
        if race.winner is not None:
            race.winner.close()
        raise
    if race.winner is None:
        raise race.failures[0]
    return race.winner


class _Race:
    """The addresses of one name, in competition."""

    def __init__(self) -> None:
        self.winner: trio.socket.SocketType | None = None
        self.failures: list[OSError] = []

    async def run(self, address: Address, lost: trio.Event, scope: trio.CancelScope) -> None:
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


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """In the resolver's order, but the first of the other family second: one family may lead nowhere altogether."""
    ordered = list(addresses)
    other = next((address for address in ordered if address[0] != ordered[0][0]), None)
    if other is not None:
        ordered.remove(other)
        ordered.insert(1, other)
    return ordered
