"""One client of librdkafka, in a process of its own: `python -m tests.bench.kafka.client JOB`.

A helper (`tests.bench.helper`): it says `{}` when it is connected, begins when its standard input ends, and says what
came of it: `began` and `ended` (monotonic seconds, the same clock in all processes), or in `taken` the seconds that
each record took; or `failed`, with a reason.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

__all__ = ["Job"]

_PATIENCE = 60.0  # seconds; a safety net, nothing is measured by it
_AT_ONCE = 1_000_000  # bytes that are handed to librdkafka, or taken from it, in one call
_MOST_AT_ONCE = 10_000
_STAMP = struct.Struct("!d")
_FIRST = b"first"
"""A record by which a producer makes its connections. It is shorter than a stamp."""


@dataclass(frozen=True)
class Job:
    """What a client does. Plain values only."""

    role: str
    settings: dict[str, Any]
    topic: str
    partitions: list[int]
    size: int
    """Of a record, in bytes."""
    count: int
    every: float = 0.0
    """Seconds between two records that are paced."""
    after: float = 0.0
    """Seconds until the first of them."""
    first: str = ""
    """A topic with a record in it, by which a consumer makes its connections."""

    @property
    def at_once(self) -> int:
        """Records in one call."""
        return max(1, min(_MOST_AT_ONCE, _AT_ONCE // self.size))


class _Failed(Exception):
    """The client could not do its job."""


def main() -> None:
    """Do the job."""
    os.nice(10)  # as the broker
    job = Job(**json.loads(sys.argv[1]))
    try:
        told: dict[str, Any] = _ROLES[job.role](job)
    except (_Failed, KafkaException, BufferError) as exc:
        told = {"failed": f"{job.role}: {exc}"}
    _say(told)


def _produce(job: Job) -> dict[str, Any]:
    """All records as fast as they go, until the broker has acknowledged every one."""
    producer = _producer(job, {"delivery.report.only.error": True})
    _begin()
    began = time.monotonic()
    record = {"value": bytes(job.size)}
    sent = turn = 0
    while sent < job.count:
        count = min(job.at_once, job.count - sent)
        partition = job.partitions[turn % len(job.partitions)]
        sent += producer.produce_batch(job.topic, [record] * count, partition=partition, on_delivery=_heard)
        turn += 1
        if turn % 16 == 0:
            producer.poll(0)
    _flush(producer)
    ended = time.monotonic()
    return {"began": began, "ended": ended}


def _consume(job: Job) -> dict[str, Any]:
    """That many records from the beginning of the partitions, as fast as they come."""
    consumer = Consumer(job.settings)
    consumer.assign([TopicPartition(job.first, 0, OFFSET_BEGINNING)])
    _received(consumer, 1)
    consumer.list_topics(job.topic, _PATIENCE)
    _begin()
    began = time.monotonic()
    consumer.assign([TopicPartition(job.topic, partition, OFFSET_BEGINNING) for partition in job.partitions])
    left = job.count
    while left:
        left -= sum(len(message) == job.size for message in _received(consumer, min(left, job.at_once)))
    ended = time.monotonic()
    consumer.close()
    return {"began": began, "ended": ended}


def _paced(job: Job) -> dict[str, Any]:
    """One record after another at a steady pace, whether the last one was acknowledged or not."""
    taken: list[float] = []

    def heard(since: float) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _: Message) -> None:
            _heard(error, _)
            taken.append(time.monotonic() - since)

        return delivered

    producer = _producer(job, {})
    rest = bytes(job.size - _STAMP.size)
    _begin()
    began = time.monotonic() + job.after
    for number in range(job.count):
        due = began + number * job.every
        while (pause := due - time.monotonic()) > 0:
            producer.poll(pause)
        now = time.monotonic()
        value = _STAMP.pack(now) + rest
        producer.produce(job.topic, value, partition=job.partitions[0], on_delivery=heard(now))
    _flush(producer)
    return {"taken": taken}


def _tail(job: Job) -> dict[str, Any]:
    """Records as they come, until there were so many: how long ago each was sent."""
    consumer = Consumer(job.settings)
    consumer.assign([TopicPartition(job.topic, partition, OFFSET_BEGINNING) for partition in job.partitions])
    _received(
        consumer, len(job.partitions)
    )  # the producers' first ones: from now on every Fetch asks for all partitions
    _begin()
    taken: list[float] = []
    while len(taken) < job.count:
        [message] = _received(consumer, 1)
        taken.append(time.monotonic() - _STAMP.unpack_from(message.value() or b"")[0])
    consumer.close()
    return {"taken": taken}


def _producer(job: Job, more: dict[str, Any]) -> Producer:
    """One that has its connections."""
    producer = Producer({**job.settings, **more})
    for partition in job.partitions:
        producer.produce(job.topic, _FIRST, partition=partition, on_delivery=_heard)
    _flush(producer)
    return producer


def _heard(error: KafkaError | None, _: Message) -> None:
    """What became of a record. What is raised here comes out of the call that asked."""
    if error is not None:
        raise _Failed(str(error))


def _flush(producer: Producer) -> None:
    if left := producer.flush(_PATIENCE):
        raise _Failed(f"{left} records were not acknowledged in {_PATIENCE:g} s")


def _received(consumer: Consumer, count: int) -> list[Message]:
    """At least one record, and at most `count`."""
    messages = consumer.consume(count, timeout=_PATIENCE)
    if not messages:
        raise _Failed(f"no record came in {_PATIENCE:g} s")
    for message in messages:
        if (error := message.error()) is not None:
            raise _Failed(str(error))
    return messages


def _begin() -> None:
    """Say that all is ready, and wait for the start."""
    _say({})
    sys.stdin.read()


def _say(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


_ROLES: dict[str, Callable[[Job], dict[str, Any]]] = {
    "produce": _produce,
    "consume": _consume,
    "paced": _paced,
    "tail": _tail,
}


if __name__ == "__main__":
    main()
