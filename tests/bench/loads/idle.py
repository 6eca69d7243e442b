"""Thousands of connections that do nothing: the memory of each in the proxy's processes, and the CPU of all.

Every contender is started afresh, so that what it has kept from other work does not count. The kernel's socket buffers
belong to no process; they are empty, and the same for all.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from tests.bench import procfs
from tests.bench.book import Figure
from tests.bench.contenders import Contender, Upstream
from tests.bench.lab import Lab
from tests.bench.wire import begin_echo

__all__ = ["CPU", "RESIDENT", "measure"]

_CASE = "connections that do nothing"
RESIDENT = Figure("idle", _CASE, "RSS KiB each")
_PROPORTIONAL = Figure("idle", _CASE, "PSS KiB each")
_WHOLE = Figure("idle", _CASE, "RSS MiB in all")
CPU = Figure("idle", _CASE, "CPU ms/s")


def measure(lab: Lab) -> None:
    """In turn; there is no limit to show."""
    lab.book.note(f"idle: {lab.scale.idle_connections} connections")
    chosen = [each for each in lab.contenders if Upstream.TLS in each.before]
    for turn in range(lab.scale.idle_rounds):
        first = turn % len(chosen) if chosen else 0
        for contender in (*chosen[first:], *chosen[:first]):
            with lab.attempt("idle", contender.name):
                _measure(lab, turn, contender)


def _measure(lab: Lab, turn: int, contender: Contender) -> None:
    count = lab.scale.idle_connections
    with lab.route(contender, Upstream.TLS, lab.origin["tls"]) as route, ExitStack() as stack:
        if route.pid is None:
            return
        with route.door.connect(None) as first:
            begin_echo(first, 1)  # what is made once, for the first connection, is not of each
        before = procfs.memory(route.pid)
        for _ in range(count):
            begin_echo(stack.enter_context(route.door.connect(None)), 1)
        time.sleep(lab.scale.idle_seconds / 2)  # to settle; not to wait for anything
        after, used = procfs.memory(route.pid), route.cpu()
        time.sleep(lab.scale.idle_seconds)
        used = route.cpu() - used
    book, who = lab.book, contender.name
    book.add(RESIDENT, who, turn, (after.resident - before.resident) / count / 1024)
    book.add(_PROPORTIONAL, who, turn, (after.proportional - before.proportional) / count / 1024)
    book.add(_WHOLE, who, turn, after.resident / (1 << 20))
    book.add(CPU, who, turn, used / lab.scale.idle_seconds * 1000)
