"""Peers that are not ours, and what TLS may do below a session: key updates, old versions, records in pieces."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import cast

import pytest

from mtlskit.net.relay import Ending, HandOver, Relay
from mtlskit.net.relay.pair import _MOST_HELD, Buffers, Pair
from mtlskit.net.tls import TlsEngine
from tests.services.pki import Pki
from tests.support.relay_peers import (
    DEADLINE,
    Contexts,
    Session,
    Sessions,
    digest,
    noise,
    read_all,
    read_exactly,
    relayed,
    shake_hands,
)
from tests.support.s_server import SServer, s_server
from tests.support.turns import Watch


def _connected(sessions: Sessions, server: SServer, contexts: Contexts) -> Session[socket.socket]:
    client, far_client = sessions.pair()
    upstream = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
    engine = contexts.engine()
    shake_hands(upstream, engine, lambda: None)
    return Session(far_client, far_client, HandOver(client, upstream, engine))


@pytest.mark.parametrize("command", [b"k", b"K"], ids=["tells its new key", "asks for ours too"])
async def test_key_updates(relay: Relay, sessions: Sessions, contexts: Contexts, pki: Pki, command: bytes) -> None:
    with s_server(pki, "-tls1_3", "-msg") as server:
        session = _connected(sessions, server, contexts)

        def talk() -> None:
            for number in range(5):
                server.say(command)
                assert server.wait_for(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
                line = b"down %d" % number
                server.say(line)
                assert read_exactly(session.client, len(line) + 1) == line + b"\n"
                session.client.sendall(b"up %d\n" % number)
                assert server.wait_for(b"up %d" % number)
            session.client.close()

        outcome, _ = await relayed(relay, session, talk)
    assert (outcome.bytes_up, outcome.bytes_down) == (5 * 5, 5 * 7)
    assert outcome.ending is Ending.CLIENT_CLOSED


async def test_a_client_that_only_listens_answers_key_updates_all_the_same(
    relay: Relay, sessions: Sessions, contexts: Contexts, pki: Pki
) -> None:
    with s_server(pki, "-tls1_3", "-msg") as server:
        session = _connected(sessions, server, contexts)

        def talk() -> None:
            # It shows what it has received when it has something else to say.
            for _ in range(1000):
                server.say(b"K")
                assert server.wait_for(b">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
                if any(b"<<<" in line and b"KeyUpdate" in line for line in server.lines):
                    break
            else:
                raise AssertionError("no key update came back")
            session.client.close()

        await relayed(relay, session, talk)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_both_ways_through_a_real_server(
    relay: Relay, sessions: Sessions, pki: Pki, version: ssl.TLSVersion
) -> None:
    session = sessions.tls(contexts=Contexts.make(pki, version=version))
    up, down = noise(1_000_000, 5), noise(2_000_000, 6)

    def client_sends() -> None:
        session.client.sendall(up)
        session.client.shutdown(socket.SHUT_WR)

    def server() -> bytes:
        received = read_all(session.upstream)  # raises unless the end is a close_notify
        session.upstream.sendall(down)
        session.upstream.unwrap().close()
        return received

    outcome, _, at_server, at_client = await relayed(
        relay, session, client_sends, server, lambda: read_all(session.client)
    )
    assert digest(at_server) == digest(up)
    assert digest(at_client) == digest(down)
    assert outcome.clean


async def test_records_that_come_byte_by_byte(relay: Relay, sessions: Sessions, watch: Watch) -> None:
    session = sessions.wire()
    text = b"one" + noise(40)

    def both() -> None:
        wire = session.upstream.records(text[:3]) + session.upstream.records(text[3:])
        for index in range(len(wire)):
            session.upstream.sock.sendall(wire[index : index + 1])
            watch.settle(relay)
        assert read_exactly(session.client, len(text)) == text
        for index in range(len(text)):
            session.client.sendall(text[index : index + 1])
            assert session.upstream.read(1) == text[index : index + 1]
        session.upstream.engine.close_write()
        for byte in session.upstream.engine.take():
            session.upstream.sock.sendall(bytes([byte]))
            watch.settle(relay)
        assert session.client.recv(1) == b""
        session.client.close()

    outcome, _ = await relayed(relay, session, both)
    assert outcome.clean
    assert outcome.bytes_up == outcome.bytes_down == len(text)


# What no well-behaved peer does: a stand-in for the engine.


class _Nagging:
    """An engine whose peer asks for a key update with every byte that it sends."""

    closed = False
    failure = None
    unsent = b""

    def __init__(self, answer: bytes) -> None:
        self.notified = False
        self.outgoing = ssl.MemoryBIO()
        self.outgoing.write(b"there is always something")
        self._answer = answer

    def decrypt(self, ciphertext: memoryview, view: memoryview) -> int:
        return 0

    def take(self) -> bytes:
        return self._answer

    def close_write(self) -> None:
        self.notified = True


@pytest.fixture
def nagged() -> Iterator[tuple[Pair, socket.socket, socket.socket]]:
    """A pair whose upstream nags, and the test's ends."""
    client, far_client = socket.socketpair()
    upstream, far_upstream = socket.socketpair()
    for sock in (client, upstream):
        sock.setblocking(False)
    engine = cast(TlsEngine, _Nagging(bytes(100_000)))
    yield Pair(HandOver(client, upstream, engine), lambda pair: None), far_client, far_upstream
    for sock in (client, upstream, far_client, far_upstream):
        sock.close()


def test_the_answers_to_an_upstream_that_does_not_read_them_are_bounded(
    nagged: tuple[Pair, socket.socket, socket.socket],
) -> None:
    pair, _, far_upstream = nagged
    turns = 0
    while pair.interest(pair.upstream) & 1:
        far_upstream.sendall(b"?")
        pair.on_readable(pair.upstream, Buffers())
        turns += 1
        assert turns < 100, "the upstream is read for ever"
    assert len(pair.upstream.held) <= _MOST_HELD + 100_000
    assert not pair.finished


def test_nothing_follows_our_close_notify(nagged: tuple[Pair, socket.socket, socket.socket]) -> None:
    pair, far_client, far_upstream = nagged
    far_client.shutdown(socket.SHUT_WR)
    pair.on_readable(pair.client, Buffers())
    far_upstream.settimeout(DEADLINE)
    farewell = read_all(far_upstream)
    far_upstream.sendall(b"?")
    pair.on_readable(pair.upstream, Buffers())
    assert read_all(far_upstream) == b""
    assert not pair.upstream.deaf, "an answer to a key update went to a socket that we have ended"
    assert farewell == bytes(100_000)


def test_a_close_notify_that_the_kernel_takes_in_parts_goes_before_the_fin() -> None:
    client, far_client = socket.socketpair()
    upstream, far_upstream = socket.socketpair()
    with client, far_client, upstream, far_upstream:
        client.setblocking(False)
        upstream.setblocking(False)
        pair = Pair(HandOver(client, upstream, cast(TlsEngine, _Nagging(bytes(2_000_000)))), lambda pair: None)
        far_client.shutdown(socket.SHUT_WR)
        pair.on_readable(pair.client, Buffers())
        assert pair.upstream.held
        assert not pair.upstream.write_closed
        received = 0
        far_upstream.settimeout(DEADLINE)
        while received < 2_000_000:
            received += len(far_upstream.recv(1 << 20))
            if pair.upstream.held:
                pair.on_writable(pair.upstream)
        assert far_upstream.recv(1) == b""
        assert not pair.finished
