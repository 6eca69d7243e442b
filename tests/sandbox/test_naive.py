"""The naive bridge fails with SCRAM where the real server offers channel binding: the reason why mtlskit strips it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import psycopg
import pytest
import trio

from mtlskit.config.values import Endpoint, TcpAddress
from mtlskit.sandbox.naive import run_naive_bridge
from tests.support.space import RunningSpace


@asynccontextmanager
async def bridge(live: RunningSpace, upstream: Endpoint) -> AsyncIterator[TcpAddress]:
    space = live.space
    async with trio.open_nursery() as nursery:
        run = partial(run_naive_bridge, upstream, ca=space.ca, cert=space.client.cert, key=space.client.key)
        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


def gateway_of(live: RunningSpace) -> Endpoint:
    return Endpoint(live.space.gateway_address.host, live.space.gateway_address.port)


async def failure_through(address: TcpAddress, live: RunningSpace, **changes: Any) -> str:
    """What libpq says when it connects through the bridge with a plain leg."""
    parameters = live.parameters(host=address.host, port=address.port, **changes)

    def connect() -> str:
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(**parameters)
        return str(caught.value)

    return await trio.to_thread.run_sync(connect)


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
async def test_libpq_gives_up_at_the_offer(live: RunningSpace, sslmode: str) -> None:
    async with bridge(live, gateway_of(live)) as address:
        told = await failure_through(address, live, sslmode=sslmode)
    assert "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection" in told


async def test_sslmode_require_cannot_be_served(live: RunningSpace) -> None:
    async with bridge(live, gateway_of(live)) as address:
        told = await failure_through(address, live, sslmode="require")
    assert "server does not support SSL" in told


async def test_a_server_that_is_not_there(live: RunningSpace) -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    async with bridge(live, Endpoint("127.0.0.1", port)) as address:
        told = await failure_through(address, live, sslmode="disable")
    assert "cannot be reached" in told


async def test_a_server_without_tls(live: RunningSpace) -> None:
    async def decline(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"N")

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, decline, 0)
        async with bridge(live, Endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])) as address:
            assert "offers no TLS" in await failure_through(address, live, sslmode="disable")
        nursery.cancel_scope.cancel()


async def test_rubbish_ends_only_its_own_connection(live: RunningSpace) -> None:
    async with bridge(live, gateway_of(live)) as address:
        stream = await trio.open_tcp_stream(address.host, address.port)
        async with stream:
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b""
        assert "SCRAM-SHA-256-PLUS" in await failure_through(address, live, sslmode="disable")
