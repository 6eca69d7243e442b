"""Sessions in flight while others arrive: round trips of four sessions, alone and beside 200 handshakes a second."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict

from tests.bench.book import Figure, percentile
from tests.bench.helper import Helper
from tests.bench.lab import Lab
from tests.bench.loads.echo import SIZE
from tests.bench.paced import Echo, interact
from tests.bench.route import Route

__all__ = ["ALONE", "BESIDE", "measure"]

_SESSIONS = 4
_THINK = 0.002  # seconds: the sessions leave the machine time for the handshakes
ALONE = Figure("handshakes", "echo alone", "p99 ms")
BESIDE = Figure("handshakes", "echo beside handshakes", "p99 ms")
_REACHED = Figure("handshakes", "echo beside handshakes", "handshakes/s", more_is_better=True)


def measure(lab: Lab) -> None:
    """In turn; with and without follow each other, since they are compared."""
    lab.book.note(f"handshakes: {lab.scale.handshakes_a_second} a second are asked for; no status is polled")
    for turn, route in lab.turns(lab.raw_routes):
        with lab.attempt("handshakes", route.name):
            _measure(lab, turn, route)


def _measure(lab: Lab, turn: int, route: Route) -> None:
    context = route.door.context()
    seconds = lab.scale.paced_seconds
    job = {"door": asdict(route.door), "what": "handshakes", "rate": lab.scale.handshakes_a_second}
    with ExitStack() as stack:
        sessions = [Echo(stack.enter_context(route.door.connect(context)), SIZE) for _ in range(_SESSIONS)]
        alone = interact(sessions, seconds=seconds, think=_THINK)
        with Helper("background", job) as arrivals:
            beside = interact(sessions, seconds=seconds, think=_THINK)
            told = arrivals.finish()
    lab.book.add(ALONE, route.name, turn, percentile(alone, 99) * 1000)
    lab.book.add(BESIDE, route.name, turn, percentile(beside, 99) * 1000)
    lab.book.add(_REACHED, route.name, turn, told["done"] / told["seconds"])
