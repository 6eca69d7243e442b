"""Connections made in advance, as a tunnel has them: used, renewed, counted, and gone with it."""

from __future__ import annotations

import shutil
import socket
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.net.dial import Dialler, Upstream
from mtlskit.proxy.events import (
    SessionCrashed,
    TunnelFailed,
    WarmCounted,
    WarmFailed,
    WarmRecovered,
)
from mtlskit.telemetry import Level
from mtlskit.wire.postgres.messages import frame
from tests.support.fake_upstream import WELCOME, Papers, ServerSide, echo, fake_upstream
from tests.support.tunnels import STARTUP, running_proxy, tunnel
from tests.support.warm_peers import until
from tests.support.warm_tunnels import Logins, openings, pool_of, warmed, works


async def test_a_login_on_a_connection_made_in_advance(papers: Papers) -> None:
    logins = Logins()
    async with warmed(papers, logins) as (running, _), running.connect() as client:
        await client.login()
        await works(client)
        assert openings(running) == [True]
        assert logins.startups == [STARTUP]
        assert (pool_of(running).counts.hits, pool_of(running).counts.replayed) == (1, 0)


async def test_what_died_while_it_waited_is_not_used(papers: Papers) -> None:
    dead = trio.Event()
    logins = Logins()

    async def script(server: ServerSide) -> None:
        if dead.is_set():
            await logins(server)
        else:
            await server.begin_tls()
            await dead.wait()

    async with warmed(papers, script) as (running, upstream):
        dead.set()
        await upstream.all_closed()
        async with running.connect() as client:
            await client.login()
            await works(client)
        assert openings(running) == [False]
        counts = pool_of(running).counts
        assert (counts.hits, counts.misses, counts.dead, counts.replayed) == (0, 1, 1, 0)


async def test_a_reload_renews_what_waits(own_papers: Papers) -> None:
    names: list[str | None] = []

    async def script(server: ServerSide) -> None:
        await server.open()
        names.append(server.client_name)
        await server.send(WELCOME)
        await echo(server)

    async with warmed(own_papers, script) as (running, _):
        own_papers.renew_client("renewed")
        await running.proxy.reload()
        await until(lambda: len(pool_of(running)) == 1)
        async with running.connect() as client:
            await client.login()
        assert names == ["renewed"]
        assert openings(running) == [True]


async def test_a_stop_closes_what_waits_and_tells_the_counts(papers: Papers) -> None:
    async with warmed(papers, Logins()) as (running, upstream), running.connect() as client:
        await client.login()
        await until(lambda: len(pool_of(running)) == 1)
        assert upstream.open == 2
        running.proxy.stop()
        counted = await running.events.wait_for(WarmCounted)
        assert (counted.hits, counted.misses, counted.made, counted.dropped, counted.failed) == (1, 0, 2, 1, 0)
        await until(lambda: upstream.open == 1)
        await works(client)  # the session goes on
        await client.send(frame(b"X", b""))
        assert await client.read_to_end() == b""


async def test_a_fault_of_ours_costs_the_connections_in_advance_and_not_the_tunnel(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    dial, faulty = Dialler.dial, trio.Event()

    async def fails_once(self: Dialler, identity: Any) -> Upstream:
        if not faulty.is_set():
            faulty.set()
            raise ValueError("a certificate that nobody can read")
        return await dial(self, identity)

    monkeypatch.setattr(Dialler, "dial", fails_once)
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, warm=3)) as running,
    ):
        crash = await running.events.wait_for(SessionCrashed)
        assert "a certificate that nobody can read" in crash.traceback
        await running.events.wait_for(WarmCounted)
        async with running.connect() as client:
            await client.login()
            await works(client)
        assert openings(running) == [False]


async def test_a_server_that_is_not_trusted_is_told_before_a_client_comes(papers: Papers, own_papers: Papers) -> None:
    """And, once it is, that all is well. The other authority's certificate takes the place of the right one."""
    async with fake_upstream(papers) as upstream:
        config = tunnel(own_papers, upstream.endpoint, warm=1)
        async with running_proxy(config) as running:
            failed = await running.events.wait_for(WarmFailed)
            assert (failed.tunnel, failed.code[:9], failed.level) == ("reporting", "MTLS-TLS-", Level.WARNING)
            assert failed.hint
            assert failed.sentence().startswith("reporting: no connections in advance for now: ")
            assert failed.code in failed.sentence()
            assert not running.events.of(WarmRecovered)
            for path in ("cert", "key", "ca"):
                shutil.copyfile(getattr(papers.identity, path), getattr(own_papers.identity, path))
            await running.proxy.reload()
            recovered = await running.events.wait_for(WarmRecovered)
            assert (recovered.tunnel, recovered.level) == ("reporting", Level.INFO)
            assert len(running.events.of(WarmFailed)) == 1


async def test_a_tunnel_whose_listener_breaks_keeps_nothing_ready(papers: Papers) -> None:
    async with warmed(papers, Logins()) as (running, upstream):
        listener = running.proxy.tunnels[0]._listener
        assert listener is not None
        listener._sockets[0][0].shutdown(socket.SHUT_RDWR)  # from here on accept(2) says EINVAL
        await running.events.wait_for(TunnelFailed)
        await upstream.all_closed()
        assert len(running.events.of(WarmCounted)) == 1
        await running.proxy.reload()
        await until(lambda: len(pool_of(running)) == 1)


async def test_without_warm_nothing_is_made(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.login()
        assert upstream.connections == 1
        assert not running.events.of(WarmCounted)
