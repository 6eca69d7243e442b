"""Questions about a whole cluster: kio reads what is asked, and writes what is answered."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.index import load_request_schema
from kio.schema.index import api_key_map, schema_name_map

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.kafka.cluster import (
    LONGEST_NAME,
    MOST_MEMBERS,
    MOST_NAMES,
    MOST_PARTITIONS,
    NAMED_METADATA,
    WHOLE_METADATA,
    Member,
    cluster_of,
    cluster_request,
    groups_of,
    groups_request,
    mechanisms_of,
    mechanisms_request,
    release_of,
    topic_request,
)
from tests.support import kafka_shapes as shapes

SEEDS = st.integers(0, 2**32)


def sent(api_key: int, version: int, request: bytes) -> tuple[Any, Any]:
    header, body = shapes.read(load_request_schema(api_key, version), request[4:])
    assert (header.request_api_key, header.request_api_version) == (api_key, version)
    assert (header.correlation_id, header.client_id) == (5, "mtlskit")
    return header, body


def test_what_is_asked() -> None:
    assert sent(3, 2, cluster_request(5))[1].topics is None
    assert sent(3, 2, cluster_request(5, topics=False))[1].topics == ()
    body = sent(3, 4, topic_request(5, "orders"))[1]
    assert [topic.name for topic in body.topics] == ["orders"]
    assert body.allow_auto_topic_creation is False
    sent(16, 0, groups_request(5))
    assert sent(17, 1, mechanisms_request(5, "SCRAM-SHA-512"))[1].mechanism == "SCRAM-SHA-512"


@pytest.mark.parametrize(("api_key", "version"), [(3, 2), (3, 4), (16, 0), (17, 1)])
def test_kafka_4_still_takes_these_versions(api_key: int, version: int) -> None:
    assert version in schema_name_map[api_key_map[api_key]]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, version=st.sampled_from([WHOLE_METADATA, NAMED_METADATA]))
def test_a_cluster_reads_as_it_was_written(seed: int, version: int) -> None:
    entity = shapes.random_shape(shapes.of(3, version), shapes.rng_of(seed))
    found = cluster_of(shapes.body(entity), version)
    assert found.members == tuple(Member(each.node_id, each.host, each.port) for each in entity.brokers)
    assert (found.cluster_id, found.controller) == (entity.cluster_id or "", entity.controller_id)
    assert len(found.topics) == len(entity.topics)
    for topic, wanted in zip(found.topics, entity.topics, strict=True):
        assert (topic.name, topic.internal, topic.partitions) == (
            wanted.name or "",
            wanted.is_internal,
            len(wanted.partitions),
        )
        assert topic.error == wanted.error_code
        assert topic.leaderless == tuple(part.partition_index for part in wanted.partitions if part.leader_id < 0)
        led = [(part.partition_index, part.leader_id) for part in wanted.partitions if part.leader_id >= 0]
        assert topic.led == tuple(led[:1])
        behind = [part for part in wanted.partitions if len(part.isr_nodes) < len(part.replica_nodes)]
        assert topic.under_replicated == len(behind)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_groups_and_mechanisms_read_as_they_were_written(seed: int) -> None:
    groups = shapes.random_shape(shapes.of(16, 0), shapes.rng_of(seed))
    found, names = groups_of(shapes.body(groups)), [group.group_id for group in groups.groups]
    assert (found.error, found.count, found.begun) == (groups.error_code, len(names), len(names))
    assert found.names == tuple(sorted(name[:LONGEST_NAME] for name in names)[:MOST_NAMES])
    mechanisms = shapes.random_shape(shapes.of(17, 1), shapes.rng_of(seed))
    assert mechanisms_of(shapes.body(mechanisms)) == tuple(mechanisms.mechanisms)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=120))
def test_arbitrary_answers(answer: bytes) -> None:
    for read in (cluster_of, lambda data: cluster_of(data, NAMED_METADATA), groups_of, mechanisms_of):
        try:
            read(answer)
        except UpstreamProtocolError as error:
            assert error.sentence.isprintable()  # noqa: PT017 - either is right


def test_a_topic_that_promises_more_than_is_there() -> None:
    lie = struct.pack("!iihii", 7, 0, -1, -1, 1) + b"\0\0\0\1t\0" + struct.pack("!ihiii", 1, 0, 0, 1, 2**30)
    with pytest.raises(UpstreamProtocolError):
        cluster_of(lie)


def of_cluster(members: bytes, topics: bytes = bytes(4)) -> bytes:
    return bytes(4) + members + struct.pack("!hi", -1, 1) + topics


def array(count: int, element: bytes) -> bytes:
    return struct.pack("!i", count) + element * count


EMPTY_TOPIC = struct.pack("!hh?i", 0, 0, False, 0)
PARTITION = struct.pack("!hiiii", 0, 0, 1, 0, 0)
FULL_TOPIC = EMPTY_TOPIC[:-4] + array(MOST_PARTITIONS // 2, PARTITION)


@pytest.mark.parametrize(
    "answer",
    [
        of_cluster(array(MOST_MEMBERS + 1, struct.pack("!ihih", 1, 0, 9092, -1))),
        of_cluster(bytes(4), array(MOST_PARTITIONS + 1, EMPTY_TOPIC)),
        of_cluster(bytes(4), array(2, FULL_TOPIC)),
    ],
    ids=["brokers", "topics", "partitions"],
)
def test_a_cluster_larger_than_is_read(answer: bytes) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        cluster_of(answer)
    assert caught.value.code is Code.KAFKA_RESPONSE_TOO_LARGE
    assert "response names more" in caught.value.sentence


def test_a_cluster_as_large_as_is_read() -> None:
    found = cluster_of(of_cluster(bytes(4), array(1, FULL_TOPIC)))
    assert [topic.partitions for topic in found.topics] == [MOST_PARTITIONS // 2]
    assert len(cluster_of(of_cluster(bytes(4), array(MOST_PARTITIONS, EMPTY_TOPIC))).topics) == MOST_PARTITIONS


def test_groups_are_counted_and_few_are_kept() -> None:
    names = [f"{'ours' if number % 2 else 'theirs'}-{number:03}" for number in range(200)]
    groups = b"".join(struct.pack("!h", len(name)) + name.encode() + b"\xff\xff" for name in names)
    found = groups_of(struct.pack("!ihi", 1, 0, len(names)) + groups, "ours-")
    assert (found.count, found.begun) == (200, 100)
    assert found.names == tuple(sorted(names)[:MOST_NAMES])
    long = "x" * 30_000
    [kept] = groups_of(struct.pack("!ihih", 1, 0, 1, len(long)) + long.encode() + b"\xff\xff").names
    assert kept == long[:LONGEST_NAME]


@pytest.mark.parametrize("read", [groups_of, mechanisms_of])
def test_lists_longer_than_are_read(read: Callable[[bytes], object]) -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        read(struct.pack("!ihi", 1, 0, 100_001) + bytes(500_000))
    assert caught.value.code is Code.KAFKA_RESPONSE_TOO_LARGE


@pytest.mark.parametrize(
    ("versions", "release"),
    [
        ({}, "0.10"),
        ({0: (0, 2), 1: (0, 3)}, "0.10.1"),
        ({0: (0, 11), 1: (0, 16)}, "3.8"),
        ({0: (0, 11), 1: (0, 17)}, "3.9"),
        ({0: (0, 12), 1: (4, 17)}, "4.0"),
        ({0: (0, 13), 1: (4, 18)}, "4.1"),
        ({0: (0, 13), 2: (1, 11), 35: (1, 5)}, "4.3"),
    ],
)
def test_the_release_by_what_it_speaks(versions: dict[int, tuple[int, int]], release: str) -> None:
    assert release_of(versions) == release
