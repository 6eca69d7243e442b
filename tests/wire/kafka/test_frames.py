"""Frames in any fragmentation: what passes, is dropped, held or looked at again, and sizes that lie."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlskit.errors import ClientProtocolError, Code, MtlskitError, UpstreamProtocolError
from mtlskit.wire.kafka.frames import MAX_FRAME, REQUESTS, RESPONSES, Direction, Fate, FrameReader
from mtlskit.wire.kafka.primitives import Buffer
from tests.support.kafka_shapes import cuts, frame, rng_of

KINDS = b"pdhrm"  # pass, drop, hold and leave, hold and replace, ask for more


class Script:
    """Frames say by their first byte what is to become of them; `expect` says it once more, in another way."""

    def __init__(self, *, answers: bool = False, max_held: int = 1 << 20) -> None:
        self.reader = FrameReader(
            RESPONSES, self.consider, rewrite=self.rewrite, between=self.between, max_held=max_held
        )
        self.answers = answers
        self.ended = 0

    def consider(self, buffer: Buffer, at: int, size: int) -> Fate:
        kind = buffer[at]
        if kind == ord("m"):  # its second byte: how much of it must be there
            wanted = min(buffer[at + 1] * 3, size)
            return Fate.PASS if len(buffer) - at >= wanted else Fate.MORE
        return {ord("p"): Fate.PASS, ord("d"): Fate.DROP}.get(kind, Fate.HOLD)

    def rewrite(self, payload: memoryview) -> list[Buffer]:
        return [b"new ", payload[:2], payload[4:]] if payload[0] == ord("r") else []

    def between(self) -> bytes:
        self.ended += 1
        return b"<own>" if self.answers and self.ended % 2 else b""

    def expect(self, payloads: list[bytes]) -> bytes:
        out = b""
        for number, payload in enumerate(payloads, 1):
            if payload[0] == ord("r"):
                out += frame(b"new " + payload[:2] + payload[4:])
            elif payload[0] != ord("d"):
                out += frame(payload)
            if self.answers and number % 2:
                out += b"<own>"
        return out


PAYLOADS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.binary(min_size=3, max_size=700)).map(lambda it: bytes(it[:1]) + it[1]),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(PAYLOADS, st.booleans(), st.integers(0, 2**32))
def test_any_fragmentation_gives_the_same(payloads: list[bytes], answers: bool, seed: int) -> None:
    script = Script(answers=answers)
    stream = b"".join(map(frame, payloads))
    got = b""
    for part in cuts(stream, rng_of(seed), most=30):
        pieces = script.reader.receive(part)
        assert all(len(piece) for piece in pieces)
        got += b"".join(pieces)
    assert got == script.expect(payloads)
    assert script.ended == len(payloads)
    assert script.reader.blank
    assert not script.reader.inside


@given(PAYLOADS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_one_byte_at_a_time(payloads: list[bytes], answers: bool) -> None:
    script = Script(answers=answers)
    stream = b"".join(map(frame, payloads))
    got = b"".join(b"".join(script.reader.receive(stream[at : at + 1])) for at in range(len(stream)))
    assert got == script.expect(payloads)


def test_nothing_gives_nothing() -> None:
    script = Script()
    assert script.reader.receive(b"") == []
    script.reader.receive(frame(b"p" * 9)[:-1])
    assert script.reader.receive(b"") == []


def test_frames_that_pass_go_on_as_one_range_of_the_buffer() -> None:
    buffer = memoryview(bytearray(frame(b"pass") * 50 + frame(b"hold") * 3 + frame(b"more") + frame(b"part")[:6]))
    pieces = Script().reader.receive(buffer)
    assert len(pieces) == 1
    assert isinstance(pieces[0], memoryview)
    assert (len(pieces[0]), pieces[0].obj is buffer.obj) == (len(buffer) - 6, True)


def test_the_middle_of_a_frame_is_given_back_as_it_came() -> None:
    reader = Script().reader
    reader.receive(struct.pack("!i", 1 << 20) + b"pass")
    part = memoryview(bytes(1000))
    assert reader.receive(part)[0] is part
    assert reader.inside
    assert not reader.blank


def test_what_follows_a_held_frame_is_not_copied() -> None:
    payload = b"r---" + bytes(100_000)
    buffer = memoryview(bytearray(frame(payload)))
    front, rest = Script().reader.receive(buffer)
    assert isinstance(rest, memoryview)
    assert (len(front), rest.obj is buffer.obj) == (4 + 6, True)


def test_a_size_promises_nothing() -> None:
    """Memory grows with what has come, not with what was announced."""
    reader = Script(max_held=1 << 29).reader
    tracemalloc.start()
    try:
        reader.receive(struct.pack("!i", 1 << 28) + b"hold")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 16


@pytest.mark.parametrize("whole", [True, False])
def test_a_frame_that_is_too_large_to_be_held(whole: bool) -> None:
    reader = Script(max_held=100).reader
    assert b"".join(reader.receive(frame(b"h" * 96))) == frame(b"h" * 96)
    data = frame(b"h" * 97)
    if not whole:
        reader.receive(data[:1])
        data = data[1:]
    with pytest.raises(UpstreamProtocolError, match="of 101 bytes names brokers and is above the limit of 100"):
        reader.receive(data)


def test_a_frame_that_is_held_stays_as_it_is_where_nobody_rewrites() -> None:
    reader = FrameReader(RESPONSES, lambda *_: Fate.HOLD)
    assert reader.receive(frame(b"held")[:7]) == []
    assert b"".join(reader.receive(frame(b"held")[7:])) == frame(b"held")


@pytest.mark.parametrize("direction", [REQUESTS, RESPONSES])
@pytest.mark.parametrize("size", [MAX_FRAME, 0x14030000 - 1, 0x14030500, 0x16040000, 0x18030000, 100])
def test_sizes_that_can_be(direction: Direction, size: int) -> None:
    reader = FrameReader(direction, lambda *_: Fate.PASS)
    data = struct.pack("!i", size) + bytes(direction.head)
    assert reader.receive(data) == [data]


def spoken(direction: Direction, data: bytes) -> MtlskitError:
    """The error for these first bytes, which must be the same when they come one by one."""
    errors = []
    for parts in ([data], [data[at : at + 1] for at in range(4)]):
        reader = FrameReader(direction, lambda *_: Fate.PASS)
        *before, last = parts
        for part in before:
            reader.receive(part)
        with pytest.raises(direction.error) as caught:
            reader.receive(last)
        errors.append(caught.value)
    assert str(errors[0]) == str(errors[1])
    return errors[0]


@pytest.mark.parametrize(
    ("data", "code", "seen"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00", Code.KAFKA_CLIENT_SPEAKS_TLS, "16 03 01 02"),
        (b"\x16\x03\x03\x00\xff\x01\x00", Code.KAFKA_CLIENT_SPEAKS_TLS, "16 03 03 00"),
        (b"GET / HTTP/1.1\r\n", Code.KAFKA_CLIENT_SPEAKS_HTTP, "'GET '"),
        (b"OPTIONS * HTTP/1.1\r\n", Code.KAFKA_CLIENT_SPEAKS_HTTP, "'OPTI'"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Code.KAFKA_CLIENT_RUBBISH, "53 53 48 2d, 'SSH-'"),
        (b"\xff\xff\xff\xff", Code.KAFKA_CLIENT_RUBBISH, "a size of -1 bytes"),
        (b"\0\0\0\0", Code.KAFKA_CLIENT_RUBBISH, "a size of 0 bytes"),
        (b"\0\0\0\7", Code.KAFKA_CLIENT_RUBBISH, "a size of 7 bytes"),
        (struct.pack("!i", MAX_FRAME + 1), Code.KAFKA_CLIENT_RUBBISH, "a size of 1073741825 bytes"),
    ],
)
def test_what_a_client_says_instead(data: bytes, code: Code, seen: str) -> None:
    error = spoken(REQUESTS, data)
    assert isinstance(error, ClientProtocolError)
    assert (error.code, seen in error.sentence) == (code, True)


@pytest.mark.parametrize(
    ("data", "code", "seen"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", Code.KAFKA_SERVER_SPEAKS_TLS, "15 03 03 00"),
        (b"HTTP/1.1 400 Bad Request\r\n", Code.KAFKA_SERVER_RUBBISH, "in HTTP"),
        (b"\0\0\0\3", Code.KAFKA_SERVER_RUBBISH, "a size of 3 bytes"),
        (b"\x80\0\0\0", Code.KAFKA_SERVER_RUBBISH, "a size of -2147483648 bytes"),
    ],
)
def test_what_an_upstream_says_instead(data: bytes, code: Code, seen: str) -> None:
    error = spoken(RESPONSES, data)
    assert isinstance(error, UpstreamProtocolError)
    assert (error.code, seen in error.sentence) == (code, True)


@pytest.mark.parametrize("code", [80877103, 80877104])
def test_a_postgres_client_is_not_waited_for(code: int) -> None:
    """It sends eight bytes and waits, and a Kafka request has twelve at least."""
    with pytest.raises(ClientProtocolError, match="PostgreSQL") as caught:
        FrameReader(REQUESTS, lambda *_: Fate.PASS).receive(struct.pack("!ii", 8, code))
    assert caught.value.code is Code.KAFKA_CLIENT_RUBBISH
    # As a correlation id of a broker's it is as good as any other.
    reader = FrameReader(RESPONSES, lambda *_: Fate.PASS)
    assert b"".join(reader.receive(struct.pack("!iiI", 8, code, 0))) == struct.pack("!iiI", 8, code, 0)
