"""What a client says first: every legal opening at every split, every wrong one with its own code."""

from __future__ import annotations

import struct
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import ClientProtocolError, Code
from mtlskit.wire.postgres.messages import GSSENC_REQUEST, SSL_REQUEST, cancel_request, startup_message
from mtlskit.wire.postgres.startup import (
    MAX_BUFFERED,
    CancelRequested,
    EncryptionRequested,
    StartupEvent,
    StartupReader,
    StartupReceived,
)

STARTUP = startup_message({"user": "ada", "database": "engine", "application_name": "psql"})
CLIENT_HELLO = bytes.fromhex("160301020001 0001fc0303") + b"\x5a" * 64


def read(*pieces: bytes) -> tuple[list[StartupEvent], bytes, Code | None]:
    """Feed the pieces one by one: the events, what is trailing, and the code of the error that ended it."""
    reader = StartupReader()
    events: list[StartupEvent] = []
    try:
        for piece in pieces:
            reader.receive(piece)
            while event := reader.next_event():
                events.append(event)
    except ClientProtocolError as error:
        return events, b"", error.code
    return events, reader.trailing, None


def one_by_one(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def packet(length: int, code: int, body: bytes = b"") -> bytes:
    return struct.pack("!II", length, code) + body


def test_a_startup_message() -> None:
    events, trailing, code = read(STARTUP)
    parameters = {"user": "ada", "database": "engine", "application_name": "psql"}
    assert events == [StartupReceived((3, 0), parameters, STARTUP)]
    assert (trailing, code) == (b"", None)


SSL, GSS = EncryptionRequested("ssl"), EncryptionRequested("gss")
OPENINGS = {
    "plain": (b"", []),
    "ssl": (SSL_REQUEST, [SSL]),
    "gss": (GSSENC_REQUEST, [GSS]),
    "gss then ssl": (GSSENC_REQUEST + SSL_REQUEST, [GSS, SSL]),
    "ssl then gss": (SSL_REQUEST + GSSENC_REQUEST, [SSL, GSS]),
    "four times": (SSL_REQUEST * 2 + GSSENC_REQUEST * 2, [SSL, SSL, GSS, GSS]),
}


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("last", [STARTUP, cancel_request(4711, b"\1\2\3\4"), cancel_request(1, b"k" * 256)])
def test_every_opening_at_every_split(opening: str, last: bytes) -> None:
    sent, expected = OPENINGS[opening]
    whole = sent + last + b"trailing"
    outcome = read(whole)
    assert outcome[0][:-1] == expected
    assert isinstance(outcome[0][-1], StartupReceived | CancelRequested)
    assert outcome[0][-1].packet == last
    assert outcome[1:] == (b"trailing", None)
    assert read(*one_by_one(whole)) == outcome
    for at in range(len(whole)):
        assert read(whole[:at], whole[at:]) == outcome


def test_events_come_as_soon_as_their_bytes_are_there() -> None:
    reader = StartupReader()
    assert reader.next_event() is None
    for sent, event in ((SSL_REQUEST, SSL), (GSSENC_REQUEST, GSS)):
        reader.receive(sent[:-1])
        assert reader.next_event() is None
        reader.receive(memoryview(sent)[-1:])
        assert reader.next_event() == event
        assert reader.next_event() is None
        assert reader.trailing == b""
    reader.receive(STARTUP)
    assert reader.trailing == b""  # nothing is trailing before the last packet has been read
    assert isinstance(reader.next_event(), StartupReceived)
    reader.receive(b"more")
    assert reader.next_event() is None
    assert reader.trailing == b"more"


@pytest.mark.parametrize("minor", [0, 2, 9999])
def test_any_minor_version_is_left_to_the_server(minor: int) -> None:
    (event,), _, _ = read(startup_message({"user": "ada", "_pq_.greased": "x"}, (3, minor)))
    assert isinstance(event, StartupReceived)
    assert event.version == (3, minor)


def test_cancel_requests_of_both_protocols() -> None:
    for secret in (b"\xff\xfe\xfd\xfc", b"s" * 32, b"l" * 256):
        sent = cancel_request(0xFFFF_FFFF, secret)
        assert read(sent) == ([CancelRequested(0xFFFF_FFFF, secret, sent)], b"", None)


def test_parameters_that_are_not_utf8_lose_no_byte() -> None:
    sent = packet(20, 0x30000, b"user\0\xff\xfea\0\0\0\0"[:12])
    assert read(sent)[2] is Code.PG_CLIENT_RUBBISH  # cut in the wrong place: it must end with a lone NUL
    body = b"user\0\xff\xfea\0\0"
    (event,), _, _ = read(packet(8 + len(body), 0x30000, body))
    assert isinstance(event, StartupReceived)
    assert event.parameters["user"].encode("utf-8", "surrogateescape") == b"\xff\xfea"
    assert startup_message(event.parameters) == event.packet


def test_odd_but_legal_parameters() -> None:
    for body, parameters in ((b"\0", {}), (b"a\0\0\0", {"a": ""}), (b"user\0x\0user\0y\0\0", {"user": "y"})):
        sent = packet(8 + len(body), 0x30000, body)
        assert read(sent) == ([StartupReceived((3, 0), parameters, sent)], b"", None)


@pytest.mark.parametrize("body", [b"", b"user", b"user\0", b"user\0\0", b"user\0ada\0", b"\0x\0\0", b"user\0ada\0\0\0"])
def test_damaged_parameters(body: bytes) -> None:
    assert read(packet(8 + len(body), 0x30000, body)) == ([], b"", Code.PG_CLIENT_RUBBISH)


def test_the_longest_startup_message_is_postgresqls_own() -> None:
    longest = startup_message({"user": "a" * (10_004 - 8 - 7)})
    assert len(longest) == 10_004
    assert len(read(longest)[0]) == 1
    assert read(startup_message({"user": "a" * (10_004 - 8 - 6)}))[2] is Code.PG_STARTUP_TOO_LONG


WRONG = {
    "longer than allowed": (packet(10_005, 0x30000)[:4], Code.PG_STARTUP_TOO_LONG),
    "much longer": (b"\x00\xff\xff\xff", Code.PG_STARTUP_TOO_LONG),
    "shorter than a header": (b"\0\0\0\x07", Code.PG_CLIENT_RUBBISH),
    "no length": (b"\0\0\0\0", Code.PG_CLIENT_RUBBISH),
    "long SSLRequest": (packet(9, 80877103), Code.PG_CLIENT_RUBBISH),
    "long GSSENCRequest": (packet(12, 80877104), Code.PG_CLIENT_RUBBISH),
    "cancel without a key": (packet(12, 80877102), Code.PG_CLIENT_RUBBISH),
    "cancel with a short key": (packet(15, 80877102), Code.PG_CLIENT_RUBBISH),
    "cancel with a long key": (packet(269, 80877102), Code.PG_CLIENT_RUBBISH),
    "protocol 2.0": (packet(296, 0x20000), Code.PG_CLIENT_VERSION),
    "protocol 4.0": (packet(64, 0x40000), Code.PG_CLIENT_VERSION),
    "ApiVersions of Kafka": (packet(43, 18 << 16 | 3), Code.PG_CLIENT_VERSION),
    "an unknown request": (packet(8, 80877105), Code.PG_CLIENT_VERSION),
    "TLS": (b"\x16", Code.PG_CLIENT_SPEAKS_TLS),
    "TLS after an SSLRequest": (SSL_REQUEST + CLIENT_HELLO[:1], Code.PG_CLIENT_SPEAKS_TLS),
    "GET": (b"GET ", Code.PG_CLIENT_SPEAKS_HTTP),
    "OPTIONS": (b"OPTIONS ", Code.PG_CLIENT_SPEAKS_HTTP),
    "HTTP/2": (b"PRI ", Code.PG_CLIENT_SPEAKS_HTTP),
    "nearly HTTP": (b"GEX", Code.PG_CLIENT_RUBBISH),
    "SSH": (b"S", Code.PG_CLIENT_RUBBISH),
    "a message of a running session": (b"Q", Code.PG_CLIENT_RUBBISH),
    "a fifth negotiation": (SSL_REQUEST * 5, Code.PG_CLIENT_TOO_MANY_NEGOTIATIONS),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_with_the_very_byte_that_settles_it(name: str) -> None:
    sent, code = WRONG[name]
    assert read(sent)[2] is code
    assert read(*one_by_one(sent))[2] is code
    assert read(sent[:-1])[2] is None  # one byte before, it might still have become something
    assert read(sent + b"anything" * 100)[2] is code


@pytest.mark.parametrize("name", WRONG)
def test_each_refusal_is_one_line_and_says_what_to_do(name: str) -> None:
    reader = StartupReader()
    reader.receive(WRONG[name][0])
    with pytest.raises(ClientProtocolError) as caught:
        deque(iter(reader.next_event, None), maxlen=0)  # all events
    assert "\n" not in caught.value.sentence + caught.value.hint
    assert caught.value.hint


def test_a_client_of_kafka_is_told_which_kind_of_tunnel_it_needs() -> None:
    reader = StartupReader()
    reader.receive(packet(43, 18 << 16 | 4))
    with pytest.raises(ClientProtocolError) as caught:
        reader.next_event()
    assert "speaks the Kafka protocol" in caught.value.sentence
    assert 'kind = "kafka"' in caught.value.hint


def test_a_refused_client_stays_refused() -> None:
    reader = StartupReader()
    reader.receive(SSL_REQUEST * 5)
    for _ in range(4):
        assert reader.next_event() == SSL
    for _ in range(2):
        with pytest.raises(ClientProtocolError):
            reader.next_event()
    assert reader.trailing == b""


def test_a_client_with_direct_tls_is_told_what_to_set() -> None:
    for negotiations, words in ((0, "at once"), (1, "although it was told")):
        reader = StartupReader()
        reader.receive(SSL_REQUEST * negotiations + CLIENT_HELLO)
        for _ in range(negotiations):
            assert reader.next_event() == SSL
        with pytest.raises(ClientProtocolError, match=words) as caught:
            reader.next_event()
        assert "sslnegotiation=direct" in caught.value.hint
        assert "sslmode=disable" in caught.value.hint


def test_a_flood_is_refused_before_and_after_the_startup_message() -> None:
    reader = StartupReader()
    reader.receive(STARTUP)
    assert isinstance(reader.next_event(), StartupReceived)
    reader.receive(b"x" * MAX_BUFFERED)
    with pytest.raises(ClientProtocolError, match="before its start-up was answered") as caught:
        reader.receive(b"x")
    assert caught.value.code is Code.PG_CLIENT_RUBBISH
    assert len(reader.trailing) == MAX_BUFFERED
    with pytest.raises(ClientProtocolError):
        StartupReader().receive(b"\0" * (MAX_BUFFERED + 1))


PACKETS = st.sampled_from([SSL_REQUEST, GSSENC_REQUEST, STARTUP, cancel_request(1, b"abcd"), CLIENT_HELLO, b"GET / "])
STREAMS = st.lists(PACKETS | st.binary(max_size=20) | st.binary(max_size=12).map(lambda b: b"\0\0\0" + b), max_size=6)


@given(STREAMS.map(b"".join), st.data())
def test_splits_never_change_the_outcome(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert read(*pieces) == read(stream)


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_rubbish_raises_nothing_but_our_errors_and_buffers_stay_bounded(pieces: list[bytes]) -> None:
    _, trailing, code = read(*pieces)  # any other exception would come out of it
    assert len(trailing) <= MAX_BUFFERED
    assert code is None or code.startswith("MTLS-PG-")
