"""Faults on the way to a Kafka, or to one that nobody has expected."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from mtlskit.doctor.gather import Gathered
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.doctor.catalogue.network import tunnel
from tests.services.kafka_cluster import KafkaCluster


@contextmanager
def _broker(listener: str, kind: str, stage: Stage) -> Iterator[Gathered]:
    """A tunnel of this kind to a listener of the first broker's: `clients` has TLS, `brokers` has none."""
    cluster: KafkaCluster = stage.fixture("kafka")
    ports = next(iter(cluster.ports.values()))
    yield tunnel(f"127.0.0.1:{getattr(ports, listener)}", kind=kind)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "kafka-plain",
        "The port of the Kafka tunnel is that of a listener without TLS",
        Code.KAFKA_PLAIN,
        partial(_broker, "brokers", "kafka"),
        seen="is a listener of Kafka's without TLS",
    ),
    Fault(
        "kafka-plain-at-tcp",
        "The port of a tcp tunnel is that of a Kafka listener without TLS",
        Code.KAFKA_PLAIN,
        partial(_broker, "brokers", "tcp"),
        seen="is a listener of Kafka's without TLS",
    ),
    Fault(
        "kafka-plain-at-postgres",
        "The port of the Postgres tunnel is that of a Kafka listener without TLS",
        Code.TLS_UNKNOWN_ANSWER,
        partial(_broker, "brokers", "postgres"),
        seen="it is a Kafka broker that speaks plain text",
    ),
    Fault(
        "kafka-at-postgres",
        "The port of the Postgres tunnel is that of a Kafka broker",
        Code.TLS_UNKNOWN_ANSWER,
        partial(_broker, "clients", "postgres"),
        seen="it is a server that speaks TLS from the first byte on",
    ),
)
