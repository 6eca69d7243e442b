"""Clients of a running space's Kafka, as an app on Heroku has its settings: from the add-on's config vars."""

from __future__ import annotations

import json
import socket
import ssl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import Consumer, Producer

from mtlskit.sandbox.events import AddressRefused
from mtlskit.sandbox.kafka import SpaceKafka
from tests.services.kafka_doors import Door
from tests.services.pki import Pair
from tests.support.space import RunningSpace

DEADLINE = 60.0  # seconds; a safety net, nothing is measured by it


def kafka_of(live: RunningSpace) -> SpaceKafka:
    """The space's, which must be there."""
    assert live.space.kafka is not None
    return live.space.kafka


def config_vars(live: RunningSpace) -> dict[str, str]:
    """Those that begin with KAFKA."""
    found = live.call("GET", "/apps/sandbox/config-vars", status=200)
    return {name: value for name, value in found.items() if name.startswith("KAFKA_")}


def door_of(live: RunningSpace, folder: Path) -> Door:
    """The way in, with what the config vars say now."""
    values = config_vars(live)
    name = uuid.uuid4().hex
    ca, cert, key = (folder / f"{name}.{kind}" for kind in ("ca", "crt", "key"))
    ca.write_text(values["KAFKA_TRUSTED_CERT"])
    cert.write_text(values["KAFKA_CLIENT_CERT"])
    key.write_text(values["KAFKA_CLIENT_CERT_KEY"])
    return Door(values["KAFKA_URL"].replace("kafka+ssl://", ""), folder, ca=ca, client=Pair(cert, key))


def settings(door: Door) -> dict[str, str | int | float | bool]:
    """For confluent-kafka. Heroku's brokers have certificates for other names than their hosts'."""
    return {**door.librdkafka(), "ssl.endpoint.identification.algorithm": "none"}


@contextmanager
def consumer_of(door: Door, topic: str) -> Iterator[Consumer]:
    """One in a group of its own, that reads from the start."""
    more = {"group.id": uuid.uuid4().hex, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings(door) | more)
    try:
        consumer.subscribe([topic])
        yield consumer
    finally:
        consumer.close()


def produce(door: Door, topic: str, partitions: int, *, rounds: int = 1) -> set[str]:
    """Values that were acknowledged: in each round one for each partition."""
    acknowledged: set[str] = set()
    producer = Producer(settings(door) | {"enable.idempotence": True, "linger.ms": 0})
    for _ in range(rounds):
        for partition in range(partitions):
            value = uuid.uuid4().hex

            def told(error: object, _message: object, value: str = value) -> None:
                assert error is None, error
                acknowledged.add(value)

            producer.produce(topic, value.encode(), partition=partition, on_delivery=told)
    assert producer.flush(DEADLINE) == 0
    return acknowledged


def consume(door: Door, topic: str, count: int) -> set[str]:
    """The first `count` values."""
    found: list[str] = []
    with consumer_of(door, topic) as consumer:
        while len(found) < count:
            messages = consumer.consume(count - len(found), DEADLINE)
            assert messages, f"only {len(found)} of {count}"
            for message in messages:
                assert message.error() is None, message.error()
                value = message.value()
                assert value is not None
                found.append(value.decode())
    assert len(set(found)) == count
    return set(found)


def handshake(live: RunningSpace, door: Door | None, *, broker: int = 1) -> ssl.SSLSocket:
    """A TLS connection to a broker, with the certificate of `door` or with none. Raises OSError."""
    address = kafka_of(live).addresses[broker]
    context = ssl.create_default_context(cafile=live.space.ca)
    context.check_hostname = False
    if door is not None and door.client is not None:
        context.load_cert_chain(door.client.cert, door.client.key)
    raw = socket.create_connection((address.host, address.port), DEADLINE)
    try:
        return context.wrap_socket(raw, server_hostname="127.0.0.1")
    except OSError:
        raw.close()
        raise


def is_silent_to(live: RunningSpace, source: str, *, broker: int = 1) -> bool:
    """Whether a client from this address that begins a handshake is told nothing, and why: an event says so."""
    mark = live.events.mark
    address = kafka_of(live).addresses[broker]
    with socket.create_connection((address.host, address.port), DEADLINE, (source, 0)) as client:
        client.sendall(b"\x16\x03\x01")
        refused = live.events.wait_for(AddressRefused, since=mark)
        client.setblocking(False)
        try:
            client.recv(1)
        except BlockingIOError:
            return bool(refused.answer == "silence" and refused.peer.startswith(f"{source}:"))
    return False


def told(live: RunningSpace) -> dict[str, object]:
    """What `sandbox.json` says of Kafka."""
    found: dict[str, object] = json.loads(live.space.file.read_text(encoding="utf-8"))["kafka"]
    return found
