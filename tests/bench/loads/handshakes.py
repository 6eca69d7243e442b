"""Sessions in flight while others arrive: round trips of four sessions, alone and beside 200 handshakes a second.

Beside the handshakes, a contender that can be asked for its state is asked every 100 ms.
"""

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
_POLL_EVERY = 0.1  # seconds
_THINK = 0.002  # seconds: the sessions leave the machine time for the handshakes
ALONE = Figure("handshakes", "echo alone", "p99 ms")
BESIDE = Figure("handshakes", "echo beside handshakes", "p99 ms")
_POLLS = Figure("handshakes", "echo beside handshakes", "status polls answered", more_is_better=True)
_REACHED = Figure("handshakes", "echo beside handshakes", "handshakes/s", more_is_better=True)


def measure(lab: Lab) -> None:
    """In turn; with and without follow each other, since they are compared."""
    routes = lab.raw_routes
    asked = ", ".join(route.name for route in routes if route.poll) or "none"
    lab.book.note(
        f"handshakes: {lab.scale.handshakes_a_second} a second are asked for, and meanwhile the state of those that"
        f" have a socket for it, every {_POLL_EVERY * 1000:.0f} ms: {asked}"
    )
    for turn, route in lab.turns(routes):
        with lab.attempt("handshakes", route.name):
            _measure(lab, turn, route)


def _measure(lab: Lab, turn: int, route: Route) -> None:
    context = route.door.context()
    seconds = lab.scale.paced_seconds
    job = {"door": asdict(route.door), "what": "handshakes", "rate": lab.scale.handshakes_a_second}
    if route.poll is not None:
        job |= {"poll": asdict(route.poll), "every": _POLL_EVERY}
    with ExitStack() as stack:
        sessions = [Echo(stack.enter_context(route.door.connect(context)), SIZE) for _ in range(_SESSIONS)]
        alone = interact(sessions, seconds=seconds, think=_THINK)
        with Helper("background", job) as arrivals:
            beside = interact(sessions, seconds=seconds, think=_THINK)
            told = arrivals.finish()
    lab.book.add(ALONE, route.name, turn, percentile(alone, 99) * 1000)
    lab.book.add(BESIDE, route.name, turn, percentile(beside, 99) * 1000)
    if route.poll is not None:
        lab.book.add(_POLLS, route.name, turn, told["polls"])
    lab.book.add(_REACHED, route.name, turn, told["done"] / told["seconds"])
