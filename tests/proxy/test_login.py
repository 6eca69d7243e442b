"""The login seen from the middle: what is rewritten, and what becomes of it when either side leaves."""

from __future__ import annotations

import struct

import pytest
import trio

from mtlskit.config.values import Timeouts
from mtlskit.proxy.events import ClientLeft, LoginRefused, SessionClosed, SessionFailed, SessionOpened
from mtlskit.wire.postgres.messages import authentication_sasl, error_response, frame, parse_error_fields
from tests.support.fake_upstream import READY, WELCOME, Papers, ServerSide, backend_key, echo, fake_upstream
from tests.support.tunnels import STARTUP, running_proxy, tunnel

OFFER = authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
STRIPPED = authentication_sasl(["SCRAM-SHA-256"])


async def test_plus_is_stripped_wherever_the_reads_split_the_offer(papers: Papers) -> None:
    splits = iter(range(1, len(OFFER)))

    async def script(server: ServerSide) -> None:
        at = next(splits)
        await server.open()
        await server.send_in_pieces(OFFER[:at], OFFER[at:])
        assert await server.read_exactly(len(OFFER)) == OFFER  # the client sends it back: the way up is untouched
        await server.send(WELCOME)
        await echo(server)

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        for _ in range(1, len(OFFER)):
            async with running.connect() as client:
                await client.send(STARTUP)
                assert await client.read_exactly(len(STRIPPED)) == STRIPPED
                await client.send(OFFER)
                await client.until_ready()
    assert next(splits, None) is None


async def test_a_refusal_of_the_server_passes_unchanged_and_is_told(papers: Papers) -> None:
    full = error_response(sqlstate="53300", message="sorry, too many clients already\n\x1b[31mforged")

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(full)
        await server.close_notify()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        async with running.connect() as client:
            await client.send(STARTUP)
            assert await client.read_to_end() == full
        refused = await running.events.wait_for(LoginRefused)
        assert (refused.sqlstate, refused.user, refused.database) == ("53300", "ann", "sales")
        assert (await running.events.wait_for(SessionClosed)).ending == "upstream_closed"
        assert not running.events.of(SessionFailed)


async def test_an_error_in_the_middle_of_a_message_is_not_answered(papers: Papers) -> None:
    """An ErrorResponse put into the middle of a notice would be read as its text."""
    notice = frame(b"N", b"SNOTICE\0M" + b"x" * 100 + b"\0\0")

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(notice[:40])

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.send(STARTUP)
        assert await client.read_to_end() == notice[:40]
        assert (await running.events.wait_for(SessionFailed)).code == "MTLS-NET-006"


async def test_good_messages_before_a_fault_come_first(papers: Papers) -> None:
    notice = frame(b"N", b"SNOTICE\0Mhello\0\0")

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(notice + b"!rubbish")
        await server.until_closed()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.send(STARTUP)
        assert await client.read_exactly(len(notice)) == notice
        error = await client.error()
        assert (error.sqlstate, "MTLS-PG-008" in error.message) == ("08P01", True)


async def test_a_client_that_asks_its_user_for_a_password_leaves_quietly(papers: Papers) -> None:
    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(frame(b"R", struct.pack("!I", 3)))
        await server.until_closed()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        async with running.connect() as client:
            await client.send(STARTUP)
            assert (await client.message()).kind == b"R"
        await running.events.wait_for(ClientLeft)
        await upstream.all_closed()
        assert not running.events.of(SessionFailed)
        await running.idle()


async def test_a_client_that_resets_while_the_server_neither_reads_nor_stops_talking(papers: Papers) -> None:
    """The task that reads from the client is stuck in its write, so the one that writes to it must notice."""
    stuck = trio.Event()

    async def script(server: ServerSide) -> None:
        await server.open()
        await stuck.wait()
        with trio.move_on_after(10):
            while True:
                await server.send(frame(b"N", b"SNOTICE\0M" + b"x" * 4000 + b"\0\0"))

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, timeouts=Timeouts(login=15.0))) as running,
        running.connect() as client,
    ):
        await client.send(STARTUP)
        with trio.move_on_after(0.5):  # more than all socket buffers on the way take
            await client.send(b"p" * 100_000_000)
        client.reset()
        stuck.set()
        await running.events.wait_for(ClientLeft)
        await upstream.all_closed()
        assert not running.events.of(SessionFailed)


async def test_a_client_that_leaves_during_the_dial_is_noticed_after_it(papers: Papers) -> None:
    may_go_on = trio.Event()

    async def script(server: ServerSide) -> None:
        await may_go_on.wait()
        await server.open()
        await server.until_closed()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        async with running.connect() as client:
            await client.send(STARTUP)
        may_go_on.set()
        await running.events.wait_for(ClientLeft)
        await upstream.all_closed()
        await running.idle()


async def test_a_login_has_a_deadline(papers: Papers) -> None:
    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(frame(b"R", struct.pack("!I", 3)))
        await server.until_closed()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, timeouts=Timeouts(login=1.0))) as running,
        running.connect() as client,
    ):
        await client.send(STARTUP)
        assert (await client.message()).kind == b"R"
        error = await client.error()
        assert (error.sqlstate, "MTLS-PG-010" in error.message) == ("08006", True)
        await upstream.all_closed()


async def test_a_server_that_repeats_its_key_fills_no_memory(papers: Papers) -> None:
    keys = b"".join(backend_key(number, b"abcd") for number in range(1000))

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(frame(b"R", b"\0\0\0\0") + keys + READY)
        await echo(server)

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        assert len(await client.login()) == 1002
        parts = running.proxy.tunnels[0]._parts
        assert parts is not None
        assert len(parts.cancel_keys) == 1
        assert parts.cancel_keys.route_of(999, b"abcd") is not None


@pytest.mark.parametrize("terminate", [True, False])
async def test_a_session_is_told_from_its_opening_to_its_end(papers: Papers, terminate: bool) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        async with running.connect() as client:
            await client.login()
            await client.send(frame(b"Q", b"select 1\0"))
            await client.until_ready()
            if terminate:
                await client.send(frame(b"X", b""))
                assert await client.read_to_end() == b""
        closed = await running.events.wait_for(SessionClosed)
        opened = running.events.of(SessionOpened)[0]
        assert (opened.client, opened.upstream, opened.tls) == (closed.client, str(upstream.endpoint), "TLSv1.3")
        assert closed.ending == ("upstream_closed" if terminate else "client_closed")
        assert (closed.user, closed.database, closed.tunnel) == ("ann", "sales", "reporting")
        farewell = len(frame(b"X", b"")) if terminate else 0
        assert closed.bytes_up == len(STARTUP + frame(b"Q", b"select 1\0")) + farewell
        assert closed.bytes_down == len(WELCOME + frame(b"D", b"select 1\0") + READY)


async def test_an_error_response_without_end_is_handed_over_unread(papers: Papers) -> None:
    """An old server's raw text begins with E, too. It goes to the client as it is."""
    raw = b"ERROR:  " + b"x" * 100_000

    async def script(server: ServerSide) -> None:
        await server.open()
        await server.send(raw)
        await server.close_notify()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        async with running.connect() as client:
            await client.send(STARTUP)
            assert await client.read_to_end() == raw
        await running.events.wait_for(SessionClosed)


def test_our_own_error_is_one_that_postgres_clients_read() -> None:
    packet = error_response(sqlstate="08001", message="m", hint="h")
    fields = parse_error_fields(packet[5:])
    assert (fields.severity, fields.sqlstate, fields.message, fields.hint) == ("FATAL", "08001", "m", "h")
