"""Producing and consuming as fast as it goes: records of several sizes, by one client and by four.

Every consumer reads topics that were filled once, from the page cache; every round of producers has a topic of its own.
The proxy's memory is looked at before the first and after the last.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import procfs
from tests.bench.book import Figure
from tests.bench.kafka.clients import Moved, transfer
from tests.bench.kafka.jobs import consuming, filled, producing, small, warm
from tests.bench.kafka.lab import KafkaLab, KafkaRoute
from tests.bench.kafka.size import MIB, named

__all__ = ["consume", "cpu", "produce", "speed"]


def speed(load: str, record: int, clients: int) -> Figure:
    """All clients together."""
    return Figure(load, _case(record, clients), "MB/s", more_is_better=True)


def cpu(load: str, record: int, clients: int) -> Figure:
    """Of the proxy's process."""
    return Figure(load, _case(record, clients), "CPU ms/MB")


def produce(lab: KafkaLab) -> None:
    """In turn."""
    warm(lab)
    _note_memory(lab, "produce", "RSS before")
    for record, clients in _cases(lab):
        amount = lab.size.amount(record)
        for turn, route in lab.turns(lab.routes):
            with lab.attempt("produce", route.name), lab.topic() as topic:
                moved = transfer(route, producing(route, topic, record, amount, clients))
                _note(lab, "produce", record, clients, turn, route, moved)
    _note_memory(lab, "produce", "RSS after")


def consume(lab: KafkaLab) -> None:
    """In turn."""
    warm(lab)
    first = small(lab)
    _note_memory(lab, "consume", "RSS before")
    for record, clients in _cases(lab):
        amount = lab.size.amount(record)
        topic = filled(lab, record, amount)
        for turn, route in lab.turns(lab.routes):
            with lab.attempt("consume", route.name):
                moved = transfer(route, consuming(route, topic, record, amount, clients, first))
                _note(lab, "consume", record, clients, turn, route, moved)
    _note_memory(lab, "consume", "RSS after")


def _cases(lab: KafkaLab) -> Iterator[tuple[int, int]]:
    for record in lab.size.records:
        for clients in lab.size.clients:
            lab.say(f"  {named(record)}, {clients} client(s)")
            yield record, clients


def _case(record: int, clients: int) -> str:
    return f"{named(record)}, {clients} client{'s' if clients > 1 else ''}"


def _note(lab: KafkaLab, load: str, record: int, clients: int, turn: int, route: KafkaRoute, moved: Moved) -> None:
    lab.book.add(speed(load, record, clients), route.name, turn, moved.speed)
    if route.pid is not None:
        lab.book.add(cpu(load, record, clients), route.name, turn, moved.cost)


def _note_memory(lab: KafkaLab, load: str, case: str) -> None:
    for route in lab.routes:
        if route.pid is not None:
            lab.book.add(Figure(load, case, "MiB"), route.name, 0, procfs.memory(route.pid).resident / MIB)
