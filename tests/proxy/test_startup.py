"""A client's first packets: in any order and number within reason, early, late, or not Postgres at all."""

from __future__ import annotations

import re
import struct

import pytest
import trio

from mtlskit.config.values import Endpoint, Timeouts
from mtlskit.proxy.events import ClientLeft, ClientRefused, ClientWantsTls, SessionOpened
from mtlskit.telemetry import Level
from mtlskit.wire.postgres.messages import GSSENC_REQUEST, SSL_REQUEST, frame, startup_message
from tests.support.fake_upstream import (
    PARAMETER,
    READY,
    WELCOME,
    Papers,
    ServerSide,
    backend_key,
    echo,
    fake_upstream,
)
from tests.support.tunnels import STARTUP, running_proxy, tunnel

QUERY = frame(b"Q", b"select 1\0")
ANSWER = frame(b"D", b"select 1\0") + READY


@pytest.mark.parametrize(
    "requests",
    [
        (),
        (SSL_REQUEST,),
        (GSSENC_REQUEST,),
        (GSSENC_REQUEST, SSL_REQUEST),
        (SSL_REQUEST, GSSENC_REQUEST),
        (SSL_REQUEST, SSL_REQUEST, GSSENC_REQUEST, GSSENC_REQUEST),
    ],
)
async def test_encryption_is_declined_as_often_as_it_is_asked_for(papers: Papers, requests: tuple[bytes, ...]) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        for request in requests:
            await client.send(request)
            assert await client.read_exactly(1) == b"N"
        assert [message.kind for message in await client.login()] == [b"R", b"S", b"K", b"Z"]


async def test_a_fifth_request_for_encryption_is_refused_in_the_protocol(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.send(SSL_REQUEST * 5)
        assert await client.read_exactly(4) == b"NNNN"
        assert (await client.error()).sqlstate == "08P01"
        assert upstream.connections == 0


@pytest.mark.parametrize("version", [(3, 0), (3, 2)])
async def test_the_start_up_message_reaches_the_server_as_it_came(papers: Papers, version: tuple[int, int]) -> None:
    packet = startup_message({"user": "ann", "database": "sales", "_pq_.unheard_of": "1"}, version)
    got: list[bytes] = []

    async def script(server: ServerSide) -> None:
        got.append(await server.open())
        await server.send(WELCOME)
        await echo(server)

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.login(packet)
    assert got == [packet]


async def test_a_negotiated_version_and_a_long_cancel_key_reach_the_client_unchanged(papers: Papers) -> None:
    negotiated = frame(b"v", struct.pack("!II", 196608, 1) + b"_pq_.unheard_of\0")
    welcome = negotiated + frame(b"R", b"\0\0\0\0") + PARAMETER + backend_key(4711, bytes(range(256))) + READY

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(welcome)
        await echo(server)

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        messages = await client.login(startup_message({"user": "ann"}, (3, 2)))
        assert b"".join(frame(message.kind, message.body) for message in messages) == welcome


async def test_what_a_client_sends_without_waiting_is_not_lost(papers: Papers) -> None:
    """Password and first query in the packet of the StartupMessage, as a pipelining pool does."""
    password = frame(b"p", b"secret\0")
    got: list[bytes] = []

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(frame(b"R", struct.pack("!I", 3)))
        got.append(await server.read_exactly(len(password)))
        await server.send(WELCOME)
        await echo(server)

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.send(STARTUP + password + QUERY)
        messages = await client.until_ready()
        assert [message.kind for message in messages] == [b"R", b"R", b"S", b"K", b"Z"]
        assert await client.read_exactly(len(ANSWER)) == ANSWER
    assert got == [password]


async def test_bytes_around_the_hand_over_keep_their_order_in_both_directions(papers: Papers) -> None:
    """The server pushes rows right behind ReadyForQuery while the client pushes queries: megabytes cross the seam."""
    down = b"".join(frame(b"D", bytes([i % 251]) * 50_000) for i in range(60))
    up = b"".join(frame(b"Q", bytes([i % 241]) * 30_000) for i in range(60))
    got: list[bytes] = []
    received = trio.Event()

    async def script(server: ServerSide) -> None:
        await server.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.send, WELCOME + down)
            got.append(await server.read_exactly(len(up)))
            received.set()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(client.send, STARTUP + up)
        await client.until_ready()
        assert await client.read_exactly(len(down)) == down
        await received.wait()
    assert got == [up]


async def test_a_slow_starter_is_cut_off_and_nobody_waits_for_it(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, timeouts=Timeouts(startup=1.5))) as running,
        running.connect() as slow,
        running.connect() as other,
    ):
        await slow.send(SSL_REQUEST + STARTUP[:-1])
        assert await slow.read_exactly(1) == b"N"
        await other.login()
        assert not running.events.of(ClientRefused)
        error = await slow.error()
        assert (error.sqlstate, "MTLS-PG-006" in error.message) == ("08006", True)
        assert (await running.events.wait_for(ClientRefused)).code == "MTLS-PG-006"
        assert upstream.connections == 1


@pytest.mark.parametrize("leave_with_reset", [False, True])
async def test_a_port_check_is_not_worth_a_warning(papers: Papers, leave_with_reset: bool) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        async with running.connect() as client:
            if leave_with_reset:
                client.reset()
        await running.events.wait_for(ClientLeft)
        assert not running.events.of(ClientRefused)
        assert upstream.connections == 0


@pytest.mark.parametrize(
    ("opening", "code", "sqlstate"),
    [
        (struct.pack("!II", 20_000, 196608), "MTLS-PG-001", "08P01"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "MTLS-PG-002", None),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "MTLS-PG-003", None),
        (b"\x80rubbish", "MTLS-PG-004", "08P01"),
        (struct.pack("!II", 8, 131072), "MTLS-PG-005", "0A000"),
    ],
)
async def test_what_is_not_postgres_is_refused_at_once(
    papers: Papers, opening: bytes, code: str, sqlstate: str | None
) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.send(opening)
        if sqlstate is None:
            assert await client.read_to_end() == b""
        else:
            assert (await client.error()).sqlstate == sqlstate
        refused = await running.events.wait_for(ClientRefused)
        assert (refused.code, upstream.connections) == (code, 0)
        assert re.fullmatch(r"127\.0\.0\.1:\d+", refused.client)


@pytest.mark.parametrize("requests", [(SSL_REQUEST,), (GSSENC_REQUEST, SSL_REQUEST), (GSSENC_REQUEST,)])
async def test_a_client_that_insists_on_tls_is_told_of(papers: Papers, requests: tuple[bytes, ...]) -> None:
    """libpq closes the connection in silence when sslmode=require meets an `N`."""
    async with running_proxy(tunnel(papers, Endpoint("127.0.0.1", 1))) as running:
        async with running.connect() as client:
            for request in requests:
                await client.send(request)
                assert await client.read_exactly(1) == b"N"
        await running.idle()
        if SSL_REQUEST not in requests:
            assert (len(running.events.of(ClientLeft)), running.events.of(ClientWantsTls)) == (1, [])
            return
        [told] = running.events.of(ClientWantsTls)
        assert told.level is Level.INFO
        assert re.fullmatch(
            r"reporting: 127\.0\.0\.1:\d+ asked for TLS, was told no, and left:"
            " set sslmode=disable or prefer in the client",
            told.sentence(),
        )
        assert not running.events.of(ClientLeft)


async def test_names_from_a_client_reach_the_events_bounded(papers: Papers) -> None:
    startup = startup_message({"user": "u" * 5000, "database": "d\n\x1b[31m" + "d" * 4000})
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.login(startup)
        opened = running.events.of(SessionOpened)[0]
        assert (len(opened.user), len(opened.database)) == (128, 128)
