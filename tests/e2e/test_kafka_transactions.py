"""Exactly-once through a tunnel: read, write and commit in one transaction, some aborted, and a coordinator that goes.

What the output holds for readers of committed transactions is each input once, as if nothing had happened.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter, defaultdict
from contextlib import ExitStack

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from kafka import KafkaAdminClient

from tests.services.kafka_clients import CLIENT_TIMEOUT, java_command
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.services.kafka_python import confluent, python_settings
from tests.support.kafka_load import DEADLINE, read_all
from tests.support.kafka_strays import seen, strays
from tests.support.kafka_tunnel import MakeKafkaTunnel

INPUTS = 300
IN_ONE = 20
ABORT_EVERY = 4
"""Every fourth transaction is aborted, and what it had read is read again."""

LOOKS_AGAIN = {"connections.max.idle.ms": "5000"}
"""So that librdkafka asks for the group's coordinator again. Where that stopped and metadata no longer names it, the
next send_offsets_to_transaction waits, whatever its timeout, until any connection of the producer comes or goes
(librdkafka #5511 and #5456, since 2.10): without this up to ten minutes, with no request on its way meanwhile."""


class Transformer:
    """Reads one topic and writes another, a transaction for some records."""

    def __init__(self, door: Door, source: str, target: str) -> None:
        self.name = f"{target}-transactions"
        self._target = target
        self._producer = Producer({**door.librdkafka(), "transactional.id": self.name, **LOOKS_AGAIN})
        group = {"group.id": f"{target}-group", "auto.offset.reset": "earliest", "enable.auto.commit": "false"}
        self._consumer = Consumer({**door.librdkafka(), **group, "isolation.level": "read_committed"})
        self._consumer.subscribe([source])
        self._begun = 0
        self.aborted = 0
        self.committed = 0

    def begin(self) -> None:
        """Introduce the producer to its coordinator."""
        self._producer.init_transactions(DEADLINE)

    def work(self, count: int) -> None:
        """Go on until so many more records are committed."""
        wanted = self.committed + count
        deadline = time.monotonic() + 4 * DEADLINE
        while self.committed < wanted:
            assert time.monotonic() < deadline, f"{self.committed} of {wanted} committed, {self.aborted} aborted"
            messages = self._consumer.consume(min(IN_ONE, wanted - self.committed), timeout=0.5)
            if messages:
                self._transform([message for message in messages if message.error() is None])

    def close(self) -> None:
        """Leave."""
        self._consumer.close()
        self._producer.close()

    def _transform(self, messages: list[Message]) -> None:
        self._begun += 1
        try:
            self._producer.begin_transaction()
            for message in messages:
                self._producer.produce(self._target, message.value())
            if self._begun % ABORT_EVERY == 0:
                self._abort(messages)
                return
            positions = [TopicPartition(*where, max(offsets) + 1) for where, offsets in places(messages).items()]
            group = self._consumer.consumer_group_metadata()
            self._producer.send_offsets_to_transaction(positions, group, DEADLINE)
            self._commit()
        except KafkaException as exc:
            if not exc.args[0].txn_requires_abort():
                raise
            self._abort(messages)
            return
        self.committed += len(messages)

    def _commit(self) -> None:
        """It may be asked again after an error that it calls retriable, and only that makes the outcome known."""
        while True:
            try:
                self._producer.commit_transaction(DEADLINE)
            except KafkaException as exc:
                if not exc.args[0].retriable():
                    raise
            else:
                return

    def _abort(self, messages: list[Message]) -> None:
        self._producer.flush(DEADLINE)  # so that what is aborted has been written
        self._producer.abort_transaction(DEADLINE)
        self.aborted += 1
        for (topic, partition), offsets in places(messages).items():
            self._consumer.seek(TopicPartition(topic, partition, min(offsets)))


def places(messages: list[Message]) -> dict[tuple[str, int], list[int]]:
    """The offsets of these records by topic and partition."""
    found: dict[tuple[str, int], list[int]] = defaultdict(list)
    for message in messages:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        found[topic, partition].append(offset)
    return found


def coordinator_of(cluster: KafkaCluster, transactional_id: str) -> int:
    """The broker that coordinates its transactions."""
    admin = KafkaAdminClient(**python_settings(cluster.door()))
    try:
        for node_id, transactions in admin.list_transactions().items():
            if any(one.transactional_id == transactional_id for one in transactions):
                return int(node_id)
    finally:
        admin.close()
    raise AssertionError("no broker coordinates it")


def new_topic(cluster: KafkaCluster, name: str) -> str:
    topic = f"{name}-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic)
    return topic


def test_each_record_is_transformed_once(
    each_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, times: int
) -> None:
    """The coordinator stops in the middle: of the older Kafka only, if not ``--long``, for a start takes seconds."""
    tunnel = make_kafka_tunnel(each_kafka)
    before = seen(each_kafka)
    source, target = new_topic(each_kafka, "inputs"), new_topic(each_kafka, "outputs")
    inputs = [str(number) for number in range(INPUTS * times)]
    confluent().produce(tunnel.door, source, inputs, {})
    transformer = Transformer(tunnel.door, source, target)
    try:
        transformer.begin()
        transformer.work(len(inputs) // 2)
        assert transformer.aborted > 0
        with ExitStack() as stack:
            if times > 1 or not each_kafka.build.at_least_4:
                gone = coordinator_of(each_kafka, transformer.name)
                each_kafka.stop_broker(gone)
                stack.callback(each_kafka.start_broker, gone)
            transformer.work(len(inputs) - transformer.committed)
    finally:
        transformer.close()
    found = read_all(tunnel.door, target, len(inputs))
    assert Counter(value for values in found.values() for value in values) == Counter(inputs)
    assert not strays(each_kafka, before)


def test_javas_copier_writes_each_record_once(each_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    """Apache Kafka's own program for this: it copies a partition in transactions, of which it aborts some at random."""
    tunnel = make_kafka_tunnel(each_kafka)
    before = seen(each_kafka)
    source, target = f"copied-{uuid.uuid4().hex[:8]}", new_topic(each_kafka, "copies")
    each_kafka.create_topic(source, partitions=1)
    inputs = [str(number) for number in range(INPUTS)]
    confluent().produce(tunnel.door, source, inputs, {})
    done = java_command(
        each_kafka.build,
        "org.apache.kafka.tools.TransactionalMessageCopier",
        *("--broker-list", tunnel.bootstrap, "--transactional-id", f"{target}-copier", "--consumer-group", target),
        *("--input-topic", source, "--input-partition", "0", "--output-topic", target),
        *("--max-messages", str(len(inputs)), "--transaction-size", str(IN_ONE), "--enable-random-aborts"),
    ).run(timeout=CLIENT_TIMEOUT + 30)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["remaining"] == 0
    found = read_all(tunnel.door, target, len(inputs))
    assert Counter(value for values in found.values() for value in values) == Counter(inputs)
    assert not strays(each_kafka, before)
