"""The demo's Kafka client: confluent-kafka in a thread, plain, as any program would use it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import trio

from mtlskit.config.values import TcpAddress
from mtlskit.sandbox.demo_client import unexpected

__all__ = ["KafkaReport", "send_and_read"]

_PATIENCE: Final = 20.0
"""Seconds for anything that is waited for: all of it is on this machine."""


@dataclass(frozen=True)
class KafkaReport:
    """What the client was told and did. `brokers`: the addresses that it was told, in the order of the node ids."""

    brokers: tuple[str, ...]
    seconds: float


async def send_and_read(bootstrap: TcpAddress, topic: str, count: int) -> KafkaReport:
    """Send that many records and read them back. Raises SandboxError where one of them is missing or came twice."""
    return await trio.to_thread.run_sync(_send_and_read, str(bootstrap), topic, count)


def _send_and_read(bootstrap: str, topic: str, count: int) -> KafkaReport:
    from confluent_kafka import Producer

    began = time.monotonic()
    values = [f"event {number}" for number in range(count)]
    failures: list[str] = []

    def delivered(error: Any, _message: Any) -> None:
        if error is not None:
            failures.append(str(error))

    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
    for value in values:
        producer.produce(topic, value.encode(), on_delivery=delivered)
    left = producer.flush(_PATIENCE)
    if failures or left:
        raise unexpected("Kafka did not take every record", failures[0] if failures else f"{left} on their way")
    listed = producer.list_topics(timeout=_PATIENCE).brokers
    brokers = tuple(f"{broker.host}:{broker.port}" for _, broker in sorted(listed.items()))
    read = _read(bootstrap, topic, count)
    if sorted(read) != sorted(values):
        raise unexpected("Kafka gave back other records", f"{len(read)} of {count}")
    return KafkaReport(brokers, time.monotonic() - began)


def _read(bootstrap: str, topic: str, count: int) -> list[str]:
    from confluent_kafka import Consumer

    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": "demo",
        "auto.offset.reset": "earliest",
        "log_level": 0,
    }
    consumer = Consumer(settings)
    found: list[str] = []
    deadline = time.monotonic() + _PATIENCE
    try:
        consumer.subscribe([topic])
        while len(found) < count and time.monotonic() < deadline:
            for message in consumer.consume(count - len(found), timeout=0.5):
                if message.error() is None:
                    found.append((message.value() or b"").decode())
    finally:
        consumer.close()
    return found
