"""COPY: rows out of PostgreSQL and into it. The server makes rows and reads them, and keeps none."""

from __future__ import annotations

import time

import psycopg

from tests.bench.book import Figure
from tests.bench.lab import Lab
from tests.bench.route import Route
from tests.services.clients import conninfo

__all__ = ["cpu", "measure", "speed"]

_MIB = 1 << 20
_GIB = 1 << 30
# Bytes of a row, its newline included. Wide, so that the server and the client, for whom each row is work, matter less.
_ROW = 8000
_BLOCK = (b"x" * (_ROW - 1) + b"\n") * 16
_PRIMER = "CREATE TEMP TABLE rows_in (line text)"


def speed(way: str) -> Figure:
    """`way`: out of the server, or in."""
    return Figure("copy", way, "MiB/s", more_is_better=True)


def cpu(way: str) -> Figure:
    """Of the proxy's processes."""
    return Figure("copy", way, "CPU s/GiB")


def measure(lab: Lab) -> None:
    """Both directions, in turn. trust, since every contender can do that, and the rows do not know the difference."""
    for way, move in (("out", _out), ("in", _in)):
        for turn, route in lab.turns(lab.postgres_routes):
            with (
                lab.attempt("copy", route.name),
                psycopg.connect(conninfo(route.parameters["trust"]), autocommit=True) as connection,
            ):
                connection.execute(_PRIMER)
                used, began = route.cpu(), time.perf_counter()
                moved = move(connection, lab.scale.copy_bytes)
                taken, used = time.perf_counter() - began, route.cpu() - used
                _write_down(lab, turn, route, way, moved, taken, used)


def _out(connection: psycopg.Connection, size: int) -> int:
    statement = b"COPY (SELECT repeat('x', %d) FROM generate_series(1, %d)) TO STDOUT" % (_ROW - 1, size // _ROW)
    with connection.cursor().copy(statement) as copy:
        return sum(len(block) for block in copy)


def _in(connection: psycopg.Connection, size: int) -> int:
    moved = 0
    with connection.cursor().copy("COPY rows_in FROM STDIN WHERE false") as copy:
        while moved < size:
            copy.write(_BLOCK)
            moved += len(_BLOCK)
    return moved


def _write_down(lab: Lab, turn: int, route: Route, way: str, moved: int, taken: float, used: float) -> None:
    lab.book.add(speed(way), route.name, turn, moved / _MIB / taken)
    if route.pid is not None:
        lab.book.add(cpu(way), route.name, turn, used * _GIB / moved)
