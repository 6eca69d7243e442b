"""The readers of `tests.support.kafka_load`: librdkafka and aiokafka, each in a consumer group."""

from __future__ import annotations

import asyncio
import threading

from aiokafka import AIOKafkaConsumer
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.services.kafka_doors import Door
from tests.services.kafka_python import python_settings
from tests.support.kafka_load import DEADLINE


class LibrdkafkaReader:
    """One member of a group. `mine` are the partitions that it has been given."""

    def __init__(self, door: Door, topic: str, group: str, **settings: str) -> None:
        self.name = f"librdkafka in {group}"
        self.seen: set[str] = set()
        self.failures: list[str] = []
        self.mine: set[int] = set()
        self._topic = topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name)
        defaults = {"group.id": group, "auto.offset.reset": "earliest", "auto.commit.interval.ms": "500"}
        self._consumer = Consumer({**door.librdkafka(), **defaults, **settings})

    def start(self) -> None:
        """See `Reader`."""
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked)
        self._thread.start()

    def finish(self) -> None:
        """See `Reader`."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for message in self._consumer.consume(500, timeout=0.1):
                error = message.error()
                if error is None:
                    self.seen.add((message.value() or b"").decode())
                elif error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    self.failures.append(str(error))
        self._consumer.close()

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.mine |= {one.partition for one in partitions}

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self.mine -= {one.partition for one in partitions}


class AiokafkaReader:
    """The only member of its group."""

    def __init__(self, door: Door, topic: str, group: str) -> None:
        self.name = f"aiokafka in {group}"
        self.seen: set[str] = set()
        self.failures: list[str] = []
        self._door = door
        self._topic = topic
        self._group = group
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=self.name)

    def start(self) -> None:
        """See `Reader`."""
        self._thread.start()

    def finish(self) -> None:
        """See `Reader`."""
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        settings = {"group_id": self._group, "auto_offset_reset": "earliest", "auto_commit_interval_ms": 500}
        consumer = AIOKafkaConsumer(self._topic, **settings, **python_settings(self._door))
        await consumer.start()
        while not self._over.is_set():
            for records in (await consumer.getmany(timeout_ms=100)).values():
                self.seen |= {record.value.decode() for record in records}
        await asyncio.wait_for(consumer.stop(), DEADLINE)
