"""A session with a codec, turn by turn: the test plays the selector and both kernels, in any order they may come."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlskit.net.relay import Ending, HandOver, RelayPolicy, translated
from mtlskit.net.relay.pair import Buffers, End
from mtlskit.net.relay.translated import TranslatedPair
from mtlskit.net.relay.watcher import READ, WRITE
from mtlskit.net.tls import TlsEngine
from tests.services.pki import Pki
from tests.support.relay_peers import Contexts, digest
from tests.support.toy_codec import Moves, ToyCodec

_MOST_HELD = 512 * 1024


class FakeSocket:
    """A kernel's side of a socket: what has come for us, and how much it still takes from us."""

    def __init__(self) -> None:
        self.incoming = bytearray()
        self.fin = False
        self.window = 0
        self.taken = bytearray()
        self.ended = False

    def fileno(self) -> int:
        return -1

    def recv_into(self, buffer: memoryview) -> int:
        count = min(len(buffer), len(self.incoming))
        if not count and not self.fin:
            raise BlockingIOError
        buffer[:count] = self.incoming[:count]
        del self.incoming[:count]
        return count

    def send(self, data: Any) -> int:
        assert not self.ended, "bytes after our FIN"
        count = min(self.window, len(data))
        if not count:
            raise BlockingIOError
        self.window -= count
        self.taken += bytes(data[:count])
        return count

    def sendmsg(self, pieces: Any) -> int:
        assert len(pieces) > 1
        return self.send(b"".join(pieces))

    def shutdown(self, how: int) -> None:
        self.ended = True

    def setsockopt(self, *args: Any) -> None:
        pass

    def close(self) -> None:
        pass


class Bench:
    """A session of which every event is the test's."""

    def __init__(self, codec: ToyCodec, contexts: Contexts | None = None) -> None:
        self.codec = codec
        self.near, self.far = FakeSocket(), FakeSocket()
        self.server: TlsEngine | None = None
        engine = None
        if contexts is not None:
            engine, self.server = contexts.engine(), TlsEngine(contexts.server, server_side=True)
            _introduce(engine, self.server)
        handover = HandOver(cast(Any, self.near), cast(Any, self.far), engine)
        self.pair = TranslatedPair(handover, codec, lambda pair: None)
        self.buffers = Buffers(32 * 1024)
        self.heard = bytearray()
        """What the upstream has heard, in plain."""
        self.said = [0, 0]
        """Plain bytes that the client and the upstream have sent."""
        self.masks: dict[End, int] = {}
        self.pair.start(self.buffers)
        self.settle()

    def client_says(self, data: bytes) -> None:
        self.near.incoming += data
        self.said[0] += len(data)

    def upstream_says(self, data: bytes) -> None:
        self.said[1] += len(data)
        if self.server is not None:
            self.server.write(data)
            data = self.server.take()
        self.far.incoming += data

    def upstream_ends(self) -> None:
        if self.server is not None:
            self.server.close_write()
            self.far.incoming += self.server.take()
        self.far.fin = True

    def turn(self, end: End) -> None:
        """One event at `end`, if it is waited for."""
        pair = self.pair
        sock = self.near if end is pair.client else self.far
        if self.masks[end] & WRITE and sock.window and not pair.finished:
            pair.on_writable(end)
            self.settle()
        if self.masks[end] & READ and (sock.incoming or sock.fin) and not pair.finished:
            pair.on_readable(end, self.buffers)
            self.settle()

    def settle(self) -> None:
        """What the thread does behind each event; and nobody may rely on the shared memory any more."""
        pair = self.pair
        self.buffers.raw[:] = self.buffers.clear[: len(self.buffers.raw)] = b"\xee" * len(self.buffers.raw)
        masks = {end: pair.interest(end) for end in (pair.client, pair.upstream)}
        if not pair.changed:
            assert masks == self.masks, "the interest has changed, and nobody was told"
        self.masks, pair.changed = masks, False
        if not self.codec.client_may_send and not pair.upstream.eof:
            assert not masks[pair.client] & READ

    def drain(self) -> None:
        """Let both kernels take all, and deliver all, until nothing is left to do."""
        before = None
        while before != (before := self._progress()):
            self.near.window = self.far.window = 1 << 30
            for end in (self.pair.client, self.pair.upstream):
                self.turn(end)

    def _progress(self) -> tuple[int, ...]:
        near, far = self.near, self.far
        return len(near.incoming), len(far.incoming), len(near.taken), len(far.taken), near.ended, far.ended

    def upstream_heard(self) -> bytes:
        if self.server is None:
            return bytes(self.far.taken)
        view = memoryview(bytearray(1 << 20))
        self.server.feed(bytes(self.far.taken))
        self.far.taken.clear()
        while count := self.server.read_into(view):
            self.heard += view[:count]
        return bytes(self.heard)


def _introduce(client: TlsEngine, server: TlsEngine) -> None:
    to_client = b""
    while True:
        done = client.handshake(to_client)
        server_done = server.handshake(client.take())
        to_client = server.take()
        if done and server_done:
            client.feed(to_client)  # the session tickets
            assert not client.read_into(memoryview(bytearray(1)))
            return


class Moody(ToyCodec):
    """Passes, drops, doubles, splits, holds back and answers as the dice fall."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(self._from_client, self._from_server)
        self._rng = rng
        self._kept: list[bytes] = []

    def _pieces(self, data: memoryview) -> list[Any]:
        rng = self._rng
        match rng.randrange(8):
            case 0:
                return []
            case 1:
                self._kept.append(bytes(data))
                return []
            case 2:
                return [data, bytes(data), data]
            case 3:
                kept, self._kept = self._kept, []
                return [*kept, data]
            case 4:
                cut = rng.randrange(len(data))
                return [piece for piece in (data[:cut], bytearray(b"own" * rng.choice([1, 9000])), data[cut:]) if piece]
            case 5:
                return [data[at : at + 1] for at in range(min(len(data), 100))]
            case _:
                return [data]

    def _from_client(self, data: memoryview) -> Moves:
        rng = self._rng
        if rng.random() < 0.2:
            self.client_may_send = False
        return Moves(self._pieces(data), self._pieces(data) if rng.random() < 0.2 else ())

    def _from_server(self, data: memoryview) -> Moves:
        rng = self._rng
        self.client_may_send = self.client_may_send or rng.random() < 0.7
        return Moves(self._pieces(data) if rng.random() < 0.2 else (), self._pieces(data))


@pytest.mark.parametrize("gathers", [True, False], ids=["sendmsg", "no sendmsg"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_comes_when_the_streams_are_what_the_codec_said(
    contexts: Contexts, kind: str, gathers: bool, seed: int
) -> None:
    rng = random.Random(seed)  # noqa: S311 - not a secret
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translated, "_CAN_GATHER", gathers)
        bench = Bench(Moody(rng), contexts if kind == "tls" else None)
        for _ in range(60):
            _any_event(bench, rng)
        _end_it(bench, rng)
    pair, codec = bench.pair, bench.codec
    assert pair.finished
    assert pair.ending in (Ending.CLIENT_CLOSED, Ending.UPSTREAM_CLOSED)
    assert digest(bytes(bench.near.taken)) == digest(bytes(codec.to_client))
    assert digest(bench.upstream_heard()) == digest(bytes(codec.to_server))
    assert [pair.bytes_up, pair.bytes_down] == [codec.from_client, codec.from_server] == bench.said


def _any_event(bench: Bench, rng: random.Random) -> None:
    size = rng.choice([1, 1, 7, 300, 5000, 20_000, 60_000])
    match rng.randrange(6):
        case 0:
            bench.client_says(rng.randbytes(size))
        case 1:
            bench.upstream_says(rng.randbytes(size))
        case 2:
            bench.near.window += size
        case 3:
            bench.far.window += size
        case 4:
            bench.turn(bench.pair.client)
        case _:
            bench.turn(bench.pair.upstream)


def _end_it(bench: Bench, rng: random.Random) -> None:
    """Deliver all, then let both ends close, either one first. What the codec answers to a closed end is left out."""
    bench.drain()
    while not bench.codec.client_may_send:
        bench.upstream_says(b"you may")
        bench.drain()
    ends = [lambda: setattr(bench.near, "fin", True), bench.upstream_ends]
    rng.shuffle(ends)
    for end in ends:
        end()
        bench.drain()


def test_a_session_that_is_passed_on_asks_nothing_of_the_thread() -> None:
    bench = Bench(ToyCodec())
    bench.near.window = bench.far.window = 1 << 20
    bench.client_says(b"question")
    bench.pair.on_readable(bench.pair.client, bench.buffers)
    assert not bench.pair.changed
    bench.upstream_says(b"answer")
    bench.pair.on_readable(bench.pair.upstream, bench.buffers)
    assert not bench.pair.changed
    assert (bytes(bench.near.taken), bytes(bench.far.taken)) == (b"answer", b"question")


def test_large_pieces_that_the_kernel_takes_whole_ask_nothing_to_be_held() -> None:
    bench = Bench(ToyCodec(down=lambda data: Moves(to_client=[b"head", data])))
    bench.near.window = 1 << 20
    bench.upstream_says(bytes(30_000))
    bench.turn(bench.pair.upstream)
    assert bytes(bench.near.taken) == b"head" + bytes(30_000)
    assert not bench.pair.client.held


def test_a_large_piece_of_the_codecs_own_is_held_as_it_is() -> None:
    large = bytearray(32 << 20)
    bench = Bench(ToyCodec(down=lambda data: Moves(to_client=[b"size", large])))
    bench.near.window = 1000
    bench.upstream_says(b"the last of it")
    bench.turn(bench.pair.upstream)
    held = bench.pair.client.held
    assert held.obj is large
    assert len(held) == len(large) - 996


def test_answers_to_a_client_that_reads_none_of_them_are_bounded() -> None:
    answer = bytes(64)
    bench = Bench(ToyCodec(up=lambda data: Moves(to_client=[answer] * (len(data) // 32))))
    bench.client_says(bytes(4 << 20))
    client = bench.pair.client
    turns = 0
    while bench.masks[client] & READ:
        bench.turn(client)
        turns += 1
    assert _MOST_HELD < len(client.held) <= _MOST_HELD + 2 * len(bench.buffers.raw)
    assert bench.near.incoming, "the client was read to the last byte"
    assert bench.masks[client] == WRITE
    assert not bench.masks[bench.pair.upstream] & READ
    bench.drain()
    assert len(bench.near.taken) == 8 << 20
    assert not bench.near.incoming


def test_a_client_that_may_not_send_is_read_when_the_upstream_says_so() -> None:
    codec = ToyCodec()
    bench = Bench(codec)
    client, upstream = bench.pair.client, bench.pair.upstream
    bench.near.window = bench.far.window = 1 << 20
    codec.client_may_send = False
    bench.client_says(b"one")
    bench.turn(client)
    bench.client_says(b"two")
    assert not bench.masks[client]
    bench.turn(client)
    assert bytes(bench.far.taken) == b"one"
    codec.client_may_send = True
    bench.upstream_says(b"go")
    bench.turn(upstream)
    bench.turn(client)
    assert bytes(bench.far.taken) == b"onetwo"


def test_a_client_that_may_not_send_when_the_upstream_ends_can_still_be_seen_to_end() -> None:
    codec = ToyCodec()
    codec.client_may_send = False
    bench = Bench(codec)
    assert not bench.masks[bench.pair.client]
    bench.upstream_ends()
    bench.turn(bench.pair.upstream)
    assert bench.masks[bench.pair.client] == READ
    bench.near.fin = True
    bench.turn(bench.pair.client)
    assert bench.pair.finished


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_what_the_codec_says_to_an_end_that_had_our_fin_is_dropped(contexts: Contexts, kind: str) -> None:
    both = ToyCodec(lambda data: Moves([data], [data]), lambda data: Moves([data], [data]))
    bench = Bench(both, contexts if kind == "tls" else None)
    bench.near.window = bench.far.window = 1 << 20
    bench.near.fin = True
    bench.turn(bench.pair.client)
    assert bench.far.ended
    bench.upstream_says(b"late")
    bench.turn(bench.pair.upstream)
    assert bytes(bench.near.taken) == b"late"
    assert bench.upstream_heard() == b""
    assert not bench.pair.finished


def test_what_was_read_before_the_hand_over_goes_through_the_codec() -> None:
    codec = ToyCodec(down=lambda data: Moves(to_client=[data, data]))
    near, far = FakeSocket(), FakeSocket()
    near.window = 3
    handover = HandOver(cast(Any, near), cast(Any, far), None, b"abc", RelayPolicy())
    pair = TranslatedPair(handover, codec, lambda pair: None)
    pair.start(Buffers())
    assert (bytes(near.taken), bytes(pair.client.held), pair.bytes_down) == (b"abc", b"abc", 3)


def test_an_upstream_whose_record_is_damaged_is_sent_nothing_more(contexts: Contexts, pki: Pki) -> None:
    bench = Bench(ToyCodec(down=lambda data: Moves([data], [data])), contexts)
    bench.near.window = bench.far.window = 1 << 20
    bench.upstream_says(b"good")
    bench.upstream_says(b"bad")
    bench.far.incoming[-1] ^= 1
    bench.turn(bench.pair.upstream)
    assert bytes(bench.near.taken) == b"good"
    assert bench.pair.ending is Ending.UPSTREAM_ALERT
