"""Bulk: many bytes one way, over one stream or several at once. Throughput, and the proxy's CPU for each GiB."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from tests.bench.book import Figure
from tests.bench.lab import Lab
from tests.bench.route import Route
from tests.bench.wire import download, upload

__all__ = ["cpu", "measure", "speed"]

_MIB = 1 << 20
_GIB = 1 << 30
_WAYS = {"up": upload, "down": download}


def _case(way: str, streams: int) -> str:
    return f"{way}, {streams} stream{'s' if streams > 1 else ''}"


def speed(way: str, streams: int) -> Figure:
    """Of all streams together."""
    return Figure("bulk", _case(way, streams), "MiB/s", more_is_better=True)


def cpu(way: str, streams: int) -> Figure:
    """Of the proxy's processes."""
    return Figure("bulk", _case(way, streams), "CPU s/GiB")


def measure(lab: Lab) -> None:
    """Every direction and number of streams, in turn."""
    for streams in lab.scale.bulk_streams:
        for way in _WAYS:
            for turn, route in lab.turns(lab.raw_routes):
                with lab.attempt("bulk", route.name):
                    _move(lab, turn, route, way, streams)


def _move(lab: Lab, turn: int, route: Route, way: str, streams: int) -> None:
    each = lab.scale.bulk_bytes // streams
    context = route.door.context()
    with ExitStack() as stack:
        socks = [stack.enter_context(route.door.connect(context)) for _ in range(streams)]
        for sock in socks:
            _WAYS[way](sock, 1)  # the whole way is there before the clock runs
        with ThreadPoolExecutor(streams) as pool:
            used, began = route.cpu(), time.perf_counter()
            list(pool.map(lambda sock: _WAYS[way](sock, each), socks))
            taken, used = time.perf_counter() - began, route.cpu() - used
    lab.book.add(speed(way, streams), route.name, turn, each * streams / _MIB / taken)
    if route.pid is not None:
        lab.book.add(cpu(way, streams), route.name, turn, used * _GIB / (each * streams))
