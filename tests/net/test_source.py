"""Connections that start from a given address of this host."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from mtlskit.config.values import Endpoint, Negotiation, TunnelKind
from mtlskit.errors import Code, UpstreamUnreachable
from mtlskit.net.connect import connect_tcp
from mtlskit.net.dial import Dialler
from mtlskit.net.names import Names

BOTH = ("::1", "127.0.0.1")


class _BothFamilies(trio.abc.HostnameResolver):
    """A name with an address of each family, as localhost has in many places."""

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, *_: Any, **__: Any) -> Any:
        found = [
            (trio.socket.AF_INET6, trio.socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        return [one for one in found if family in (0, one[0])]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@pytest.fixture
async def both_families() -> None:
    trio.socket.set_custom_hostname_resolver(_BothFamilies())


async def _connect(port: int, source: str, host: str = "127.0.0.1") -> trio.socket.SocketType:
    return await connect_tcp(host, port, Endpoint(host, port), Names(), lambda: None, source)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.77"])
async def test_the_other_side_sees_it(source: str) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        # More than one at once: what the source takes is an address, not a port of its own for good.
        with await _connect(port, source), await _connect(port, source):
            for _ in range(2):
                async with await listener.accept() as stream:
                    assert stream.socket.getpeername()[0] == source


async def test_addresses_of_the_other_family_are_left_out(both_families: None) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        with await _connect(port, "127.0.0.77", host="db.invalid") as sock:
            assert sock.getpeername()[0] == "127.0.0.1"


async def test_a_source_that_fits_no_address_is_told() -> None:
    with pytest.raises(UpstreamUnreachable) as caught:
        await _connect(5432, "::1")
    assert caught.value.code is Code.TCP_UNREACHABLE
    assert caught.value.sentence == "127.0.0.1:5432 has no IPv6 address, and connections to it start from ::1"


@pytest.mark.parametrize("host", ["127.0.0.1", "db.invalid"])
async def test_a_source_that_is_not_ours_is_told(host: str, both_families: None) -> None:
    with pytest.raises(UpstreamUnreachable) as caught:
        await _connect(5432, "192.0.2.1", host=host)
    assert caught.value.sentence.startswith(f"no connection to {host}:5432 can start from 192.0.2.1: ")
    assert "ip address" in caught.value.hint


@pytest.mark.parametrize(("source", "families"), [(None, BOTH), ("127.0.0.77", BOTH[1:]), ("::1", BOTH[:1])])
async def test_a_cancel_travels_only_where_it_can(
    source: str | None, families: tuple[str, ...], both_families: None
) -> None:
    endpoints = (Endpoint("db.invalid", 5432),)
    dialler = Dialler(TunnelKind.POSTGRES, endpoints, Negotiation.SSLREQUEST, (), 20.0, source=source)
    assert {route.address for route in await dialler.resolve()} == set(families)
