"""Fetch responses of 50 MiB: does a proxy hold them? Its memory before, at its peak, and afterwards.

The proxy is a fresh one each time, and has served one small consumer, so that what is made once does not count. The
peak is the kernel's own (proc(5): 5 in clear_refs resets VmHWM).
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from tests.bench import procfs
from tests.bench.book import Figure
from tests.bench.contenders import DIRECT
from tests.bench.errors import BenchError
from tests.bench.kafka import settings
from tests.bench.kafka.client import Job
from tests.bench.kafka.clients import transfer
from tests.bench.kafka.jobs import small
from tests.bench.kafka.lab import KafkaLab, KafkaRoute
from tests.bench.kafka.size import MIB

__all__ = ["AFTER", "BEFORE", "COST", "PEAK", "SPEED", "measure"]

_CASE = "50 MiB at a time"
SPEED = Figure("fetches", _CASE, "MB/s", more_is_better=True)
COST = Figure("fetches", _CASE, "CPU ms/MB")
BEFORE = Figure("fetches", f"{_CASE}, RSS before", "MiB")
PEAK = Figure("fetches", f"{_CASE}, RSS at its peak", "MiB")
AFTER = Figure("fetches", f"{_CASE}, RSS afterwards", "MiB")


def measure(lab: KafkaLab) -> None:
    """In turn, each contender afresh."""
    first = small(lab)
    topic, amount = lab.lasting_topic(1), lab.size.fetch_bytes // MIB
    told = {**lab.straight.door.librdkafka(), **settings.producing()}
    transfer(lab.straight, [Job("produce", told, topic, [0], MIB, amount)])
    chosen = [*lab.contenders, *([None] if lab.wanted(DIRECT) else [])]
    for turn in range(lab.size.fetch_rounds):
        start = turn % len(chosen) if chosen else 0
        for contender in (*chosen[start:], *chosen[:start]):
            with (
                lab.attempt("fetches", contender.name if contender else DIRECT),
                lab.route(contender) if contender else nullcontext(lab.straight) as route,
            ):
                _measure(lab, turn, route, topic, amount, first)


def _measure(lab: KafkaLab, turn: int, route: KafkaRoute, topic: str, amount: int, first: str) -> None:
    told = {**route.door.librdkafka(), **settings.huge_fetches()}
    transfer(route, [Job("consume", told, first, [0], 100, 10, first=first)])
    before = _reset(route.pid) if route.pid is not None else 0
    moved = transfer(route, [Job("consume", told, topic, [0], MIB, amount, first=first)])
    book, who = lab.book, route.name
    book.add(SPEED, who, turn, moved.speed)
    if route.pid is not None:
        book.add(COST, who, turn, moved.cost)
        book.add(BEFORE, who, turn, before / MIB)
        book.add(PEAK, who, turn, _peak(route.pid) / MIB)
        book.add(AFTER, who, turn, procfs.memory(route.pid).resident / MIB)


def _reset(pid: int) -> int:
    """Let the peak be counted from now on. What is resident now, in bytes."""
    for member in procfs.family(pid):
        Path(f"/proc/{member}/clear_refs").write_text("5")
    return procfs.memory(pid).resident


def _peak(pid: int) -> int:
    """The largest resident size of the process and its descendants since `_reset`, in bytes."""
    return sum(_high_water(member) for member in procfs.family(pid))


def _high_water(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"/proc/{pid}/status tells no VmHWM")
