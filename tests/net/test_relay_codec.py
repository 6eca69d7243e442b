"""Sessions with a codec over real sockets: streams, refusals, faults, and back-pressure."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mtlskit.errors import ClientProtocolError, Code, MtlskitError, UpstreamProtocolError
from mtlskit.net.relay import Ending, Relay, RelayPolicy
from mtlskit.net.relay.observed import pair_for
from mtlskit.net.relay.pair import BUFFER_SIZE, Pair
from mtlskit.net.relay.translated import TranslatedPair
from mtlskit.net.relay.watcher import READ
from tests.support.relay_peers import (
    DEADLINE,
    Session,
    Sessions,
    digest,
    fill,
    noise,
    read_all,
    read_exactly,
    relayed,
    reset,
)
from tests.support.toy_codec import Moves, ToyCodec
from tests.support.turns import Watch

PAYLOAD = noise(3 << 20, seed=5)
RESETS = RelayPolicy(ragged_end_resets=True)


def coded(session: Session[Any], codec: ToyCodec) -> Session[Any]:
    """The same session with a codec."""
    return replace(session, handover=replace(session.handover, codec=codec))


def doubled(data: memoryview) -> list[bytes | bytearray | memoryview]:
    return [piece for at in range(len(data)) for piece in (data[at : at + 1], data[at : at + 1])]


def end_of(client: socket.socket) -> str:
    """What the client sees at the end."""
    try:
        seen = "FIN" if read_all(client) == b"" else "bytes"
    except ConnectionResetError:
        seen = "RST"
    client.close()
    return seen


def raises(error: Exception) -> Callable[[memoryview], Moves]:
    def refuse(data: memoryview) -> Moves:
        raise error

    return refuse


REFUSED_UP = ClientProtocolError(Code.KAFKA_CLIENT_RUBBISH, "the client sent rubbish", "check it")
REFUSED_DOWN = UpstreamProtocolError(Code.KAFKA_SERVER_RUBBISH, "the upstream sent rubbish", "check it")


def test_what_a_hand_over_asks_for(sessions: Sessions) -> None:
    handover = sessions.plain().handover
    observer: Any = object()
    assert type(pair_for(handover, lambda pair: None)) is Pair
    assert type(pair_for(replace(handover, codec=ToyCodec()), lambda pair: None)) is TranslatedPair
    with pytest.raises(ValueError, match="not both"):
        pair_for(replace(handover, codec=ToyCodec(), observer=observer), lambda pair: None)


# Streams.


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_byte_by_byte_both_ways(relay: Relay, sessions: Sessions, kind: str) -> None:
    codec = ToyCodec(lambda data: Moves(to_server=doubled(data)), lambda data: Moves(to_client=doubled(data)))
    session = coded(sessions.plain() if kind == "plain" else sessions.tls(), codec)

    def talk() -> None:
        with session.client, session.upstream:
            for byte in b"abcdefgh":
                session.client.sendall(bytes([byte]))
                assert read_exactly(session.upstream, 2) == bytes([byte]) * 2
                session.upstream.sendall(bytes([byte]))
                assert read_exactly(session.client, 2) == bytes([byte]) * 2
            session.client.shutdown(socket.SHUT_WR)
            assert session.upstream.recv(1) == b""

    outcome, _ = await relayed(relay, session, talk)
    assert (outcome.ending, outcome.bytes_up, outcome.bytes_down) == (Ending.CLIENT_CLOSED, 8, 8)


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_large_streams_with_something_put_in_between_and_slow_readers(
    relay: Relay, sessions: Sessions, kind: str
) -> None:
    own = noise(20_000)
    codec = ToyCodec(
        lambda data: Moves(to_server=[b"<", data, own], to_client=[b"?"]), lambda data: Moves(to_client=[data, own])
    )
    plain = kind == "plain"
    session = coded(sessions.plain(buffers=65536) if plain else sessions.wire(buffers=65536), codec)
    wire = PAYLOAD if plain else session.upstream.records(PAYLOAD)
    far = session.upstream if plain else session.upstream.sock

    def send_up() -> None:
        session.client.sendall(PAYLOAD)
        session.client.shutdown(socket.SHUT_WR)

    sent = threading.Event()

    def read_up() -> bytes:
        heard: bytes = read_all(far) if plain else session.upstream.read_to_end()
        assert sent.wait(DEADLINE)
        far.shutdown(socket.SHUT_WR)  # and not before: what is answered to a client that had its FIN is dropped
        return heard

    def send_down() -> None:
        far.sendall(wire)
        sent.set()

    outcome, _, up, _, down = await relayed(
        relay, session, send_up, read_up, send_down, lambda: read_all(session.client)
    )
    assert digest(up) == digest(bytes(codec.to_server))
    assert digest(down) == digest(bytes(codec.to_client))
    assert outcome.bytes_up == outcome.bytes_down == len(PAYLOAD)


# Back-pressure.


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_a_client_that_never_reads_its_answers_is_stopped(
    relay: Relay, sessions: Sessions, watch: Watch, kind: str
) -> None:
    maker = sessions.plain if kind == "plain" else sessions.wire
    made: Session[Any] = maker(client_buffers=8192)
    session = coded(made, ToyCodec(up=lambda data: Moves(to_client=[data, data])))

    def flood() -> None:
        went, more = 0, -1
        while more:
            more = fill(session.client, 64 << 20)
            went += more
            watch.settle(relay)
        (pair,) = relay._pairs
        assert went < 8 << 20, "nothing stopped it"
        assert 2 * BUFFER_SIZE < len(pair.client.held) <= 4 * BUFFER_SIZE
        assert not pair.client.mask & READ
        reset(session.client)

    outcome, _ = await relayed(relay, session, flood)
    assert outcome.ending is Ending.CLIENT_LOST


async def test_an_upstream_whose_client_does_not_read_is_stopped(
    relay: Relay, sessions: Sessions, watch: Watch
) -> None:
    session = coded(sessions.plain(buffers=8192), ToyCodec(down=lambda data: Moves(to_client=[data, data])))

    def flood() -> bytes:
        went, more = 0, -1
        while more:
            more = fill(session.upstream, (1 << 20) - went)
            went += more
            watch.settle(relay)
        assert went < 1 << 20, "nothing stopped it"
        session.upstream.shutdown(socket.SHUT_WR)
        session.client.shutdown(socket.SHUT_WR)
        return read_exactly(session.client, 2 * went) and read_all(session.client)

    outcome, rest = await relayed(relay, session, flood)
    assert rest == b""
    assert outcome.ending in (Ending.UPSTREAM_CLOSED, Ending.CLIENT_CLOSED)


async def test_stop_and_go(relay: Relay, sessions: Sessions, watch: Watch) -> None:
    codec = ToyCodec()

    def up(data: memoryview) -> Moves:
        codec.client_may_send = False
        return Moves(to_server=[data])

    def down(data: memoryview) -> Moves:
        codec.client_may_send = True
        return Moves(to_client=[data])

    codec._up, codec._down = up, down
    session = coded(sessions.tls(), codec)

    def talk() -> None:
        with session.client, session.upstream:
            for _ in range(3):
                session.client.sendall(b"first")
                assert read_exactly(session.upstream, 5) == b"first"
                session.client.sendall(b"second")
                watch.settle(relay)
                assert codec.from_client % 11 == 5, "the client was read"
                session.upstream.sendall(b"go")
                assert read_exactly(session.upstream, 6) == b"second"
                session.upstream.sendall(b"on")
                assert read_exactly(session.client, 4) == b"goon"
            session.client.shutdown(socket.SHUT_WR)
            assert session.upstream.recv(1) == b""

    await relayed(relay, session, talk)


# Refusals and faults.


@pytest.mark.parametrize(("policy", "end"), [(RESETS, "RST"), (RelayPolicy(), "FIN")], ids=["resets", "ends"])
@pytest.mark.parametrize("who", ["client", "upstream"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_what_is_refused_ends_both_connections_at_once(
    relay: Relay, sessions: Sessions, kind: str, who: str, policy: RelayPolicy, end: str
) -> None:
    codec = ToyCodec(up=raises(REFUSED_UP)) if who == "client" else ToyCodec(down=raises(REFUSED_DOWN))
    error: MtlskitError = REFUSED_UP if who == "client" else REFUSED_DOWN
    session = coded(sessions.plain(policy) if kind == "plain" else sessions.wire(policy), codec)
    if who == "client":
        session.client.sendall(b"rubbish")
    elif kind == "plain":
        session.upstream.sendall(b"rubbish")
    else:
        session.upstream.send(b"rubbish")

    def upstream() -> bytes:
        return read_all(session.upstream) if kind == "plain" else session.upstream.read_to_end()

    outcome, seen, said = await relayed(relay, session, lambda: end_of(session.client), upstream)
    assert (outcome.ending, outcome.error) == (Ending.REFUSED, error)
    assert (outcome.bytes_up, outcome.bytes_down) == ((7, 0) if who == "client" else (0, 7))
    assert (seen, said) == (end, b"")


@pytest.mark.parametrize("also", ["close", "damage"])
async def test_what_comes_right_behind_the_refused_changes_nothing(relay: Relay, sessions: Sessions, also: str) -> None:
    session = coded(sessions.wire(RESETS), ToyCodec(down=raises(REFUSED_DOWN)))
    peer = session.upstream
    wire = peer.records(b"HTTP/1.1 400")
    if also == "close":
        peer.engine.close_write()
        wire += peer.engine.take()
    else:
        wire += peer.records(b"damaged")[:-1] + b"\0"
    peer.sock.sendall(wire)
    outcome, seen = await relayed(relay, session, lambda: end_of(session.client))
    assert (outcome.ending, outcome.error, seen) == (Ending.REFUSED, REFUSED_DOWN, "RST")


async def test_a_refusal_explains_more_than_the_end_that_came_before_it(relay: Relay, sessions: Sessions) -> None:
    session = coded(sessions.wire(), ToyCodec(down=raises(REFUSED_DOWN)))

    def both() -> str:
        session.client.shutdown(socket.SHUT_WR)
        assert session.upstream.read_to_end() == b""
        session.upstream.send(b"rubbish")
        return end_of(session.client)

    outcome, seen = await relayed(relay, session, both)
    assert (outcome.ending, outcome.error, seen) == (Ending.REFUSED, REFUSED_DOWN, "FIN")


async def test_what_is_held_is_lost_with_the_refusal(relay: Relay, sessions: Sessions, watch: Watch) -> None:
    def up(data: memoryview) -> Moves:
        if bytes(data) == b"rubbish":
            raise REFUSED_UP
        return Moves(to_server=[bytes(4 << 20)], to_client=[bytes(1 << 18)])

    session = coded(sessions.plain(buffers=8192), ToyCodec(up=up))

    def both() -> tuple[int, int]:
        session.client.sendall(b"x")
        watch.settle(relay)
        read_exactly(session.upstream, 4 << 20)
        session.client.sendall(b"rubbish")
        return len(read_all(session.client)), len(read_all(session.upstream))

    outcome, (client, upstream) = await relayed(relay, session, both)
    assert (outcome.ending, outcome.error) == (Ending.REFUSED, REFUSED_UP)
    assert client < 1 << 18
    assert upstream == 0


async def test_an_upstream_that_takes_nothing_is_not_told_of_the_refusal(
    relay: Relay, sessions: Sessions, watch: Watch
) -> None:
    def down(data: memoryview) -> Moves:
        raise REFUSED_DOWN

    session = coded(sessions.wire(upstream_buffers=4096), ToyCodec(lambda data: Moves([bytes(300_000)]), down))

    def both() -> str:
        session.client.sendall(b"x")
        watch.settle(relay)
        session.upstream.send(b"rubbish")
        seen = end_of(session.client)
        with pytest.raises((EOFError, ConnectionResetError)):
            session.upstream.read_to_end()
        return seen

    outcome, seen = await relayed(relay, session, both)
    assert (outcome.ending, outcome.error, seen) == (Ending.REFUSED, REFUSED_DOWN, "FIN")


async def test_what_is_refused_before_the_relay_begins(relay: Relay, sessions: Sessions) -> None:
    session = coded(sessions.plain(to_client=b"rubbish"), ToyCodec(down=raises(REFUSED_DOWN)))
    outcome, seen = await relayed(relay, session, lambda: end_of(session.client))
    assert (outcome.ending, outcome.bytes_down, seen) == (Ending.REFUSED, 7, "FIN")


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_fault_of_the_codec_ends_its_session_and_no_other(relay: Relay, sessions: Sessions, way: str) -> None:
    fault = ZeroDivisionError("ours")
    broken = ToyCodec(up=raises(fault)) if way == "up" else ToyCodec(down=raises(fault))
    session, other = coded(sessions.plain(RESETS), broken), coded(sessions.plain(), ToyCodec())
    (session.client if way == "up" else session.upstream).sendall(b"x")

    def both() -> str:
        seen = end_of(session.client)
        other.client.sendall(b"still here")
        assert read_exactly(other.upstream, 10) == b"still here"
        return seen

    relay.begin(other.handover, lambda pair: None)
    outcome, seen = await relayed(relay, session, both)
    assert (outcome.ending, outcome.error, seen) == (Ending.INTERNAL, fault, "RST")


# Ends.


@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_a_half_closed_client_gets_the_rest(relay: Relay, sessions: Sessions, kind: str) -> None:
    session = coded(sessions.plain() if kind == "plain" else sessions.tls(), ToyCodec())

    def talk() -> bytes:
        session.client.sendall(b"all I have to say")
        session.client.shutdown(socket.SHUT_WR)
        assert read_all(session.upstream) == b"all I have to say"
        session.upstream.sendall(b"the answer")
        if kind == "tls":
            session.upstream.unwrap()
        session.upstream.close()
        return read_all(session.client)

    outcome, heard = await relayed(relay, session, talk)
    assert (outcome.ending, heard) == (Ending.CLIENT_CLOSED, b"the answer")


@pytest.mark.parametrize("lost", ["client", "upstream"])
async def test_a_peer_that_is_lost_when_it_is_written(
    relay: Relay, sessions: Sessions, watch: Watch, lost: str
) -> None:
    large = bytes(8 << 20)
    session = coded(sessions.plain(buffers=8192), ToyCodec(lambda d: Moves([large]), lambda d: Moves((), [large])))

    def talk() -> None:
        gone, other = session.client, session.upstream
        if lost == "upstream":
            gone, other = other, gone
        other.sendall(b"x")
        watch.settle(relay)
        reset(gone)
        assert read_all(other) == b""
        other.close()

    outcome, _ = await relayed(relay, session, talk)
    assert outcome.ending is (Ending.CLIENT_LOST if lost == "client" else Ending.UPSTREAM_LOST)


def test_a_client_that_has_gone_is_noticed_by_the_write(sessions: Sessions) -> None:
    session = coded(sessions.plain(), ToyCodec())
    pair = pair_for(session.handover, lambda pair: None)
    assert isinstance(pair, TranslatedPair)
    pair.client.sock.shutdown(socket.SHUT_WR)
    pair._forward(pair.upstream, memoryview(b"x"))
    assert (pair.ending, pair.finished) == (Ending.CLIENT_LOST, True)
    pair.upstream.deaf = True
    pair._forward(pair.client, memoryview(b"x"))
    assert pair.bytes_up == 0
