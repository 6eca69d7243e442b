"""ApiVersions responses, written and read by kio: capped where we must be able to read, and nowhere else."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode

from mtlskit.errors import UpstreamProtocolError
from mtlskit.wire.kafka.capping import capped, unsupported
from tests.support import kafka_shapes as shapes

CAPS = {0: 13, 1: 15, 3: 13, 10: 6, 18: 4, 60: 2}
LEFT_OUT = {78, 79}


def expected(offers: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    capped_offers = ((key, oldest, min(newest, CAPS.get(key, newest))) for key, oldest, newest in offers)
    return [(key, low, high) for key, low, high in capped_offers if key not in LEFT_OUT and low <= high]


def response(version: int, offers: list[tuple[int, int, int]], rng: shapes.Rng, error: int = 0) -> Any:
    kind = shapes.of(18, version)
    entity = shapes.random_shape(kind, rng)
    return with_offers(entity, offers, error)


def with_offers(entity: Any, offers: list[tuple[int, int, int]], error: int) -> Any:
    kind = type(entity)
    offer = __import__(kind.__module__, fromlist=["x"]).ApiVersion
    values = {name: getattr(entity, name) for name in kind.__dataclass_fields__ if not name.startswith("__")}
    values["error_code"] = ErrorCode(error)
    values["api_keys"] = tuple(offer(api_key=key, min_version=low, max_version=high) for key, low, high in offers)
    return kind(**values)


def cap(payload: bytes, version: int) -> bytes:
    framed = memoryview(b"??" + payload + b"!")
    pieces = capped(framed, 2, len(framed) - 1, version)
    return b"".join(pieces) if pieces else payload


OFFERS = st.lists(
    st.tuples(st.sampled_from([*CAPS, *LEFT_OUT, 2, 8, 36, 90, 32_000]), st.integers(0, 20), st.integers(0, 30)).map(
        lambda offer: (offer[0], min(offer[1:]), max(offer[1:]))
    ),
    max_size=200,
)


@pytest.mark.parametrize("version", range(5))
@settings(max_examples=60, deadline=None)
@given(offers=OFFERS, seed=st.integers(0, 2**32))
def test_only_what_carries_addresses_is_capped(version: int, offers: list[tuple[int, int, int]], seed: int) -> None:
    before = response(version, offers, shapes.rng_of(seed))
    after = with_offers(before, expected(offers), 0)
    assert cap(shapes.body(before), version) == shapes.body(after)
    tagged = shapes.written(before, None)
    assert cap(tagged, version) == shapes.written(after, None)


@pytest.mark.parametrize("version", [3, 4])
def test_unknown_tagged_fields_are_kept_with_their_offers(version: int) -> None:
    def entity(newest: int) -> Any:
        return response(version, [(3, 0, newest), (999, 0, 1)], shapes.rng_of(5))

    before, after = (shapes.written(entity(newest), shapes.rng_of(7)) for newest in (40, 13))
    assert before != after
    assert cap(before, version) == after


def test_what_needs_no_cap_is_left_alone() -> None:
    payload = memoryview(shapes.body(response(4, [(0, 0, 13), (2, 0, 99)], shapes.rng_of(1))))
    assert capped(payload, 0, len(payload), 4) == []


@pytest.mark.parametrize("version", range(5))
def test_a_broker_that_is_older_than_the_request_is_understood(version: int) -> None:
    """Error 35 comes in the layout of version 0, whatever was asked."""
    refusal = unsupported(7, 9)
    assert cap(refusal, version) == unsupported(7, 4)
    assert cap(unsupported(7, 2), version) == unsupported(7, 2)


def test_our_own_refusal_is_what_kio_writes() -> None:
    entity = response(0, [(18, 0, 4)], shapes.rng_of(0), error=35)
    assert unsupported(7, 4) == shapes.body(entity)


def test_a_refusal_that_no_client_can_read_is_replaced() -> None:
    """As librdkafka's mock cluster sends it: error 35, and then the flexible layout."""
    flexible = shapes.body(response(3, [(18, 0, 2)], shapes.rng_of(0), error=35))
    assert cap(flexible, 4) == unsupported(7, 0)


@pytest.mark.parametrize(
    ("payload", "version"),
    [
        (struct.pack("!ih", 7, 0), 0),
        (struct.pack("!ihi", 7, 0, 2) + bytes(6), 1),
        (struct.pack("!ihB", 7, 0, 3) + bytes(6), 3),
        (struct.pack("!ihB", 7, 0, 2) + bytes(6) + b"\1", 3),
        (struct.pack("!ih", 7, 35), -1),
        (b"\0\0\0\7", 4),
    ],
)
def test_a_response_that_cannot_be_read(payload: bytes, version: int) -> None:
    if version == -1:
        assert cap(payload, 0) == unsupported(7, 0)
        return
    with pytest.raises(UpstreamProtocolError, match=rf"ApiVersions response \(api key 18, version {version}\)"):
        cap(payload, version)
