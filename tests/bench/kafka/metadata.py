"""A Metadata response of a large cluster rewritten, in this process, without sockets: `mtlskit.wire.kafka` alone.

Every client asks for one when it starts and every few minutes. It comes in the pieces in which the relay reads; each
time a session of its own rewrites it. The response is written by kio.
"""

from __future__ import annotations

import importlib
import statistics
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

from kio.schema.errors import ErrorCode

from mtlskit.net.relay.pair import PART_SIZE
from mtlskit.wire.kafka.session import KafkaSession
from tests.bench.book import Figure
from tests.bench.contenders import MTLSKIT
from tests.bench.kafka.lab import KafkaLab
from tests.support import kafka_shapes as shapes

__all__ = ["figure", "measure"]

_KEY, _VERSION = 3, 12
_TOPIC = 100
"""Partitions of each topic."""


def figure(brokers: int, partitions: int) -> Figure:
    """Of one response: the median in each round."""
    return Figure("metadata", f"{brokers} brokers, {partitions} partitions", "ms")


def measure(lab: KafkaLab) -> None:
    """There is nobody to take turns with."""
    size = lab.size
    frame = shapes.frame(shapes.body(_response(size.brokers, size.partitions)))
    lab.book.note(f"metadata: the response has {len(frame)} bytes")
    for turn in range(size.rounds):
        taken = statistics.median(_rewritten(frame) for _ in range(size.rewrites))
        lab.book.add(figure(size.brokers, size.partitions), MTLSKIT, turn, taken * 1000)


def _rewritten(frame: bytes) -> float:
    """Seconds."""
    session = KafkaSession(
        lambda node_id, _host, _port: ("127.0.0.1", 9093 + node_id),
        denied=lambda _denied: None,  # as the proxy has it: what the cluster refuses is looked for
    )
    session.receive_from_client(shapes.request(_KEY, _VERSION))
    view = memoryview(frame)
    began = time.perf_counter()
    for at in range(0, len(frame), PART_SIZE):
        session.receive_from_server(view[at : at + PART_SIZE])
    return time.perf_counter() - began


def _response(brokers: int, partitions: int) -> Any:
    """Three replicas of each partition."""
    schema: Any = importlib.import_module(f"kio.schema.metadata.v{_VERSION}.response")
    nodes = [
        schema.MetadataResponseBroker(node_id=node, host=f"broker-{node}.cluster.example", port=9096, rack="a")
        for node in range(1, brokers + 1)
    ]

    def partition(number: int) -> Any:
        held = tuple(1 + (number + turn) % brokers for turn in range(3))
        return schema.MetadataResponsePartition(
            error_code=ErrorCode.none,
            partition_index=number % _TOPIC,
            leader_id=held[0],
            leader_epoch=7,
            replica_nodes=held,
            isr_nodes=held,
        )

    topics = [
        schema.MetadataResponseTopic(
            error_code=ErrorCode.none,
            name=f"topic-{first // _TOPIC}",
            topic_id=UUID(int=first + 1),
            partitions=tuple(partition(number) for number in range(first, min(first + _TOPIC, partitions))),
        )
        for first in range(0, partitions, _TOPIC)
    ]
    return schema.MetadataResponse(
        throttle_time=timedelta(0), brokers=tuple(nodes), cluster_id="x" * 22, controller_id=1, topics=tuple(topics)
    )
