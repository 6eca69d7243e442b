"""A TCP connection to a host: the name first, then its addresses, each with a head start on the next (RFC 8305).

The two steps are told apart, because a resolver that does not answer and a firewall that drops packets look the same
from further away and are mended in different places.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from mtlskit.config.values import Endpoint
from mtlskit.net.faults import dns_fault, tcp_fault

__all__ = ["connect_tcp"]

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
    race = _Race()
    try:
        async with trio.open_nursery() as nursery:
            for address in _alternating([_numeric(*sockaddr) for *_, sockaddr in found]):
                lost = trio.Event()
                nursery.start_soon(race.run, address, port, lost, nursery.cancel_scope)
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

    async def run(self, address: str, port: int, lost: trio.Event, scope: trio.CancelScope) -> None:
        try:
            stream = await trio.open_tcp_stream(address, port)
        except OSError as exc:
            self.failures.append(_first_cause(exc))
            lost.set()
            return
        if self.winner is None:
            self.winner = stream.socket
            scope.cancel()
        else:
            stream.socket.close()


def _numeric(address: str | int, _port: str | int, _flow: int = 0, scope: int = 0) -> str:
    """The address as text. A link-local one means nothing without its interface (RFC 4007 section 11)."""
    return f"{address}%{scope}" if scope else str(address)


def _alternating(addresses: list[str]) -> list[str]:
    """In the resolver's order, but the first of the other family second: one family may lead nowhere altogether."""
    addresses = list(dict.fromkeys(addresses))
    other = next((address for address in addresses if (":" in address) != (":" in addresses[0])), None)
    if other is not None:
        addresses.remove(other)
        addresses.insert(1, other)
    return addresses


def _first_cause(exc: OSError) -> OSError:
    """Trio wraps the failure of an address in an exception group."""
    cause = exc.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause if isinstance(cause, OSError) else exc
