"""Both directions of a connection together: turns, acks=0, versions that must not pass, and what a session keeps."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlskit.errors import ClientProtocolError, Code, ListenError, UpstreamProtocolError
from mtlskit.wire.kafka import session
from mtlskit.wire.kafka.acks import AcksReader
from mtlskit.wire.kafka.capping import unsupported
from mtlskit.wire.kafka.inflight import ENOUGH_IN_FLIGHT, MAX_IN_FLIGHT, MAX_SILENT
from mtlskit.wire.kafka.primitives import Buffer
from mtlskit.wire.kafka.session import KafkaSession
from tests.support.kafka_shapes import cuts, frame, request, rng_of

FETCH_15 = request(1, 15)


def ours(node_id: int, _host: str, _port: int) -> tuple[str, int]:
    return "localhost", 9000 + node_id


def response(correlation_id: int, body: bytes = b"") -> bytes:
    return frame(struct.pack("!i", correlation_id) + body)


def coordinator(correlation_id: int, node_id: int, host: str, port: int) -> bytes:
    """A FindCoordinator response in version 0."""
    return response(
        correlation_id, struct.pack("!hih", 0, node_id, len(host)) + host.encode() + struct.pack("!i", port)
    )


class Peer:
    """A session, and what has gone each way."""

    def __init__(self) -> None:
        self.session = KafkaSession(ours)
        self.to_server = b""
        self.to_client = b""

    def client(self, *data: Buffer) -> None:
        for part in data:
            moves = self.session.receive_from_client(part)
            self.to_server += b"".join(moves.to_server)
            self.to_client += b"".join(moves.to_client)

    def server(self, *data: Buffer) -> None:
        for part in data:
            moves = self.session.receive_from_server(part)
            assert not moves.to_server
            self.to_client += b"".join(moves.to_client)


def test_an_address_is_asked_for_before_it_is_passed_on() -> None:
    asked = []

    def resolve(node_id: int, host: str, port: int) -> tuple[str, int]:
        asked.append((node_id, host, port))
        assert peer.to_client == b""
        return ours(node_id, host, port)

    peer = Peer()
    peer.session = KafkaSession(resolve)
    peer.client(request(10, 0))
    peer.server(coordinator(7, 2, "b-2.example", 9096))
    assert asked == [(2, "b-2.example", 9096)]
    assert peer.to_client == coordinator(7, 2, "localhost", 9002)


def test_a_newer_apiversions_request_is_answered_at_once_where_nothing_waits() -> None:
    peer = Peer()
    peer.client(request(18, 5, 1) + request(18, 4, 2))
    assert peer.to_server == request(18, 4, 2)
    assert peer.to_client == frame(unsupported(1, 4))
    peer.server(frame(unsupported(2, 2)))
    assert peer.to_client == frame(unsupported(1, 4)) + frame(unsupported(2, 2))
    assert peer.session.quiet


def test_answers_of_our_own_wait_for_their_turn() -> None:
    peer = Peer()
    peer.client(request(1, 15, 1), request(18, 9, 2), request(18, 5, 3), request(1, 15, 4), request(18, 5, 5))
    assert peer.to_server == request(1, 15, 1) + request(1, 15, 4)
    first, second = response(1, b"one"), response(4, b"two")
    peer.server(first[:9])
    assert peer.to_client == first[:9]
    peer.server(first[9:] + second[:10])
    before = first + frame(unsupported(2, 4)) + frame(unsupported(3, 4))
    assert peer.to_client == before + second[:10]
    peer.server(second[10:])
    assert peer.to_client == before + second + frame(unsupported(5, 4))
    assert (peer.session.in_flight, peer.session.quiet) == (0, True)


def test_an_answer_does_not_break_into_a_response() -> None:
    peer = Peer()
    peer.client(request(1, 15, 1), request(10, 0, 2))
    whole = response(1, bytes(20))
    peer.server(whole[:15])
    peer.client(request(18, 5, 3))
    held = coordinator(2, 1, "h", 1)
    peer.server(whole[15:] + held[:12])
    peer.client(request(18, 6, 4))
    assert peer.to_client == whole
    peer.server(held[12:])
    ends = coordinator(2, 1, "localhost", 9001) + frame(unsupported(3, 4)) + frame(unsupported(4, 4))
    assert peer.to_client == whole + ends


def test_the_head_of_a_response_does_not_hold_up_an_answer_before_it() -> None:
    """Nothing that has been seen of it is on its way yet."""
    peer = Peer()
    peer.client(request(18, 5, 1), request(1, 15, 2))
    peer.server(response(2)[:5])
    peer.client(request(18, 5, 3))
    peer.server(response(2)[5:])
    assert peer.to_client == frame(unsupported(1, 4)) + response(2) + frame(unsupported(3, 4))


@pytest.mark.parametrize("version", range(14))
def test_a_produce_request_without_acks_gets_no_response(version: int) -> None:
    peer = Peer()
    silent, loud = request(0, version, 1, acks=0), request(0, version, 2, acks=-1)
    peer.client(silent + loud + silent)
    assert peer.to_server == silent + loud + silent
    assert peer.session.in_flight == 1


def test_a_response_that_should_not_be_is_dropped() -> None:
    """librdkafka's mock cluster answers Produce requests with acks=0."""
    peer = Peer()
    peer.client(*(request(0, 9, number, acks=0) for number in range(5)), request(1, 15, 5), request(18, 5, 6))
    peer.server(response(1, b"one"), response(3, b"three")[:5], response(3, b"three")[5:])
    assert (peer.to_client, peer.session.in_flight) == (b"", 2)
    peer.server(response(4), response(5, b"five"))
    assert peer.to_client == response(5, b"five") + frame(unsupported(6, 4))
    with pytest.raises(UpstreamProtocolError, match="correlation id 2, and no request waits for one"):
        peer.server(response(2))


def test_requests_that_need_no_response_are_remembered_within_bounds() -> None:
    peer = Peer()
    peer.client(*(request(0, 9, number, acks=0) for number in range(MAX_SILENT + 1)))
    peer.server(response(1))
    with pytest.raises(UpstreamProtocolError, match="no request waits for one"):
        peer.server(response(0))


def test_responses_out_of_turn() -> None:
    peer = Peer()
    with pytest.raises(UpstreamProtocolError, match="correlation id 9, and no request waits for one"):
        peer.server(response(9))
    peer = Peer()
    peer.client(request(1, 15, 1), request(1, 15, 2))
    with pytest.raises(UpstreamProtocolError, match="correlation id 2, and the oldest request has 1"):
        peer.server(response(2))


@pytest.mark.parametrize(
    ("api_key", "version", "offered"),
    [
        (0, 14, "Produce .* its versions up to 13"),
        (1, 16, "Fetch .* its versions up to 15"),
        (3, 14, "Metadata .* its versions up to 13"),
        (10, 7, "FindCoordinator .* its versions up to 6"),
        (60, 3, "DescribeCluster .* its versions up to 2"),
        (78, 0, "ShareFetch .* none of its versions"),
        (79, 1, "ShareAcknowledge .* none of its versions"),
    ],
)
def test_a_version_that_was_not_offered_is_refused(api_key: int, version: int, offered: str) -> None:
    with pytest.raises(ClientProtocolError, match=offered) as caught:
        Peer().client(request(api_key, version))
    assert caught.value.code is Code.KAFKA_CLIENT_VERSION


@pytest.mark.parametrize(("api_key", "version"), [(2, 99), (17, 1), (36, 2), (88, 0), (32_000, 32_000)])
def test_what_carries_no_address_passes_in_any_version(api_key: int, version: int) -> None:
    peer = Peer()
    peer.client(request(api_key, version))
    peer.server(response(7, b"anything"))
    assert (peer.to_server, peer.to_client) == (request(api_key, version), response(7, b"anything"))


def test_sasl_handshake_0_is_refused() -> None:
    with pytest.raises(ClientProtocolError, match="without a frame's header") as caught:
        Peer().client(request(17, 0))
    assert (caught.value.code, "Kafka 1.0" in caught.value.hint) == (Code.KAFKA_SASL_V0, True)


@pytest.mark.parametrize(("api_key", "version"), [(-1, 0), (3, -1), (-32_768, 5)])
def test_negative_numbers_are_no_request(api_key: int, version: int) -> None:
    with pytest.raises(ClientProtocolError, match=f"no Kafka request: api key {api_key} in version {version}"):
        Peer().client(request(api_key, version))


def test_after_an_error_everything_is_the_same_error() -> None:
    peer = Peer()
    with pytest.raises(ClientProtocolError) as first:
        peer.client(request(17, 0))
    for again in (peer.client, peer.server):
        with pytest.raises(ClientProtocolError) as caught:
            again(b"")
        assert caught.value is first.value


def test_an_error_of_the_owner_ends_the_connection() -> None:
    def resolve(_node_id: int, _host: str, _port: int) -> tuple[str, int]:
        raise ListenError(Code.LISTEN_PORT_IN_USE, "port 9002 is in use")

    peer = Peer()
    peer.session = KafkaSession(resolve)
    peer.client(request(10, 0))
    with pytest.raises(ListenError):
        peer.server(coordinator(7, 2, "b-2", 9096))
    with pytest.raises(ListenError):
        peer.client(FETCH_15)
    assert peer.to_client == b""


def test_a_client_that_sends_too_much_is_to_be_left_alone_until_it_was_answered() -> None:
    peer = Peer()
    peer.client(FETCH_15 * (ENOUGH_IN_FLIGHT - 1))
    assert peer.session.client_may_send
    peer.client(FETCH_15)
    assert not peer.session.client_may_send
    peer.server(response(7))
    assert peer.session.client_may_send


def test_the_requests_in_flight_are_bounded() -> None:
    peer = Peer()
    peer.client(*[FETCH_15 * (MAX_IN_FLIGHT // 4)] * 4)
    with pytest.raises(ClientProtocolError, match="has sent 65536 requests and the broker has answered none"):
        peer.client(FETCH_15)


def test_a_session_is_quiet_between_a_response_and_the_next_request() -> None:
    peer = Peer()
    seen = []
    for send, data in ((peer.client, FETCH_15), (peer.server, response(7, bytes(9)))):
        seen.append(peer.session.quiet)
        send(data[:3])
        seen.append(peer.session.quiet)
        send(data[3:-1])
        seen.append(peer.session.quiet)
        send(data[-1:])
    assert seen == [True, False, False, False, False, False]
    assert peer.session.quiet


def ranges_of(buffer: memoryview, pieces: Sequence[Buffer]) -> bool:
    return all(isinstance(piece, memoryview) and piece.obj is buffer.obj for piece in pieces)


def _peak(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_large_fetch_response_and_a_large_produce_request_are_not_kept() -> None:
    peer = Peer()
    part = memoryview(bytes(1 << 16))

    def fetch() -> None:
        peer.client(FETCH_15)
        peer.server(struct.pack("!ii", 4 + (50 << 20), 7))
        for _ in range(800):
            assert ranges_of(part, peer.session.receive_from_server(part).to_client)

    def produce() -> None:
        head = request(0, 11)
        peer.client(struct.pack("!i", len(head) - 4 + (50 << 20)) + head[4:])
        for _ in range(800):
            assert ranges_of(part, peer.session.receive_from_client(part).to_server)

    assert _peak(fetch) < 20_000
    assert peer.session.quiet
    assert _peak(produce) < 20_000
    assert peer.session.in_flight == 1


def test_only_the_front_of_a_produce_request_is_copied() -> None:
    peer = Peer()
    head = request(0, 11)
    whole = struct.pack("!i", len(head) - 4 + 100_000) + head[4:] + bytes(100_000)
    peer.client(whole[:17])
    buffer = memoryview(whole)[17:]
    copied, rest = peer.session.receive_from_client(buffer).to_server
    assert (len(copied) < 300, ranges_of(buffer, [rest])) == (True, True)


def test_a_produce_request_that_comes_byte_by_byte_is_not_read_from_its_start_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thousands of tagged fields would make that a matter of minutes."""
    begun = []

    class Counted(AcksReader):
        def __init__(self, version: int, length: int) -> None:
            begun.append(length)
            super().__init__(version, length)

    monkeypatch.setattr(session, "AcksReader", Counted)
    peer = Peer()
    made = request(0, 9, acks=0) + request(0, 9)
    peer.client(*(made[at : at + 1] for at in range(len(made))))
    assert (len(begun), peer.to_server, peer.session.in_flight) == (2, made, 1)


CALLS = st.lists(st.sampled_from(["fetch", "coordinator", "silent", "loud", "local", "versions", "sasl"]), max_size=25)


@settings(max_examples=300, deadline=None)
@given(CALLS, st.integers(0, 2**32))
def test_whole_conversations_in_any_fragmentation(calls: list[str], seed: int) -> None:
    """Each request gets the answer that belongs to it, in the order of the requests."""
    rng = rng_of(seed)
    asked = served = sent = due = b""
    for number, call in enumerate(calls):
        body = rng.randbytes(rng.randrange(400))
        made, theirs, client_gets = {
            "fetch": (request(1, 12, number), response(number, body), response(number, body)),
            "coordinator": (
                request(10, 0, number),
                coordinator(number, 5, "b.example", 1),
                coordinator(number, 5, "localhost", 9005),
            ),
            "silent": (request(0, 9, number, acks=0), b"", b""),
            "loud": (request(0, 8, number), response(number, body), response(number, body)),
            "local": (request(18, 5, number), b"", frame(unsupported(number, 4))),
            "versions": (request(18, 3, number), frame(unsupported(number, 9)), frame(unsupported(number, 4))),
            "sasl": (request(36, 2, number), response(number, body), response(number, body)),
        }[call]
        asked += made
        served += b"" if call == "local" else made
        sent += theirs
        due += client_gets
    peer = Peer()
    for part in cuts(asked, rng, most=40):
        peer.client(part)
    for part in cuts(sent, rng, most=40):
        peer.server(part)
    assert (peer.to_server, peer.to_client) == (served, due)
    assert peer.session.quiet


def test_a_postgres_client_that_asks_for_no_tls_is_known_too() -> None:
    startup = b"\x00\x03\x00\x00user\0ann\0database\0sales\0\0"
    with pytest.raises(ClientProtocolError, match="PostgreSQL") as caught:
        KafkaSession(ours).receive_from_client(struct.pack("!i", len(startup) + 4) + startup)
    assert caught.value.code is Code.KAFKA_CLIENT_RUBBISH
