"""One record after another at a steady pace: until its producer knows that it is safe, and until a consumer has it.

`acks=all`, no linger; a consumer in a process of its own reads all partitions. The pace does not wait for answers, so
a record that is late does not keep the next one from being so.
"""

from __future__ import annotations

from tests.bench.book import Figure, percentile
from tests.bench.kafka import settings
from tests.bench.kafka.client import Job
from tests.bench.kafka.clients import together
from tests.bench.kafka.jobs import shares, warm
from tests.bench.kafka.lab import KafkaLab, KafkaRoute
from tests.bench.kafka.size import named

__all__ = ["acknowledged", "arrived", "measure"]


def acknowledged(record: int, clients: int, percent: int) -> Figure:
    """From the producer's call to the broker's answer."""
    return _figure("acknowledged", record, clients, percent)


def arrived(record: int, clients: int, percent: int) -> Figure:
    """From the producer's call until a consumer has the record."""
    return _figure("arrived", record, clients, percent)


def measure(lab: KafkaLab) -> None:
    """In turn."""
    warm(lab)
    for record in lab.size.records:
        for clients in lab.size.clients:
            lab.say(f"  {named(record)}, {clients} client(s)")
            for turn, route in lab.turns(lab.routes):
                with lab.attempt("latency", route.name):
                    _measure(lab, turn, route, record, clients)


def _measure(lab: KafkaLab, turn: int, route: KafkaRoute, record: int, clients: int) -> None:
    with lab.topic() as topic:
        told, _ = together(route, _jobs(lab, route, topic, record, clients))
    *producers, consumer = told
    taken = [seconds for producer in producers for seconds in producer["taken"]]
    for percent in (50, 99):
        lab.book.add(acknowledged(record, clients, percent), route.name, turn, percentile(taken, percent) * 1000)
        value = percentile(consumer["taken"], percent) * 1000
        lab.book.add(arrived(record, clients, percent), route.name, turn, value)


def _jobs(lab: KafkaLab, route: KafkaRoute, topic: str, record: int, clients: int) -> list[Job]:
    rate = lab.size.rate(record)
    each = max(1, round(rate * lab.size.paced_seconds / clients))
    every = clients / rate
    told = {**route.door.librdkafka(), **settings.paced()}
    jobs = [
        Job("paced", told, topic, share, record, each, every, every * number / clients)
        for number, share in enumerate(shares(clients))
    ]
    everything = [partition for share in shares(clients) for partition in share]
    tail = {**route.door.librdkafka(), **settings.tailing()}
    return [*jobs, Job("tail", tail, topic, everything, record, each * clients)]


def _figure(what: str, record: int, clients: int, percent: int) -> Figure:
    many = f"{clients} client{'s' if clients > 1 else ''}"
    return Figure("latency", f"{named(record)}, {many}, {what}, p{percent}", "ms")
