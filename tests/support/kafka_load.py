"""Clients at work on one topic for as long as a test wants, and what has become of every record in the end.

A `Load` has senders, all idempotent with ``acks=all``, which number their records: ``librdkafka:17``. It has readers,
each in a consumer group of its own. `Load.goes_on` waits until each has done something that it began after the call: so
a test lets the clients recover from what it has done to the cluster. `Load.finish` counts: what was acknowledged is
there once, and in order.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from tests.services.kafka_doors import Door

DEADLINE = 120.0
"""Seconds for clients to recover, on a machine that is busy with everything else: a safety net."""

_PAUSE = 0.05
_FURTHER = 10
"""Records that a sender has to have acknowledged after a fault, so that it is not one that was under way."""


class Worker(Protocol):
    """A client that works until it is told to finish. `failures` are what it was told and no retry has mended."""

    name: str
    failures: list[str]

    def start(self) -> None:
        """Begin."""

    def finish(self) -> None:
        """Begin nothing more, end what was begun, and leave."""


class Sender(Worker, Protocol):
    """Sends numbered records; `name` is the front of each value."""

    acknowledged: list[str]

    @property
    def sent(self) -> int:
        """Records that it has begun to send."""

    def abandon(self) -> None:
        """End now, whatever is under way."""


class Reader(Worker, Protocol):
    """Reads in a group of its own."""

    seen: set[str]


class Load:
    """A context manager: at work on entry, over on exit, however the test ends."""

    def __init__(self, senders: Sequence[Sender], readers: Sequence[Reader]) -> None:
        self.senders = senders
        self.readers = readers
        self._workers: tuple[Worker, ...] = (*senders, *readers)

    def __enter__(self) -> Self:
        for worker in self._workers:
            worker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sender in self.senders:
            sender.abandon()
        for reader in self.readers:
            reader.finish()

    def goes_on(self) -> None:
        """Wait until every sender has had records acknowledged that it sent from now on, and every reader has them."""
        wanted = {sender.name: sender.sent + _FURTHER for sender in self.senders}
        for sender in self.senders:
            self._until(lambda: len(sender.acknowledged) >= wanted[sender.name], f"{sender.name} goes on")  # noqa: B023 - called before the next turn
        self._all_read()

    def finish(self, door: Door, topic: str) -> int:
        """Count every record of the topic, coming in by `door`. Returns how many there are."""
        for sender in self.senders:
            sender.finish()
        self._all_read()
        for worker in self._workers:
            assert not worker.failures, f"{worker.name}: {worker.failures[:5]}"
        acknowledged = Counter(value for sender in self.senders for value in sender.acknowledged)
        found = read_all(door, topic, acknowledged.total())
        counted = Counter(value for values in found.values() for value in values)
        assert counted == acknowledged, f"lost {acknowledged - counted}, doubled {counted - acknowledged}"
        for partition, values in found.items():
            assert_in_order(partition, values)
        return counted.total()

    def _all_read(self) -> None:
        wanted = {value for sender in self.senders for value in tuple(sender.acknowledged)}
        for reader in self.readers:
            self._until(lambda: wanted <= reader.seen, f"{reader.name} has read all")  # noqa: B023 - called before the next turn

    def _until(self, look: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        pause = threading.Event()
        while not look():
            assert time.monotonic() < deadline, f"never came: {what}; {self._state()}"
            pause.wait(_PAUSE)

    def _state(self) -> str:
        senders = [f"{s.name}: {s.sent} sent, {len(s.acknowledged)} well, {s.failures[:3]}" for s in self.senders]
        readers = [f"{r.name}: {len(r.seen)} read, {r.failures[:3]}" for r in self.readers]
        return "; ".join(senders + readers)


def assert_in_order(partition: int, values: Sequence[str]) -> None:
    """Of each sender the numbers rise: a batch that was sent again came in at its own place.

    But for aiokafka's, which sends each record in a task of its own: when tasks wait for the cluster, any of them may
    go on first.
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    for value in values:
        name, _, number = value.replace(".", ":").partition(":")
        numbers[name].append(int(number))
    for name, ours in numbers.items():
        assert name == "aiokafka" or ours == sorted(ours), f"{name} is out of order in partition {partition}"


def read_all(door: Door, topic: str, count: int) -> dict[int, list[str]]:
    """The values of each partition, of committed transactions only; waits for so many in all, and for every end."""
    settings = {"group.id": "unused", "enable.partition.eof": "true", "isolation.level": "read_committed"}
    consumer = Consumer({**door.librdkafka(), **settings})
    try:
        known = consumer.list_topics(topic, DEADLINE).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in known])
        found: dict[int, list[str]] = {partition: [] for partition in known}
        ended: set[int] = set()
        deadline = time.monotonic() + DEADLINE
        while len(ended) < len(found) or sum(map(len, found.values())) < count:
            for message in consumer.consume(1000, timeout=0.2):
                partition = message.partition()
                assert partition is not None
                error = message.error()
                if error is None:
                    found[partition].append((message.value() or b"").decode())
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(partition)
                else:
                    raise AssertionError(str(error))
            if time.monotonic() > deadline:
                break  # the owner says what is missing
        return found
    finally:
        consumer.close()
