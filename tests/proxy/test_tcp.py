"""Tunnels without a protocol: bytes both ways, and a log that says what cannot be said to the client."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest
import trio

from mtlskit.config.values import TunnelKind
from mtlskit.pki.authority import Authority
from mtlskit.proxy.events import SessionBroken, SessionClosed, SessionFailed
from tests.support.fake_upstream import Papers, ServerSide, fake_upstream, nobody_listens
from tests.support.tunnels import running_proxy, tunnel


async def test_bytes_go_both_ways_and_a_half_close_does_not_end_the_answer(papers: Papers) -> None:
    got: list[bytes] = []

    async def script(server: ServerSide) -> None:
        await server.shake_hands()
        got.append(await server.until_closed())
        await server.send(b"answer" * 1000)
        await server.close_notify()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, kind=TunnelKind.TCP)) as running,
    ):
        async with running.connect() as client:
            await client.send(b"question" * 1000)
            await client.stream.send_eof()
            assert await client.read_to_end() == b"answer" * 1000
        closed = await running.events.wait_for(SessionClosed)
        assert (closed.bytes_up, closed.bytes_down, closed.user) == (8000, 6000, "")
        assert not running.events.of(SessionBroken)
    assert got == [b"question" * 1000]


async def test_an_upstream_that_refuses_connections_is_told_to_the_log(papers: Papers) -> None:
    async with (
        nobody_listens() as endpoint,
        running_proxy(tunnel(papers, endpoint, kind=TunnelKind.TCP)) as running,
        running.connect() as client,
    ):
        assert await client.read_to_end() == b""
        assert (await running.events.wait_for(SessionFailed)).code == "MTLS-NET-002"


async def test_an_alert_after_the_handshake_is_told_to_the_log(papers: Papers) -> None:
    """Nobody else would ever learn that the server refused our certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.folder / "server.pem", papers.folder / "server.key")
    stranger = Authority.create("another CA", now=datetime.now(UTC))
    context.load_verify_locations(cadata=stranger.cert_pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED

    async def script(server: ServerSide) -> None:
        await server.refuse_in_handshake()
        await server.until_closed()

    async with (
        fake_upstream(papers, script, context=context) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, kind=TunnelKind.TCP)) as running,
    ):
        async with running.connect() as client:
            with pytest.raises(trio.BrokenResourceError):  # not a clean end: the stream was cut off
                await client.read_to_end()
        broken = await running.events.wait_for(SessionBroken)
        assert (broken.code, broken.tunnel) == ("MTLS-TLS-010", "reporting")
        assert broken.hint
        assert (await running.events.wait_for(SessionClosed)).ending == "upstream_alert"


async def test_rubbish_in_the_middle_of_a_session_is_told_to_the_log(papers: Papers) -> None:
    async def script(server: ServerSide) -> None:
        await server.shake_hands()
        await server.send(b"hello")
        await server.read_exactly(1)
        await server.raw.send_all(b"this is no TLS record, and never was one")
        await server.raw.send_eof()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, kind=TunnelKind.TCP)) as running,
    ):
        async with running.connect() as client:
            assert await client.read_exactly(5) == b"hello"
            await client.send(b"!")
            with pytest.raises(trio.BrokenResourceError):
                await client.read_to_end()
        assert (await running.events.wait_for(SessionBroken)).code == "MTLS-TLS-017"


async def test_a_reset_of_the_upstream_is_told_to_the_log(papers: Papers) -> None:
    async def script(server: ServerSide) -> None:
        await server.shake_hands()
        await server.send(b"hello")
        await server.read_exactly(1)
        server.reset()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, kind=TunnelKind.TCP)) as running,
    ):
        async with running.connect() as client:
            assert await client.read_exactly(5) == b"hello"
            await client.send(b"!")
            with pytest.raises(trio.BrokenResourceError):
                await client.read_to_end()
        assert (await running.events.wait_for(SessionBroken)).code == "MTLS-NET-005"
        assert (await running.events.wait_for(SessionClosed)).ending == "upstream_lost"
