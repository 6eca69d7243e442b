"""A record of our own: what is sent is what kio and aiokafka read, and of what comes only a sound answer is taken."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.index import load_request_schema

from mtlskit.errors import UpstreamProtocolError
from mtlskit.wire.kafka.records import (
    Fetched,
    batch_of,
    fetch_request,
    fetched_of,
    holds_offset,
    produce_request,
    produced_of,
)
from tests.support import kafka_shapes as shapes

SEEDS = st.integers(0, 2**32)


def sent(api_key: int, version: int, request: bytes) -> Any:
    header, body = shapes.read(load_request_schema(api_key, version), request[4:])
    assert (header.request_api_key, header.request_api_version) == (api_key, version)
    assert (header.correlation_id, header.client_id) == (5, "mtlskit-doctor")
    return body


@settings(max_examples=50, deadline=None)
@given(key=st.binary(max_size=200), value=st.binary(max_size=400), when=st.integers(0, 2**42))
def test_a_batch_reads_as_it_was_written(key: bytes, value: bytes, when: int) -> None:
    batch = DefaultRecordBatch(batch_of(key, value, when))
    assert batch.validate_crc()
    [record] = list(batch)
    assert (record.key, record.value, record.timestamp, record.offset) == (key, value, when, 0)
    assert not record.headers


def test_a_batch_with_a_long_value() -> None:
    """Its lengths take varints of two bytes."""
    [record] = list(DefaultRecordBatch(batch_of(b"k", b"v" * 300, 1)))
    assert record.value == b"v" * 300


def test_what_is_asked() -> None:
    body = sent(0, 3, produce_request(5, "orders", 2, b"records", milliseconds=1500))
    assert body.acks == -1
    assert body.transactional_id is None
    [topic] = body.topic_data
    [partition] = topic.partition_data
    assert (topic.name, partition.index, bytes(partition.records)) == ("orders", 2, b"records")
    body = sent(1, 4, fetch_request(5, "orders", 2, 77, milliseconds=1500))
    [topic] = body.topics
    [partition] = topic.partitions
    assert (topic.topic, partition.partition, partition.fetch_offset) == ("orders", 2, 77)
    assert (body.replica_id, body.min_bytes) == (-1, 1)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_what_became_of_a_record_reads_as_it_were_written(seed: int) -> None:
    entity = shapes.random_shape(shapes.of(0, 3), shapes.rng_of(seed))
    parts = [part for topic in entity.responses for part in topic.partition_responses]
    if parts:
        produced = produced_of(shapes.body(entity))
        assert (produced.error, produced.offset) == (parts[0].error_code, parts[0].base_offset)


@pytest.mark.parametrize("aborted", [None, 0, 3])
@pytest.mark.parametrize("error", [0, 29])
@pytest.mark.parametrize("records", [None, b"", batch_of(b"k", b"v", 1)])
def test_what_is_fetched_reads_as_it_was_written(aborted: int | None, error: int, records: bytes | None) -> None:
    """Written by hand, and kio reads it so too."""
    transactions = struct.pack("!i", -1 if aborted is None else aborted) + bytes(16 * (aborted or 0))
    content = struct.pack("!i", -1) if records is None else struct.pack("!i", len(records)) + records
    head = struct.pack("!iii", 5, 0, 1) + b"\0\1t" + struct.pack("!iihqq", 1, 2, error, 8, 8)
    answer = head + transactions + content
    [topic] = shapes.read(shapes.of(1, 4), answer)[1].responses
    [partition] = topic.partitions
    assert (partition.error_code, len(partition.aborted_transactions or ())) == (error, aborted or 0)
    assert fetched_of(answer) == Fetched(error, records or b"")


def test_answers_about_nothing() -> None:
    for answer in (struct.pack("!ii", 1, 0), struct.pack("!ii", 1, 1) + b"\0\1t" + struct.pack("!i", 0)):
        with pytest.raises(UpstreamProtocolError, match="nothing of the record"):
            produced_of(answer)
        with pytest.raises(UpstreamProtocolError, match="nothing of the partition"):
            fetched_of(answer[:4] + bytes(4) + answer[4:])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=160))
def test_arbitrary_answers(answer: bytes) -> None:
    for read in (produced_of, fetched_of):
        try:
            read(answer)
        except UpstreamProtocolError as error:
            assert error.sentence.isprintable()  # noqa: PT017 - either is right
    holds_offset(answer, 0)


def at_offset(batch: bytes, offset: int) -> bytes:
    """As a broker stores it."""
    return struct.pack("!q", offset) + batch[8:]


def test_a_record_is_found_by_its_offset() -> None:
    ours = batch_of(b"k", b"v", 1)
    records = at_offset(ours, 7) + at_offset(ours, 8) + at_offset(ours, 9)[:-1]
    assert [offset for offset in range(12) if holds_offset(records, offset)] == [7, 8, 9]
    assert not holds_offset(records[: len(ours)], 8)
    assert not holds_offset(ours[:25], 0)  # a batch that is cut off before it says how far it goes


def test_records_of_another_time() -> None:
    ours = batch_of(b"k", b"v", 1)
    assert not holds_offset(ours[:16] + b"\1" + ours[17:], 0)  # magic 1
    assert not holds_offset(ours[:8] + struct.pack("!i", -12) + ours[12:], 3)  # or it would be read for ever
