"""pgbench -S -M prepared: small queries, one after another, from 1, 8 and 32 clients. How many, and the CPU for each.

How the clients log in (trust, or SCRAM where a proxy can) changes nothing afterwards; both are measured because
only one of the contenders can do both.
"""

from __future__ import annotations

import re

from tests.bench.book import Figure
from tests.bench.errors import BenchError
from tests.bench.lab import Lab
from tests.bench.route import Route
from tests.services.clients import libpq_command

__all__ = ["cpu", "measure", "rate"]

_RATE = re.compile(r"^tps = ([\d.]+) \(without initial connection time\)", re.MULTILINE)
_COUNT = re.compile(r"^number of transactions actually processed: (\d+)", re.MULTILINE)
# pgbench's own threads: more would only take the cores from the server.
_THREADS = 2
_SLACK = 60


def _case(login: str, clients: int) -> str:
    return f"{login}, {clients} client{'s' if clients > 1 else ''}"


def rate(login: str, clients: int) -> Figure:
    """Transactions per second."""
    return Figure("pgbench", _case(login, clients), "tps", more_is_better=True)


def cpu(login: str, clients: int) -> Figure:
    """Of the proxy's processes, with the few connections at the beginning."""
    return Figure("pgbench", _case(login, clients), "CPU µs/query")


def measure(lab: Lab) -> None:
    """Every way to log in and number of clients, in turn."""
    for login in ("trust", "scram"):
        routes = [route for route in lab.postgres_routes if login in route.parameters]
        for clients in lab.scale.pgbench_clients:
            for turn, route in lab.turns(routes):
                with lab.attempt("pgbench", route.name):
                    _run(lab, turn, route, login, clients)


def _run(lab: Lab, turn: int, route: Route, login: str, clients: int) -> None:
    seconds = lab.scale.pgbench_seconds
    threads = min(clients, _THREADS)
    flags = ("-n", "-S", "-M", "prepared", "-c", str(clients), "-j", str(threads), "-T", str(seconds))
    command = libpq_command("pgbench", route.parameters[login], *flags)
    used = route.cpu()
    done = command.run(timeout=seconds + _SLACK)
    used = route.cpu() - used
    tps, count = _RATE.search(done.stdout), _COUNT.search(done.stdout)
    if done.returncode or tps is None or count is None or int(count[1]) == 0:
        raise BenchError(f"pgbench ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
    lab.book.add(rate(login, clients), route.name, turn, float(tps[1]))
    if route.pid is not None:
        lab.book.add(cpu(login, clients), route.name, turn, used / int(count[1]) * 1e6)
