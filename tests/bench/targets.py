"""What mtlskit is to reach beside the strongest peer: the floor must be met, the goal is where it is going.

A row compares one figure of mtlskit with the same figure of others (the best median of those who were measured), with
another figure of its own (the same work alone), or with nothing (a plain bound). Ratios are taken round by round; the
median decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tests.bench.book import Book, Figure, Spread
from tests.bench.contenders import DIRECT, MTLSKIT, PEERS
from tests.bench.loads import bulk, connect, echo, fairness, first_row, handshakes, idle, pgbench

__all__ = ["Target", "Verdict", "targets", "verdicts"]

Others: TypeAlias = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One row. `against`: names (the best of them counts), a figure of mtlskit's own, or None for a plain bound.

    Floor and goal are upper bounds where less is better, lower bounds where more is. `goal_figure` is compared for the
    goal where that is another figure than the floor's.
    """

    work: str
    figure: Figure
    against: Others | Figure | None
    floor: float
    goal: float
    goal_figure: Figure | None = None
    warm: bool = False
    """Connections in advance count, where they were measured."""


@dataclass(frozen=True)
class Verdict:
    """How a row came out. `floor` and `goal` are None where something to compare was not measured."""

    target: Target
    versus: str
    ratio: Spread | None
    floor: bool | None
    goal: bool | None

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        target = self.target
        return {
            "work": target.work,
            "figure": str(target.figure),
            "versus": self.versus,
            "ratio": self.ratio.as_json() if self.ratio else None,
            "bound": "at least" if target.figure.more_is_better else "at most",
            "floor": target.floor,
            "floor_met": self.floor,
            "goal": target.goal,
            "goal_met": self.goal,
        }


def targets() -> list[Target]:
    """Every row."""
    return [*_throughput(), *_latency(), *_cost()]


def _throughput() -> Iterator[Target]:
    for clients, floor, goal in ((1, 0.85, 0.7), (8, 0.60, 0.5)):
        figure = pgbench.cpu("trust", clients)
        yield Target(f"pgbench, CPU per query, {clients} client(s)", figure, ("stunnel",), floor, goal)
    for clients in (1, 8, 32):
        yield Target(f"pgbench, tps, {clients} client(s)", pgbench.rate("trust", clients), PEERS, 1.1, 1.25)
    strongest = ("stunnel", "haproxy", "ghostunnel")
    for way in ("up", "down"):
        yield Target(f"bulk {way}, one stream", bulk.speed(way, 1), strongest, 1.0, 1.2)
    for way in ("up", "down"):
        # The goal is for each core used: the inverse of CPU per byte.
        yield Target(
            f"bulk {way}, 8 streams (goal: CPU per GiB)", bulk.speed(way, 8), PEERS, 0.8, 1.0, bulk.cpu(way, 8)
        )


def _latency() -> Iterator[Target]:
    yield Target("64-byte echo, p50", echo.P50, PEERS, 1.2, 1.0)
    yield Target("new connections/s", connect.RATE, PEERS, 0.5, 1.0)
    for burst in (1, 10):
        figure = first_row.median_of_burst(0.050, burst)
        yield Target(f"first row at 50 ms, burst of {burst}", figure, (DIRECT,), 0.65, 0.55, warm=True)
    for way, figure in fairness.BESIDE.items():
        yield Target(f"p99 of 30 sessions beside COPY {way}", figure, fairness.ALONE, 3.0, 1.5)
    yield Target("echo p99 beside 200 handshakes/s and status polls", handshakes.BESIDE, handshakes.ALONE, 5.0, 2.0)


def _cost() -> Iterator[Target]:
    yield Target("memory of each idle connection", idle.RESIDENT, PEERS, 1.0, 0.7)
    # "No CPU": a timer that looks once a second may have its few microseconds.
    yield Target("CPU ms/s when nothing moves", idle.CPU, None, 0.5, 0.1)


def verdicts(book: Book) -> list[Verdict]:
    """Every row of which mtlskit's figure was measured."""
    return [_verdict(book, target) for target in targets() if book.contenders(target.figure)]


def _verdict(book: Book, target: Target) -> Verdict:
    who = _subject(book, target)
    versus, ratio = _compare(book, target, target.figure, who)
    goal_figure = target.goal_figure or target.figure
    _, goal_ratio = _compare(book, target, goal_figure, who)
    name = versus if who == MTLSKIT else f"{versus} ({who})"
    return Verdict(
        target, name, ratio, _keeps(target.figure, ratio, target.floor), _keeps(goal_figure, goal_ratio, target.goal)
    )


def _subject(book: Book, target: Target) -> str:
    warm = target.warm and book.spread(target.figure, first_row.WARM) is not None
    return first_row.WARM if warm else MTLSKIT


def _compare(book: Book, target: Target, figure: Figure, who: str) -> tuple[str, Spread | None]:
    match target.against:
        case None:
            return "", book.spread(figure, who)
        case Figure() as alone:
            return alone.case, book.ratio(figure, who, who, alone)
        case others:
            best = book.best(figure, others)
            return (best, book.ratio(figure, who, best)) if best is not None else ("nobody", None)


def _keeps(figure: Figure, ratio: Spread | None, bound: float) -> bool | None:
    if ratio is None:
        return None
    return ratio.median >= bound if figure.more_is_better else ratio.median <= bound
