"""Our own question to a cluster: what is sent is what kio reads, and of what comes only a sound answer is taken."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.index import load_request_schema
from kio.schema.errors import ErrorCode
from kio.schema.index import api_key_map, schema_name_map

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.kafka.asking import (
    AnswerReader,
    api_versions_of,
    api_versions_request,
    brokers_of,
    metadata_request,
)
from tests.support import kafka_shapes as shapes

SEEDS = st.integers(0, 2**32)
ARBITRARY = settings(max_examples=300, deadline=None)


def sent(api_key: int, version: int, request: bytes) -> tuple[Any, Any]:
    assert int.from_bytes(request[:4]) == len(request) - 4
    return shapes.read(load_request_schema(api_key, version), request[4:])


def test_what_is_asked() -> None:
    header, body = sent(3, 1, metadata_request(-5))
    assert (header.request_api_key, header.request_api_version) == (3, 1)
    assert (header.correlation_id, header.client_id) == (-5, "mtlskit")
    assert body.topics == ()
    header, _ = sent(18, 0, api_versions_request(9, "c"))
    assert (header.request_api_key, header.request_api_version) == (18, 0)
    assert (header.correlation_id, header.client_id) == (9, "c")


@pytest.mark.parametrize(("api_key", "version"), [(3, 1), (18, 0)])
def test_kafka_4_still_takes_these_versions(api_key: int, version: int) -> None:
    """kio has the versions of Kafka 4.x; those that it dropped (KIP-896) are not there."""
    assert version in schema_name_map[api_key_map[api_key]]
    assert 0 not in schema_name_map[api_key_map[1]]  # Fetch 0 to 3 were dropped


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_an_answer_in_any_pieces(seed: int) -> None:
    rng = shapes.rng_of(seed)
    entity = shapes.random_shape(shapes.of(3, 1), rng)
    payload = shapes.body(entity, 3)
    reader = AnswerReader(3)
    answers = [reader.receive(part) for part in shapes.cuts(shapes.frame(payload), rng)]
    assert [answer for answer in answers if answer is not None] == [payload]
    assert brokers_of(payload) == tuple(
        (broker.node_id, broker.host, broker.port) for broker in entity.brokers if broker.host and broker.node_id >= 0
    )


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_what_a_broker_speaks(seed: int) -> None:
    kind = shapes.of(18, 0)
    entity = shapes.random_shape(kind, shapes.rng_of(seed))
    entity = kind(error_code=ErrorCode(0), api_keys=entity.api_keys)
    assert api_versions_of(shapes.body(entity)) == {
        offer.api_key: (offer.min_version, offer.max_version) for offer in entity.api_keys
    }


def test_a_broker_that_refuses_to_say_what_it_speaks() -> None:
    with pytest.raises(UpstreamProtocolError, match="with error 35") as caught:
        api_versions_of(struct.pack("!ihi", 1, 35, 0))
    assert caught.value.code is Code.KAFKA_SERVER_RUBBISH


@pytest.mark.parametrize(
    ("came", "code", "sentence"),
    [
        (b"\x15\x03\x03\0\2\2\x28", Code.KAFKA_SERVER_SPEAKS_TLS, "answers in TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n", Code.KAFKA_SERVER_RUBBISH, "answers in HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", Code.KAFKA_SERVER_RUBBISH, "no Kafka response"),
        (b"\xff\xff\xff\xff", Code.KAFKA_SERVER_RUBBISH, "a size of -1 bytes"),
        (b"\0\0\x04\x01\0\0\0\3", Code.KAFKA_RESPONSE_TOO_LARGE, "1029 bytes"),
        (b"\0\0\0\4\0\0\0\2", Code.KAFKA_SERVER_RUBBISH, "correlation id 2, and the oldest request has 3"),
        (b"\0\0\0\4\0\0\0\3\0\0\0\4\0\0\0\3", Code.KAFKA_SERVER_RUBBISH, "no request waits for one"),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_what_is_no_answer(came: bytes, code: Code, sentence: str, whole: bool) -> None:
    reader = AnswerReader(3, max_size=1024)
    parts = [came] if whole else [came[at : at + 1] for at in range(len(came))]
    with pytest.raises(UpstreamProtocolError, match=sentence) as caught:
        _ = [reader.receive(part) for part in parts]
    assert caught.value.code is code


@ARBITRARY
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda it: shapes.frame(b"\0\0\0\3" + it)), SEEDS)
def test_arbitrary_bytes(data: bytes, seed: int) -> None:
    """An answer, nothing yet, or an error that a person can read."""
    reader = AnswerReader(3)
    try:
        for part in shapes.cuts(data, shapes.rng_of(seed)):
            answer = reader.receive(part)
            if answer is not None:
                brokers_of(answer)
    except UpstreamProtocolError as error:
        assert error.sentence.isprintable()  # noqa: PT017 - either is right
        assert error.hint  # noqa: PT017 - as above


@ARBITRARY
@given(st.binary(max_size=100))
def test_arbitrary_answers(answer: bytes) -> None:
    for read in (brokers_of, api_versions_of):
        try:
            found = read(answer)
        except UpstreamProtocolError as error:
            assert error.sentence.isprintable()  # noqa: PT017 - either is right
        else:
            assert len(found) <= len(answer)
