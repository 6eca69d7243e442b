"""A login on a connection that died while it waited: the client notices nothing, and nothing is done twice."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.config.values import Timeouts
from mtlskit.errors import Code, UpstreamUnreachable
from mtlskit.net.dial import Dialler, Upstream
from mtlskit.proxy.events import (
    ClientLeft,
    LoginRefused,
    SessionFailed,
)
from mtlskit.proxy.login import Login
from mtlskit.wire.postgres.messages import authentication_ok, error_response, frame
from tests.support.fake_upstream import READY, WELCOME, Papers, ServerSide, echo
from tests.support.tunnels import STARTUP
from tests.support.warm_peers import Peers, until
from tests.support.warm_tunnels import (
    QUERY,
    Answer,
    Logins,
    breaks_off,
    closes,
    ends,
    is_silent,
    openings,
    pool_of,
    refuses,
    resets,
    says,
    warmed,
    works,
)

NOTICE = frame(b"N", b"SNOTICE\0Mhello\0\0")
NEGOTIATED = frame(b"v", struct.pack("!II", 0, 0))


@pytest.fixture
async def peers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Peers]:
    """Connections whose other end the test holds."""
    made = Peers(tmp_path_factory.mktemp("papers"))
    yield made
    made.close()


# One replay.


PASSING: dict[str, Answer] = {
    "an end": ends,
    "a reset": resets,
    "a close_notify": closes,
    "a piece of a message": breaks_off,
    "full": refuses("53300"),
    "starting up": refuses("57P03"),
    "full, and an older protocol": refuses("53300", before=NEGOTIATED),
}


@pytest.mark.parametrize("answer", PASSING.values(), ids=PASSING)
async def test_a_login_begins_again_where_the_connection_is_dead(papers: Papers, answer: Answer) -> None:
    logins = Logins(answer)
    async with warmed(papers, logins) as (running, _), running.connect() as client:
        assert [message.kind for message in await client.login()] == [b"R", b"S", b"K", b"Z"]
        await works(client)
        assert logins.startups == [STARTUP, STARTUP]
        assert openings(running) == [True, False]
        assert not running.events.of(LoginRefused)
        assert not running.events.of(SessionFailed)
        assert pool_of(running).counts.replayed == 1


async def test_a_login_begins_again_after_silence(papers: Papers) -> None:
    logins = Logins(is_silent)
    async with warmed(papers, logins, timeouts=Timeouts(dial=1.5)) as (running, _), running.connect() as client:
        await client.login()
        await works(client)
        assert openings(running) == [True, False]


async def test_a_server_that_thinks_longer_after_its_first_word_is_waited_for(papers: Papers) -> None:
    """Only the first byte has the short deadline: people type passwords."""
    password = frame(b"p", b"secret\0")

    async def asks(server: ServerSide) -> None:
        await server.send(frame(b"R", struct.pack("!I", 3)))
        assert await server.read_exactly(len(password)) == password
        await server.send(WELCOME)
        await echo(server)

    async with warmed(papers, Logins(asks), timeouts=Timeouts(dial=1.0)) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        assert (await client.message()).kind == b"R"
        await trio.sleep(1.2)  # longer than the deadline that must not apply
        await client.send(password)
        await client.until_ready()
        await works(client)
        assert openings(running) == [True]


async def test_a_dead_connection_is_replaced_once_only(papers: Papers) -> None:
    logins = Logins(ends, ends)
    async with warmed(papers, logins) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        error = await client.error()
        assert (error.sqlstate, "MTLS-NET-006" in error.message) == ("08006", True)
        assert len(logins.startups) == 2
        assert running.events.of(SessionFailed)[0].code == "MTLS-NET-006"


async def test_a_server_that_is_still_full_says_so_to_the_client(papers: Papers) -> None:
    full = refuses("53300")
    async with warmed(papers, Logins(full, full)) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        assert (await client.error()).sqlstate == "53300"
        assert [event.sqlstate for event in running.events.of(LoginRefused)] == ["53300"]


FINAL: dict[str, tuple[bytes, list[bytes]]] = {
    "another refusal": (error_response(sqlstate="28P01", message="no"), [b"E"]),
    "a limit of the role": (authentication_ok() + error_response(sqlstate="53300", message="no"), [b"R", b"E"]),
    "rubbish": (b"!rubbish", [b"E"]),
}


@pytest.mark.parametrize(("said", "kinds"), FINAL.values(), ids=FINAL)
async def test_what_is_said_of_the_client_is_for_the_client(papers: Papers, said: bytes, kinds: list[bytes]) -> None:
    logins = Logins(says(said))
    async with warmed(papers, logins) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        assert [(await client.message()).kind for _ in kinds] == kinds
        assert await client.read_to_end() == b""
        assert len(logins.startups) == 1
        assert pool_of(running).counts.replayed == 0


@pytest.mark.parametrize("then", [b"", error_response(sqlstate="53300", message="full")], ids=["an end", "full"])
async def test_nothing_begins_again_once_the_client_has_heard_the_server(papers: Papers, then: bytes) -> None:
    heard = trio.Event()

    async def notices(server: ServerSide) -> None:
        await server.send(NOTICE)
        await heard.wait()
        await server.send(then)

    logins = Logins(notices)
    async with warmed(papers, logins) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        assert (await client.message()).kind == b"N"
        heard.set()
        assert (await client.error()).sqlstate == ("53300" if then else "08006")
        assert len(logins.startups) == 1
        assert openings(running) == [True]


async def test_the_replay_may_fail_like_any_dial(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: Dialler, identity: Any) -> Upstream:
        raise UpstreamUnreachable(Code.TCP_REFUSED, "nothing listens any more")

    async with warmed(papers, Logins(ends)) as (running, _), running.connect() as client:
        monkeypatch.setattr(Dialler, "dial", refused)
        await client.send(STARTUP)
        error = await client.error()
        assert (error.sqlstate, "nothing listens any more" in error.message) == ("08001", True)
        assert running.events.of(SessionFailed)[0].code == "MTLS-NET-002"


# What a client sends in the same breath.


@pytest.mark.parametrize("size", [9, 1_000_000], ids=["a little", "a lot"])
async def test_what_follows_the_startup_message_is_sent_once_and_in_order(papers: Papers, size: int) -> None:
    """The dead connection never gets it: a server that trusts the client would have executed it."""
    pipelined = [frame(b"Q", bytes([letter]) * size) for letter in b"abc"]
    leaked: list[bytes] = []

    async def turns_away(server: ServerSide) -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        await server.send(error_response(sqlstate="57P03", message="starting"))
        leaked.append(await server.until_closed())

    async with warmed(papers, Logins(turns_away)) as (running, _), running.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, STARTUP + b"".join(pipelined))
            await client.until_ready()
            for message in pipelined:
                expected = frame(b"D", message[5:]) + READY
                assert await client.read_exactly(len(expected)) == expected
        await works(client)
        assert leaked == [b""]
        assert openings(running) == [True, False]


@pytest.mark.parametrize("size", [9, 1_000_000], ids=["a little", "a lot"])
async def test_what_follows_reaches_a_server_that_is_ready_at_once(papers: Papers, size: int) -> None:
    pipelined = [frame(b"Q", bytes([letter]) * size) for letter in b"abc"]
    async with warmed(papers, Logins()) as (running, _), running.connect() as client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, STARTUP + b"".join(pipelined))
            await client.until_ready()
            for message in pipelined:
                expected = frame(b"D", message[5:]) + READY
                assert await client.read_exactly(len(expected)) == expected
        await works(client)
        assert openings(running) == [True]


@pytest.mark.parametrize("patience", [None, 20.0], ids=["fresh", "in advance"])
async def test_nothing_is_lost_where_the_last_words_of_a_login_cross(peers: Peers, patience: float | None) -> None:
    """The client's bytes and the server's wake their tasks together, in an order that trio draws at random."""
    for _ in range(30):
        peer = peers.make()
        raw, ours = socket.socketpair()
        with raw, trio.socket.from_stdlib_socket(ours) as client:
            login = Login(client, peer.upstream, lambda event: None, patience=patience)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(login.run, STARTUP, b"", 20.0)
                await trio.testing.wait_all_tasks_blocked()
                raw.send(QUERY)
                peer.say(WELCOME)
            await peer.upstream.tls.flush()
            assert peer.heard() == STARTUP + QUERY
            assert login.to_client == WELCOME


# Clients that leave, and deadlines.


async def test_a_client_that_leaves_before_the_first_word(papers: Papers) -> None:
    logins = Logins(is_silent)
    async with warmed(papers, logins) as (running, _):
        async with running.connect() as client:
            await client.send(STARTUP)
            await until(lambda: len(logins.startups) == 1)
        await running.events.wait_for(ClientLeft)
        await running.idle()
        assert len(logins.startups) == 1
        assert not running.events.of(SessionFailed)


async def test_a_client_that_leaves_during_the_replay(papers: Papers) -> None:
    logins = Logins(ends, is_silent)
    async with warmed(papers, logins) as (running, _):
        async with running.connect() as client:
            await client.send(STARTUP)
            await until(lambda: len(logins.startups) == 2)
        await running.events.wait_for(ClientLeft)
        await running.idle()
        assert not running.events.of(SessionFailed)


async def test_the_second_login_has_its_deadline(papers: Papers) -> None:
    logins = Logins(ends, is_silent)
    async with warmed(papers, logins, timeouts=Timeouts(login=0.5)) as (running, _), running.connect() as client:
        await client.send(STARTUP)
        assert "MTLS-PG-010" in (await client.error()).message
