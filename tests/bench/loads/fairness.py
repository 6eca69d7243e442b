"""Fairness: thirty PostgreSQL sessions at human pace, alone and beside one bulk COPY through the same proxy.

Each session sends a small query, waits for its ReadyForQuery, and thinks. The COPY runs in a process of its own; it
takes CPU time of the client and of the server too, so `direct` says how much of the difference is not a proxy's.
"""

from __future__ import annotations

from contextlib import ExitStack

import psycopg

from tests.bench.book import Figure, percentile
from tests.bench.helper import Helper
from tests.bench.lab import Lab
from tests.bench.paced import Query, interact
from tests.bench.route import Route
from tests.services.clients import conninfo

__all__ = ["ALONE", "BESIDE", "measure"]

_LOGIN = "trust"  # every contender can do that, and the queries do not know the difference
_THINK = 0.020  # seconds from an answer to the next query, in the mean


def _figures(case: str) -> tuple[Figure, Figure]:
    return Figure("fairness", f"sessions {case}", "p50 ms"), Figure("fairness", f"sessions {case}", "p99 ms")


_CASES = {"": _figures("alone"), "out": _figures("beside COPY out"), "in": _figures("beside COPY in")}
_BULK = {way: Figure("fairness", f"the COPY {way}", "MiB/s", more_is_better=True) for way in ("out", "in")}
ALONE = _CASES[""][1]
BESIDE = {way: _CASES[way][1] for way in ("out", "in")}


def measure(lab: Lab) -> None:
    """In turn; the three cases of one contender follow each other on the same sessions, since they are compared."""
    lab.book.note(f"fairness: {lab.scale.sessions} sessions, one small query at a time, {_THINK * 1000:g} ms to think")
    for turn, route in lab.turns(lab.postgres_routes):
        with lab.attempt("fairness", route.name), ExitStack() as stack:
            where = conninfo(route.parameters[_LOGIN])
            connections = [
                stack.enter_context(psycopg.connect(where, autocommit=True)) for _ in range(lab.scale.sessions)
            ]
            sessions = [Query(connection) for connection in connections]
            for way in _CASES:
                _measure(lab, turn, route, sessions, way)


def _measure(lab: Lab, turn: int, route: Route, sessions: list[Query], way: str) -> None:
    with ExitStack() as stack:
        job = {"what": way, "conninfo": conninfo(route.parameters[_LOGIN])}
        bulk = stack.enter_context(Helper("background", job)) if way else None
        taken = interact(sessions, seconds=lab.scale.paced_seconds, think=_THINK)
        if bulk is not None:
            told = bulk.finish()
            lab.book.add(_BULK[way], route.name, turn, told["done"] / (1 << 20) / told["seconds"])
    for figure, percent in zip(_CASES[way], (50, 99), strict=True):
        lab.book.add(figure, route.name, turn, percentile(taken, percent) * 1000)
