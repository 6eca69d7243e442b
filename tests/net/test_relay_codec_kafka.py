"""The relay with the codec that it was made for: a pipelining Kafka client, and a fake broker behind TLS."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from mtlskit.errors import MtlskitError
from mtlskit.net.relay import Ending, Relay
from mtlskit.wire.kafka.capping import unsupported
from mtlskit.wire.kafka.session import KafkaSession
from tests.support.kafka_shapes import frame, request
from tests.support.relay_peers import Session, Sessions, read_exactly, relayed

LARGE = 50 << 20
FETCH, FIND_COORDINATOR, API_VERSIONS = 1, 10, 18


def resolve(node_id: int, host: str, port: int) -> tuple[str, int]:
    return "localhost", 9000 + node_id


def kafka(session: Session[Any]) -> Session[Any]:
    return replace(session, handover=replace(session.handover, codec=KafkaSession(resolve)))


def response(correlation_id: int, body: bytes) -> bytes:
    return frame(struct.pack("!i", correlation_id) + body)


def coordinator(correlation_id: int, host: bytes, port: int) -> bytes:
    return response(correlation_id, struct.pack("!hih", 0, 2, len(host)) + host + struct.pack("!i", port))


async def test_a_pipelined_exchange_with_a_response_of_50_mib(relay: Relay, sessions: Sessions) -> None:
    session = kafka(sessions.tls())
    forwarded = request(FETCH, 15, 1) + request(FIND_COORDINATOR, 0, 3) + request(FETCH, 15, 4)
    asked = request(FETCH, 15, 1) + request(API_VERSIONS, 5, 2) + forwarded[len(request(FETCH, 15, 1)) :]
    expected = [
        frame(unsupported(2, 4)),
        coordinator(3, b"localhost", 9002),
        response(4, b"small"),
    ]

    def broker() -> None:
        assert read_exactly(session.upstream, len(forwarded)) == forwarded
        session.upstream.sendall(struct.pack("!ii", LARGE + 4, 1))
        for _ in range(LARGE >> 20):
            session.upstream.sendall(bytes(1 << 20))
        session.upstream.sendall(coordinator(3, b"b-2.example", 9096) + response(4, b"small"))

    def client() -> tuple[int, list[bytes]]:
        session.client.sendall(asked)
        assert read_exactly(session.client, 8) == struct.pack("!ii", LARGE + 4, 1)
        zeros = memoryview(bytearray(1 << 20))
        left = LARGE
        while left:
            count = session.client.recv_into(zeros[: min(left, len(zeros))])
            assert zeros[:count] == bytes(count)
            left -= count
        rest = [read_exactly(session.client, len(piece)) for piece in expected]
        peak = tracemalloc.get_traced_memory()[1]
        session.client.close()
        session.upstream.close()
        return peak, rest

    tracemalloc.start()
    try:
        outcome, _, (peak, rest) = await relayed(relay, session, broker, client)
    finally:
        tracemalloc.stop()
    assert rest == expected
    assert peak < 8 << 20, "the response was kept"
    assert outcome.ending in (Ending.CLIENT_CLOSED, Ending.UPSTREAM_CLOSED)  # whichever the relay hears of first
    assert outcome.bytes_up == len(asked)


@pytest.mark.parametrize("who", ["client", "broker"])
async def test_what_is_no_kafka_ends_the_session_with_the_reason(relay: Relay, sessions: Sessions, who: str) -> None:
    session = kafka(sessions.tls())
    (session.client if who == "client" else session.upstream).sendall(b"GET / HTTP/1.1\r\n\r\n")
    outcome, _ = await relayed(relay, session, lambda: session.client.recv(1))
    assert outcome.ending is Ending.REFUSED
    assert isinstance(outcome.error, MtlskitError)
    assert "HTTP" in str(outcome.error)
