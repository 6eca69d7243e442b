"""Which client does what: the same work by one client or shared by several."""

from __future__ import annotations

from tests.bench.kafka import settings
from tests.bench.kafka.client import Job
from tests.bench.kafka.clients import transfer
from tests.bench.kafka.lab import PARTITIONS, KafkaLab, KafkaRoute

__all__ = ["consuming", "filled", "producing", "shares", "small", "warm"]


def shares(clients: int) -> list[list[int]]:
    """The partitions of each client."""
    return [list(range(PARTITIONS))[number::clients] for number in range(clients)]


def producing(route: KafkaRoute, topic: str, record: int, amount: int, clients: int) -> list[Job]:
    """`amount` records into a topic."""
    told = {**route.door.librdkafka(), **settings.producing()}
    return [Job("produce", told, topic, share, record, amount // clients) for share in shares(clients)]


def consuming(route: KafkaRoute, topic: str, record: int, amount: int, clients: int, first: str) -> list[Job]:
    """`amount` records out of a topic that `filled` has made; `first` is that of `small`."""
    told = {**route.door.librdkafka(), **settings.consuming(record)}
    each = amount // PARTITIONS
    return [Job("consume", told, topic, share, record, each * len(share), first=first) for share in shares(clients)]


def filled(lab: KafkaLab, record: int, amount: int) -> str:
    """A topic with so many records, the same number in each partition."""

    def make() -> str:
        topic = lab.lasting_topic()
        transfer(lab.straight, producing(lab.straight, topic, record, amount, PARTITIONS))
        return topic

    return lab.kept((record, amount), make)


def small(lab: KafkaLab) -> str:
    """A topic with one partition and few records in it."""

    def make() -> str:
        topic = lab.lasting_topic(1)
        told = {**lab.straight.door.librdkafka(), **settings.producing()}
        transfer(lab.straight, [Job("produce", told, topic, [0], 100, 10)])
        return topic

    return lab.kept("small", make)


def warm(lab: KafkaLab) -> None:
    """Let the broker's Java compile what it needs before the first who is measured; and make what consumers read."""
    for record in lab.size.records:
        amount = lab.size.amount(record)
        jobs = consuming(lab.straight, filled(lab, record, amount), record, amount, PARTITIONS, small(lab))
        transfer(lab.straight, jobs)
