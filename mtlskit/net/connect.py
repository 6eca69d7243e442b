"""A TCP connection to a host: the name first, then its addresses, each with a head start on the next (RFC 8305).

The two steps are told apart, because a resolver that does not answer and a firewall that drops packets look the same
from further away and are mended in different places.

A `source` is the local address that the connection starts from, for a host with several ways out: an allowlist knows
only one of them. It belongs to one family, so the addresses of the other are left out.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from socket import AddressFamily
from typing import Any, Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.errors import Code, UpstreamUnreachable
from mtlskit.net.faults import dns_fault, source_fault, tcp_fault
from mtlskit.net.names import Address, Names

__all__ = ["SourceRefusedError", "connect_tcp", "family_of", "open_socket", "reachable_from"]

_EYEBALLS_DELAY = 0.25
"""Seconds before the next address is tried beside the first (RFC 8305 section 5)."""

_LATE_PORT: Final = getattr(socket, "IP_BIND_ADDRESS_NO_PORT", 24 if sys.platform == "linux" else None)
"""An option of ip(7): bind to the address now, and take a port when the destination is known. Without it a source
address has room for some 28,000 connections in all, with it for as many to each server. Named since Python 3.12."""


async def connect_tcp(
    host: str,
    port: int,
    endpoint: Endpoint,
    names: Names,
    on_resolved: Callable[[], None],
    source: str | None = None,
) -> trio.socket.SocketType:
    """Connect to the first address of `host` that takes us; `on_resolved` is called when the addresses are known.

    `endpoint` is what the errors name, `source` the IP address to start from. Raises UpstreamUnreachable,
    UpstreamTimeout or UpstreamLost; has no deadline.
    """
    try:
        addresses = await names.addresses(host, port)
    except OSError as exc:
        raise dns_fault(endpoint.host, exc) from exc
    on_resolved()
    if source is not None:
        addresses = reachable_from(source, addresses, endpoint)
    try:
        if len(addresses) == 1:
            # As most names have it; a race of one would be a twentieth of the CPU of a new session.
            return await open_socket(*addresses[0], source)
        return await _race(addresses, source)
    except SourceRefusedError as exc:
        raise source_fault(str(endpoint), source or "", exc) from exc
    except OSError as exc:
        names.forget(host, port)
        raise tcp_fault(str(endpoint), exc) from exc
    except BaseException:  # nobody has answered in time: a Cancelled, or a group of them
        names.forget(host, port)
        raise


def family_of(source: str) -> AddressFamily:
    """The family of an IP address."""
    return AddressFamily.AF_INET6 if ip_address(source).version == 6 else AddressFamily.AF_INET


def reachable_from(source: str, addresses: Sequence[Address], endpoint: Endpoint) -> tuple[Address, ...]:
    """Those of the family of `source`. Raises UpstreamUnreachable where there are none."""
    family = family_of(source)
    fitting = tuple(address for address in addresses if address[0] == family)
    if not fitting:
        kind = "IPv6" if family == AddressFamily.AF_INET6 else "IPv4"
        raise UpstreamUnreachable(
            Code.TCP_UNREACHABLE,
            f"{endpoint} has no {kind} address, and connections to it start from {source}",
            "set `source` to an address of the other family, or leave it out",
        )
    return fitting


async def _race(addresses: Sequence[Address], source: str | None) -> trio.socket.SocketType:
    """The first of several to connect. Raises the OSError of the first that refused, if all do."""
    race = _Race(source)
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

    def __init__(self, source: str | None) -> None:
        self._source = source
        self.winner: trio.socket.SocketType | None = None
        self.failures: list[OSError] = []

    async def run(self, address: Address, lost: trio.Event, scope: trio.CancelScope) -> None:
        try:
            sock = await open_socket(*address, self._source)
        except OSError as exc:
            self.failures.append(exc)
            lost.set()
            return
        if self.winner is None:
            self.winner = sock
            scope.cancel()
        else:
            sock.close()


class SourceRefusedError(OSError):
    """The system does not let a connection start from this address."""


async def open_socket(family: AddressFamily, sockaddr: Any, source: str | None = None) -> trio.socket.SocketType:
    """Connect to one address, from `source` if there is one. Raises OSError.

    `trio.open_tcp_stream` would look the address up again and open a nursery of its own: a tenth of the CPU that a new
    session costs.
    """
    sock = trio.socket.socket(family, trio.socket.SOCK_STREAM)
    try:
        if source is not None:
            await _start_from(sock, source)
        await sock.connect(sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def _start_from(sock: trio.socket.SocketType, source: str) -> None:
    if _LATE_PORT is not None:
        with suppress(OSError):  # without it a port is taken at once, which only matters in great number
            sock.setsockopt(socket.IPPROTO_IP, _LATE_PORT, 1)
    try:
        await sock.bind((source, 0))
    except OSError as exc:
        raise SourceRefusedError(exc.errno, exc.strerror) from exc


def _alternating(addresses: Sequence[Address]) -> list[Address]:
    """In the resolver's order, but the first of the other family second: one family may lead nowhere altogether."""
    ordered = list(addresses)
    other = next((address for address in ordered if address[0] != ordered[0][0]), None)
    if other is not None:
        ordered.remove(other)
        ordered.insert(1, other)
    return ordered
