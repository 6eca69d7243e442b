"""Fairness: thirty sessions at human pace, alone and beside one bulk stream through the same proxy."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

from tests.bench.book import Figure, percentile
from tests.bench.helper import Helper
from tests.bench.lab import Lab
from tests.bench.loads.echo import SIZE
from tests.bench.paced import interact
from tests.bench.route import Route
from tests.bench.wire import begin_echo

__all__ = ["ALONE", "BESIDE", "measure"]

_THINK = 0.020  # seconds between an answer and the next message


def _figures(case: str) -> tuple[Figure, Figure]:
    return Figure("fairness", f"sessions {case}", "p50 ms"), Figure("fairness", f"sessions {case}", "p99 ms")


_CASES = {
    "": _figures("alone"),
    "down": _figures("beside one bulk stream down"),
    "up": _figures("beside one bulk stream up"),
}
_BULK = {way: Figure("fairness", f"the bulk stream {way}", "MiB/s", more_is_better=True) for way in ("down", "up")}
ALONE = _CASES[""][1]
BESIDE = {way: _CASES[way][1] for way in ("down", "up")}


def measure(lab: Lab) -> None:
    """In turn; the three cases of one contender follow each other, since they are compared."""
    lab.book.note(f"fairness: {lab.scale.sessions} sessions, {SIZE} bytes each way, {_THINK * 1000:g} ms to think")
    for turn, route in lab.turns(lab.raw_routes):
        with lab.attempt("fairness", route.name):
            for way in _CASES:
                _measure(lab, turn, route, way)


def _measure(lab: Lab, turn: int, route: Route, way: str) -> None:
    context = route.door.context()
    with ExitStack() as stack:
        socks = [stack.enter_context(route.door.connect(context)) for _ in range(lab.scale.sessions)]
        for sock in socks:
            begin_echo(sock, SIZE)
        bulk = stack.enter_context(Helper("background", {"door": asdict(route.door), "what": way})) if way else None
        taken = interact(socks, seconds=lab.scale.paced_seconds, think=_THINK, size=SIZE)
        if bulk is not None:
            told = bulk.finish()
            lab.book.add(_BULK[way], route.name, turn, told["done"] / (1 << 20) / told["seconds"])
    for figure, percent in zip(_CASES[way], (50, 99), strict=True):
        lab.book.add(figure, route.name, turn, percentile(taken, percent) * 1000)
