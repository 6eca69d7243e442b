"""Arbitrary and damaged bytes from either side: they pass, or they are an error of ours that ends that connection.

No exception of another kind, no hang, no buffer that grows beyond what has come; and what passes is whole frames.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtlskit.errors import ClientProtocolError, MtlskitError, UpstreamProtocolError
from mtlskit.wire.kafka.session import KafkaSession, Moves
from tests.support import kafka_shapes as shapes
from tests.support.mutation import mutated

ARBITRARY = settings(max_examples=400, deadline=None)
DAMAGED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SEEDS = st.integers(0, 2**32)

REQUESTS = [
    shapes.request(key, version) for key, version in [(0, 2), (0, 8), (0, 11), (1, 12), (3, 9), (18, 3), (18, 7)]
]
RESPONSES = {
    (key, version): [shapes.written(shapes.random_shape(shapes.of(key, version), rng), rng)[:400] for _ in range(3)]
    for key, version in [*shapes.ADDRESSED, *((18, version) for version in range(5))]
    for rng in [shapes.rng_of(key * 99 + version)]
}


def ours(node_id: int, _host: str, _port: int) -> tuple[str, int] | None:
    return ("localhost", node_id % 60_000) if node_id % 3 else None


def passed(
    receive: Callable[[memoryview], Moves], data: bytes, seed: int, refusals: type[MtlskitError]
) -> tuple[int, bool]:
    """How many bytes came through, and whether there was a refusal, which must be one that a person can read."""
    moved, refusal = 0, None
    try:
        for part in shapes.cuts(data, shapes.rng_of(seed)):
            moves = receive(part)
            moved += sum(map(len, [*moves.to_server, *moves.to_client]))
    except refusals as error:
        refusal = error
    if refusal is not None:
        assert refusal.sentence.isprintable()
        assert refusal.hint
    return moved, refusal is not None


@ARBITRARY
@given(st.binary(max_size=300), SEEDS)
def test_arbitrary_bytes_from_a_client(data: bytes, seed: int) -> None:
    passed(KafkaSession(ours).receive_from_client, data, seed, ClientProtocolError)


@ARBITRARY
@given(st.binary(max_size=300), SEEDS)
def test_arbitrary_bytes_from_an_upstream(data: bytes, seed: int) -> None:
    session = KafkaSession(ours)
    session.receive_from_client(b"".join(REQUESTS))
    passed(session.receive_from_server, data, seed, UpstreamProtocolError)


@ARBITRARY
@given(mutated([b"".join(REQUESTS), b"".join(REQUESTS[:3] * 2)]), SEEDS)
def test_damaged_requests(data: bytes, seed: int) -> None:
    moved, _ = passed(KafkaSession(ours).receive_from_client, data, seed, ClientProtocolError)
    assert moved <= len(data) + 24 * data.count(b"\0\x12")  # our own answers to ApiVersions


@pytest.mark.parametrize(("api_key", "version"), sorted(RESPONSES))
@DAMAGED
@given(data=st.data(), seed=SEEDS)
def test_damaged_responses(api_key: int, version: int, data: st.DataObject, seed: int) -> None:
    """With a size that is right and with one that is not."""
    payload = data.draw(mutated(RESPONSES[api_key, version]) | st.binary(max_size=60).map(lambda it: b"\0\0\0\7" + it))
    session = KafkaSession(ours)
    session.receive_from_client(shapes.request(api_key, version))
    moved, refused = passed(session.receive_from_server, shapes.frame(payload), seed, UpstreamProtocolError)
    assert moved == 0 or not refused  # nothing of a response that is refused has been passed on
    assert refused or session.quiet
