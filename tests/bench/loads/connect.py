"""New connections: several clients, each connects, makes one round trip of a byte, and leaves, again and again.

Every one costs a full TLS handshake with client certificate: nothing is resumed, and no connection is made in advance.
"""

from __future__ import annotations

import threading
import time

from tests.bench.book import Figure
from tests.bench.lab import Lab
from tests.bench.route import Route
from tests.bench.wire import begin_echo

__all__ = ["CPU", "RATE", "measure"]

RATE = Figure("connect", "8 clients", "connections/s", more_is_better=True)
CPU = Figure("connect", "8 clients", "CPU µs/connection")


def measure(lab: Lab) -> None:
    """In turn."""
    for turn, route in lab.turns(lab.raw_routes):
        with lab.attempt("connect", route.name):
            _connect(lab, turn, route)


def _connect(lab: Lab, turn: int, route: Route) -> None:
    context = route.door.context()
    end = time.perf_counter() + lab.scale.connect_seconds
    counts: list[int] = []
    failures: list[OSError] = []

    def client() -> None:
        count = 0
        while time.perf_counter() < end:
            try:
                with route.door.connect(context) as sock:
                    begin_echo(sock, 1)
            except OSError as exc:
                failures.append(exc)
                break
            count += 1
        counts.append(count)

    clients = [threading.Thread(target=client) for _ in range(lab.scale.connect_clients)]
    used, began = route.cpu(), time.perf_counter()
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    taken, used = time.perf_counter() - began, route.cpu() - used
    if failures:
        raise failures[0]
    lab.book.add(RATE, route.name, turn, sum(counts) / taken)
    if route.pid is not None:
        lab.book.add(CPU, route.name, turn, used / sum(counts) * 1e6)
