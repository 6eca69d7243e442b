"""Echo: 64 bytes there and back, one after another, on one connection."""

from __future__ import annotations

from tests.bench.book import Figure, percentile
from tests.bench.lab import Lab
from tests.bench.wire import begin_echo, round_trips

__all__ = ["CPU", "P50", "P99", "SIZE", "measure"]

SIZE = 64
"""Bytes of a message: a small query, or a keystroke."""
P50 = Figure("echo", "64 bytes", "p50 µs")
P99 = Figure("echo", "64 bytes", "p99 µs")
CPU = Figure("echo", "64 bytes", "CPU µs/trip")
_WARM_UP = 200


def measure(lab: Lab) -> None:
    """A new connection for each turn."""
    trips = lab.scale.echo_trips
    for turn, route in lab.turns(lab.raw_routes):
        with lab.attempt("echo", route.name), route.door.connect(route.door.context()) as sock:
            begin_echo(sock, SIZE)
            round_trips(sock, _WARM_UP, SIZE)
            used = route.cpu()
            taken = round_trips(sock, trips, SIZE)
            used = route.cpu() - used
            lab.book.add(P50, route.name, turn, percentile(taken, 50) * 1e6)
            lab.book.add(P99, route.name, turn, percentile(taken, 99) * 1e6)
            if route.pid is not None:
                lab.book.add(CPU, route.name, turn, used / trips * 1e6)
