"""One direction ends, the other goes on: nothing is lost, and nothing plain goes out where TLS was."""

from __future__ import annotations

import socket
import threading

import pytest

from mtlskit.net.relay import Ending, Relay, RelayPolicy
from tests.support.relay_peers import (
    Sessions,
    digest,
    noise,
    read_all,
    read_exactly,
    relayed,
)
from tests.support.turns import Watch

MEGABYTES = noise(1 << 20, seed=7) * 21  # more than any socket buffer, so that it is in flight when an end comes


async def test_the_client_ends_while_megabytes_come_from_the_server(relay: Relay, sessions: Sessions) -> None:
    session = sessions.tls()
    midway = threading.Event()

    def client() -> bytes:
        session.client.sendall(b"request")
        head = read_exactly(session.client, 1 << 20)
        session.client.shutdown(socket.SHUT_WR)
        midway.set()
        return head + read_all(session.client)

    def server() -> bytes:
        request = read_exactly(session.upstream, 7)
        session.upstream.sendall(MEGABYTES[: 11 << 20])
        assert midway.wait(30)
        request += read_all(session.upstream)  # raises unless the end is a close_notify
        session.upstream.sendall(MEGABYTES[11 << 20 :])
        session.upstream.unwrap()
        session.upstream.close()
        return request

    outcome, at_client, at_server = await relayed(relay, session, client, server)
    assert digest(at_client) == digest(MEGABYTES)
    assert at_server == b"request"
    assert outcome.ending is Ending.CLIENT_CLOSED
    assert (outcome.bytes_up, outcome.bytes_down, outcome.clean) == (7, len(MEGABYTES), True)


@pytest.mark.parametrize("fin", [False, True], ids=["close_notify", "close_notify and FIN"])
async def test_the_server_ends_while_megabytes_come_from_the_client(
    relay: Relay, sessions: Sessions, fin: bool
) -> None:
    session = sessions.wire()

    def server() -> bytes:
        head = session.upstream.read(1 << 20)
        session.upstream.send(b"enough")
        session.upstream.close_write(fin=fin)
        return head + session.upstream.read_to_end()

    def client() -> bytes:
        session.client.sendall(MEGABYTES)
        answer = read_all(session.client)
        session.client.shutdown(socket.SHUT_WR)
        return answer

    outcome, at_server, at_client = await relayed(relay, session, server, client)
    assert digest(at_server) == digest(MEGABYTES)
    assert at_client == b"enough"
    assert (outcome.ending, outcome.clean) == (Ending.UPSTREAM_CLOSED, True)
    assert (outcome.bytes_up, outcome.bytes_down) == (len(MEGABYTES), 6)


async def test_after_the_half_close_the_wire_carries_a_close_notify_and_a_fin_and_nothing_else(
    relay: Relay, sessions: Sessions
) -> None:
    session = sessions.wire()

    def both() -> bytes:
        session.client.sendall(b"last words")
        session.client.shutdown(socket.SHUT_WR)
        heard = session.upstream.read_to_end()  # asserts that only the FIN follows
        for _ in range(100):
            session.upstream.send(b"still talking")
            assert read_exactly(session.client, 13) == b"still talking"
        assert session.upstream.sock.recv(1) == b""
        session.upstream.close_write(fin=True)
        assert session.client.recv(1) == b""
        return heard

    outcome, heard = await relayed(relay, session, both)
    assert heard == b"last words"
    assert outcome.bytes_down == 1300


# More than one buffer of the kernel and less than one of ours: the relay reads all of it, and has to hold it.
_MUCH = 50_000


async def test_a_close_notify_waits_for_what_is_held(relay: Relay, sessions: Sessions, watch: Watch) -> None:
    session = sessions.wire(upstream_buffers=4096)
    session.client.sendall(bytes(_MUCH))
    session.client.shutdown(socket.SHUT_WR)

    def both() -> int:
        watch.settle(relay)
        assert next(iter(relay._pairs)).upstream.held
        received = len(session.upstream.read_to_end())
        session.upstream.close_write(fin=True)
        assert session.client.recv(1) == b""
        return received

    outcome, received = await relayed(relay, session, both)
    assert received == outcome.bytes_up == _MUCH
    assert outcome.ending is Ending.CLIENT_CLOSED


async def test_both_have_ended_and_bytes_are_still_held_for_the_server(
    relay: Relay, sessions: Sessions, watch: Watch
) -> None:
    session = sessions.wire(upstream_buffers=4096)
    session.client.sendall(bytes(_MUCH))
    session.client.shutdown(socket.SHUT_WR)

    def both() -> int:
        watch.settle(relay)
        session.upstream.send(b"I say no more, and read on")
        session.upstream.close_write()
        assert read_all(session.client) == b"I say no more, and read on"
        watch.settle(relay)
        assert next(iter(relay._pairs)).upstream.held
        return len(session.upstream.read_to_end())

    outcome, received = await relayed(relay, session, both)
    assert received == outcome.bytes_up == _MUCH


async def test_both_have_ended_and_bytes_are_still_held_for_the_client(
    relay: Relay, sessions: Sessions, watch: Watch
) -> None:
    session = sessions.wire(client_buffers=4096)
    session.upstream.send(bytes(_MUCH))
    session.upstream.close_write()

    def both() -> int:
        watch.settle(relay)
        session.client.shutdown(socket.SHUT_WR)
        assert session.upstream.read_to_end() == b""
        watch.settle(relay)
        assert next(iter(relay._pairs)).client.held
        return len(read_all(session.client))

    outcome, received = await relayed(relay, session, both)
    assert received == outcome.bytes_down == _MUCH


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_without_tls_an_end_is_a_fin_and_the_other_direction_goes_on(
    relay: Relay, sessions: Sessions, who: str
) -> None:
    session = sessions.plain(RelayPolicy(ragged_end_resets=True))
    first, second = (session.client, session.upstream) if who == "client" else (session.upstream, session.client)

    def both() -> tuple[bytes, bytes]:
        first.sendall(b"a question")
        first.shutdown(socket.SHUT_WR)
        question = read_all(second)
        second.sendall(b"an answer")
        second.shutdown(socket.SHUT_WR)
        return question, read_all(first)

    outcome, said = await relayed(relay, session, both)
    assert said == (b"a question", b"an answer")
    assert outcome.ending is (Ending.CLIENT_CLOSED if who == "client" else Ending.UPSTREAM_CLOSED)
    assert outcome.clean
