"""COPY: rows out of PostgreSQL and into it, on one connection: how fast, and the proxy's CPU for it."""

from __future__ import annotations

import time

import psycopg

from tests.bench.book import Figure
from tests.bench.lab import Lab
from tests.bench.route import Route
from tests.bench.rows import MOVES, begin
from tests.services.clients import conninfo

__all__ = ["cpu", "measure", "speed"]

_MIB = 1 << 20
_GIB = 1 << 30


def speed(way: str) -> Figure:
    """`way`: out of the server, or in."""
    return Figure("copy", way, "MiB/s", more_is_better=True)


def cpu(way: str) -> Figure:
    """Of the proxy's processes."""
    return Figure("copy", way, "CPU s/GiB")


def measure(lab: Lab) -> None:
    """Both directions, in turn. trust, since every contender can do that, and the rows do not know the difference."""
    for way, move in MOVES.items():
        for turn, route in lab.turns(lab.postgres_routes):
            with (
                lab.attempt("copy", route.name),
                psycopg.connect(conninfo(route.parameters["trust"]), autocommit=True) as connection,
            ):
                begin(connection)
                used, began = route.cpu(), time.perf_counter()
                moved = move(connection, lab.scale.copy_bytes)
                taken, used = time.perf_counter() - began, route.cpu() - used
                _write_down(lab, turn, route, way, moved, taken, used)


def _write_down(lab: Lab, turn: int, route: Route, way: str, moved: int, taken: float, used: float) -> None:
    lab.book.add(speed(way), route.name, turn, moved / _MIB / taken)
    if route.pid is not None:
        lab.book.add(cpu(way), route.name, turn, used * _GIB / moved)
