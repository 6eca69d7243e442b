"""The Python clients of Kafka: confluent-kafka (librdkafka as a wheel), kafka-python, and aiokafka.

As in `tests.services.kafka_clients`, each sends values and reads them again. All block: a trio program calls them in a
thread, and aiokafka's loop lives in a thread of its own anyway.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import confluent_kafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # `admin` has it too, but not for mypy
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.services.kafka_clients import CLIENT_TIMEOUT, Client, KafkaClientError, Settings
from tests.services.kafka_doors import Door

_T = TypeVar("_T")


def create_topic(door: Door, topic: str, replicas: Sequence[Sequence[int]]) -> None:
    """Make a topic with these replicas for each partition, the leader first; the controller then knows it.

    Brokers come to know it a little later: see `KafkaCluster.create_topic`.
    """
    wanted = NewTopic(topic, len(replicas), replica_assignment=[list(nodes) for nodes in replicas])
    admin = AdminClient({**door.librdkafka()})  # if it goes, so does what it was asked for
    [made] = admin.create_topics([wanted], operation_timeout=CLIENT_TIMEOUT).values()
    made.result(CLIENT_TIMEOUT)


def confluent() -> Client:
    """confluent-kafka."""
    return Client("confluent-kafka", _confluent_produce, _confluent_consume)


def kafka_python() -> Client:
    """kafka-python."""
    return Client("kafka-python", _kafka_python_produce, _kafka_python_consume)


def aiokafka() -> Client:
    """aiokafka, in a thread with a loop of its own."""

    def produce(door: Door, topic: str, values: Sequence[str], settings: Settings) -> None:
        _in_thread(lambda: _aiokafka_produce(door, topic, values, settings))

    def consume(door: Door, topic: str, count: int, settings: Settings) -> list[str]:
        return _in_thread(lambda: _aiokafka_consume(door, topic, count, settings))

    return Client("aiokafka", produce, consume)


def python_settings(door: Door) -> dict[str, Any]:
    """What kafka-python and aiokafka take alike."""
    settings: dict[str, Any] = {"bootstrap_servers": door.bootstrap.split(",")}
    if door.ca is not None:
        context = ssl.create_default_context(cafile=door.ca)
        if door.client is not None:
            context.load_cert_chain(door.client.cert, door.client.key)
        settings |= {"security_protocol": "SSL", "ssl_context": context}
    return settings


def _confluent_produce(door: Door, topic: str, values: Sequence[str], settings: Settings) -> None:
    failures: list[object] = []
    producer = confluent_kafka.Producer({**door.librdkafka(), **settings})
    for value in values:
        producer.produce(topic, value.encode(), on_delivery=lambda error, _: failures.append(error) if error else None)
    left = producer.flush(CLIENT_TIMEOUT)
    if left or failures:
        raise KafkaClientError(f"{left} not sent, {failures[:5]}")


def _confluent_consume(door: Door, topic: str, count: int, settings: Settings) -> list[str]:
    """It wants a group's name even where it joins none."""
    consumer = confluent_kafka.Consumer({**door.librdkafka(), "group.id": "unused", **settings})
    try:
        known = consumer.list_topics(topic, CLIENT_TIMEOUT).topics[topic].partitions
        beginning = confluent_kafka.OFFSET_BEGINNING
        consumer.assign([confluent_kafka.TopicPartition(topic, partition, beginning) for partition in known])
        found: list[str] = []
        deadline = time.monotonic() + CLIENT_TIMEOUT
        while len(found) < count:
            for message in consumer.consume(count - len(found), timeout=1.0):
                if error := message.error():
                    raise KafkaClientError(str(error))
                found.append((message.value() or b"").decode())
            _in_time(deadline, found, count)
        return found
    finally:
        consumer.close()


def _kafka_python_produce(door: Door, topic: str, values: Sequence[str], settings: Settings) -> None:
    producer = KafkaProducer(**python_settings(door), **settings)
    try:
        for sent in [producer.send(topic, value.encode()) for value in values]:
            sent.get(CLIENT_TIMEOUT)
    finally:
        producer.close()


def _kafka_python_consume(door: Door, topic: str, count: int, settings: Settings) -> list[str]:
    consumer = KafkaConsumer(**python_settings(door), **settings)
    try:
        consumer.assign([TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic) or ()])
        consumer.seek_to_beginning()
        found: list[str] = []
        deadline = time.monotonic() + CLIENT_TIMEOUT
        while len(found) < count:
            for records in consumer.poll(timeout_ms=1000, max_records=count - len(found)).values():
                found += [record.value.decode() for record in records]
            _in_time(deadline, found, count)
        return found
    finally:
        consumer.close()


async def _aiokafka_produce(door: Door, topic: str, values: Sequence[str], settings: Settings) -> None:
    async with AIOKafkaProducer(**python_settings(door), **settings) as producer:
        for sent in [await producer.send(topic, value.encode()) for value in values]:
            await sent


async def _aiokafka_consume(door: Door, topic: str, count: int, settings: Settings) -> list[str]:
    async with AIOKafkaConsumer(topic, auto_offset_reset="earliest", **python_settings(door), **settings) as consumer:
        return [(await anext(consumer)).value.decode() for _ in range(count)]


def _in_thread(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    async def bounded() -> _T:
        return await asyncio.wait_for(work(), CLIENT_TIMEOUT)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, bounded()).result()


def _in_time(deadline: float, found: list[str], count: int) -> None:
    if len(found) < count and time.monotonic() > deadline:
        raise KafkaClientError(f"{len(found)} of {count} records came within {CLIENT_TIMEOUT} s")
