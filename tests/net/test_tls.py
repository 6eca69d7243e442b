"""TLS between two byte queues, and its face under trio."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from mtlskit.net.tls import READ_SIZE, TlsConnection, TlsEngine, detach
from tests.services.pki import Pki
from tests.support.relay_peers import Contexts, WirePeer, digest, noise, read_all, tcp_pair


def _agree(ours: TlsEngine, theirs: TlsEngine) -> None:
    """Hand bytes back and forth until both are done."""
    done = False
    while not done:
        done = ours.handshake() & theirs.handshake()
        theirs.feed(ours.take())
        ours.feed(theirs.take())


def _plain(engine: TlsEngine, size: int = 1 << 20) -> bytes:
    view = memoryview(bytearray(size))
    return bytes(view[: engine.read_into(view)])


@pytest.fixture
def engines(contexts: Contexts) -> tuple[TlsEngine, TlsEngine]:
    """Ours and the server's, with the handshake behind them."""
    ours, theirs = contexts.engine(), TlsEngine(contexts.server, server_side=True)
    _agree(ours, theirs)
    return ours, theirs


def test_a_conversation_over_memory(engines: tuple[TlsEngine, TlsEngine], pki: Pki) -> None:
    ours, theirs = engines
    ours.write(b"question")
    theirs.feed(ours.take())
    assert _plain(theirs) == b"question"
    theirs.write(noise(100_000))
    ours.feed(theirs.take())
    assert digest(_plain(ours)) == digest(noise(100_000))
    assert ours.version == "TLSv1.3"
    assert ours.alpn is None
    assert ours.peer_certificate() == ssl.PEM_cert_to_DER_cert(pki.server.cert.read_text())


@pytest.mark.parametrize("size", [1, 16384, 50_000])
def test_a_small_buffer_gets_everything_in_turns(engines: tuple[TlsEngine, TlsEngine], size: int) -> None:
    ours, theirs = engines
    theirs.write(noise(50_000))
    ours.feed(theirs.take())
    pieces = []
    while piece := _plain(ours, size):
        pieces.append(piece)
    assert digest(b"".join(pieces)) == digest(noise(50_000))


def test_both_close_and_what_came_before_is_read(engines: tuple[TlsEngine, TlsEngine]) -> None:
    ours, theirs = engines
    theirs.write(b"last")
    theirs.close_write()
    ours.feed(theirs.take())
    assert _plain(ours) == b"last"
    assert ours.closed
    ours.write(b"I still talk")
    ours.close_write()
    theirs.feed(ours.take())
    assert _plain(theirs) == b"I still talk"
    assert theirs.closed
    assert _plain(ours) == b""
    assert ours.closed
    assert ours.failure is None


def test_after_our_own_close_the_peers_bytes_and_its_close_are_read(engines: tuple[TlsEngine, TlsEngine]) -> None:
    ours, theirs = engines
    ours.close_write()
    theirs.write(b"late")
    theirs.close_write()
    ours.feed(theirs.take())
    assert _plain(ours) == b"late"
    assert ours.closed


def test_a_damaged_record_fails_for_good_and_tells_the_peer(engines: tuple[TlsEngine, TlsEngine]) -> None:
    ours, theirs = engines
    theirs.write(b"good")
    good = theirs.take()
    theirs.write(b"bad")
    bad = bytearray(theirs.take())
    bad[-1] ^= 1
    ours.feed(good + bad)
    assert _plain(ours) == b"good"
    failure = ours.failure
    assert failure is not None
    assert failure.reason == "DECRYPTION_FAILED_OR_BAD_RECORD_MAC"
    assert _plain(ours) == b""
    assert ours.failure is failure, "OpenSSL names another reason when it is asked again"
    assert ours.outgoing.pending
    theirs.feed(ours.take())
    assert _plain(theirs) == b""
    assert theirs.failure is not None
    assert "BAD_RECORD_MAC" in (theirs.failure.reason or "")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_callbacks_are_told_whose_the_engine_is(pki: Pki, version: ssl.TLSVersion) -> None:
    contexts = Contexts.make(pki, version=version)
    told: list[object] = []
    contexts.client._msg_callback = lambda owner, *_message: told.append(owner)  # type: ignore[attr-defined]
    ours, theirs, owner = contexts.engine(), TlsEngine(contexts.server, server_side=True), pki
    ours.belong_to(owner)
    _agree(ours, theirs)
    assert told
    assert all(one is owner for one in told)


# Under trio.


@pytest.fixture
async def ends(contexts: Contexts) -> AsyncIterator[tuple[TlsConnection, WirePeer]]:
    """A connection whose handshake is still to come, and its peer."""
    near, far = tcp_pair()
    ours = TlsConnection(trio.socket.from_stdlib_socket(near), contexts.engine())
    yield ours, WirePeer(far, contexts.server)
    ours.close()
    far.close()


async def _shaken(ours: TlsConnection, peer: WirePeer) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.handshake)
        await trio.to_thread.run_sync(peer.handshake)


async def test_bytes_both_ways(ends: tuple[TlsConnection, WirePeer]) -> None:
    ours, peer = ends
    await _shaken(ours, peer)
    data = noise(500_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, data)
        assert digest(await trio.to_thread.run_sync(peer.read, len(data))) == digest(data)
        nursery.start_soon(trio.to_thread.run_sync, peer.send, data)
        received = bytearray()
        while len(received) < len(data):
            received += await ours.receive_some()
        assert digest(bytes(received)) == digest(data)


@pytest.mark.parametrize("clean", [True, False])
async def test_the_end_of_the_stream(ends: tuple[TlsConnection, WirePeer], clean: bool) -> None:
    ours, peer = ends
    await _shaken(ours, peer)
    if clean:
        peer.close_write()
    peer.close()
    assert await ours.receive_some() == b""
    assert ours.engine.closed is clean


async def test_a_cancelled_send_leaves_its_rest_to_be_handed_over(ends: tuple[TlsConnection, WirePeer]) -> None:
    ours, peer = ends
    await _shaken(ours, peer)
    data = noise(20_000_000)  # more than the socket buffers take
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.send_all, data)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    sock, engine = ours.detach()
    assert engine.unsent
    sock.settimeout(30)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, lambda: sock.sendall(engine.unsent))
        assert digest(await trio.to_thread.run_sync(peer.read, len(data))) == digest(data)
    sock.close()


async def test_a_cancelled_receive_loses_nothing(ends: tuple[TlsConnection, WirePeer]) -> None:
    ours, peer = ends
    await _shaken(ours, peer)
    record = peer.records(b"in two pieces")
    peer.sock.sendall(record[:9])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    peer.sock.sendall(record[9:])
    assert await ours.receive_some() == b"in two pieces"


async def test_more_than_a_buffer_is_received_in_turns(ends: tuple[TlsConnection, WirePeer]) -> None:
    ours, peer = ends
    await _shaken(ours, peer)
    ours.engine.feed(await ours.socket.recv(READ_SIZE))  # the session tickets
    ours.engine.feed(peer.records(noise(READ_SIZE * 3)))
    pieces = [await ours.receive_some() for _ in range(3)]
    assert b"".join(pieces) == noise(READ_SIZE * 3)


async def test_a_peer_that_goes_away_midway(ends: tuple[TlsConnection, WirePeer]) -> None:
    ours, peer = ends
    peer.close()
    with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
        await ours.handshake()


async def test_our_own_refusal_reaches_the_peer(pki: Pki) -> None:
    near, far = tcp_pair()
    with far:
        stranger = ssl.create_default_context(cafile=str(pki.stranger_ca))
        ours = TlsConnection(trio.socket.from_stdlib_socket(near), TlsEngine(stranger, server_hostname="localhost"))
        peer = WirePeer(far, Contexts.make(pki).server)
        async with trio.open_nursery() as nursery:

            async def refuse() -> None:
                with pytest.raises(ssl.SSLCertVerificationError):
                    await ours.handshake()

            nursery.start_soon(refuse)
            with pytest.raises(ssl.SSLError, match=r"(?i)unknown ca"):
                await trio.to_thread.run_sync(peer.handshake)
        ours.close()


async def test_an_alert_after_the_handshake(pki: Pki) -> None:
    contexts = Contexts.make(pki, client_ca=False)
    near, far = tcp_pair()
    with far:
        ours = TlsConnection(trio.socket.from_stdlib_socket(near), contexts.engine())

        def serve() -> None:
            with pytest.raises(ssl.SSLError, match=r"(?i)verify failed"):
                contexts.server.wrap_socket(far, server_side=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.handshake)
            await trio.to_thread.run_sync(serve)
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match=r"(?i)unknown ca"):
                await ours.receive_some()
        ours.close()


async def test_detaching_wakes_who_waits_and_gives_a_socket_that_does_not_block() -> None:
    near, far = tcp_pair()
    ours = trio.socket.from_stdlib_socket(near)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await ours.recv(1)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        plain = detach(ours)
    assert type(plain) is socket.socket
    with plain, far:
        with pytest.raises(BlockingIOError):
            plain.recv(1)
        plain.send(b"x")
        plain.close()
        assert read_all(far) == b"x"
