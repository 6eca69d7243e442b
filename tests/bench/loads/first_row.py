"""From far away: the time from connect() to the first row, with the round trips of a distance between proxy and server.

Clients log in with SCRAM. `direct` is libpq with sslmode=verify-full over the same distance; `mtlskit` dials when the
client comes; `mtlskit warm` has connections in advance (`--warm N`). A burst is that many clients at the same moment;
between bursts there is time to fill up again. What is quoted of a burst is its median and its slowest client.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg

from tests.bench.book import Figure
from tests.bench.contenders import DIRECT, MTLSKIT, Upstream
from tests.bench.helper import Helper
from tests.bench.lab import Lab
from tests.bench.route import Route
from tests.bench.wire import Door
from tests.services.clients import conninfo

__all__ = ["WARM", "hits", "measure", "median_of_burst", "warm_share"]

WARM = "mtlskit warm"
_LOGIN = "scram"


def _case(delay: float, burst: int) -> str:
    return f"{delay * 1000:g} ms away, burst of {burst}"


def median_of_burst(delay: float, burst: int) -> Figure:
    """Time to the first row of the median client."""
    return Figure("first-row", _case(delay, burst), "ms")


def _slowest_of_burst(delay: float, burst: int) -> Figure:
    return Figure("first-row", _case(delay, burst), "slowest ms")


def warm_share(delay: float, burst: int) -> Figure:
    """Of the sessions of a burst, how many found a connection that was made in advance."""
    return Figure("first-row", _case(delay, burst), "% warm", more_is_better=True)


def measure(lab: Lab) -> None:
    """Every distance with its own proxies; bursts in turn."""
    if not lab.warm:
        lab.book.note("first-row: no connections in advance were asked for (`--warm`)")
    for delay in lab.scale.delays:
        with (
            Helper("delayer", {"port": lab.postgres.port, "rtt": delay}) as helper,
            _routes(lab, helper.said) as routes,
        ):
            for burst in lab.scale.bursts:
                for turn, route in lab.turns([route for route, _ in routes]):
                    log = next(log for other, log in routes if other is route)
                    with lab.attempt("first-row", route.name):
                        _bursts(lab, turn, route, log, delay, burst)


@contextmanager
def _routes(lab: Lab, said: Mapping[str, int]) -> Iterator[list[tuple[Route, Path | None]]]:
    """Each way, and the log in which it tells of its sessions."""
    port = said["port"]
    with ExitStack() as stack:
        routes: list[tuple[Route, Path | None]] = []
        for contender in lab.contenders:
            if contender.name == MTLSKIT:
                cold = stack.enter_context(lab.route(contender, Upstream.POSTGRES, port))
                routes.append((cold, None))
                if lab.warm:
                    log = lab.new_folder() / "log"
                    hot = stack.enter_context(lab.route(contender, Upstream.POSTGRES, port, warm=lab.warm, log=log))
                    routes.append((replace(hot, name=WARM), log))
        if lab.wanted(DIRECT):
            straight = {**lab.postgres.parameters(_LOGIN), "port": str(port)}
            routes.append((Route(DIRECT, Door.direct(port, lab.pki), {_LOGIN: straight}), None))
        yield routes


def _bursts(lab: Lab, turn: int, route: Route, log: Path | None, delay: float, burst: int) -> None:
    medians, slowest = [], []
    told = log.stat().st_size if log else 0
    for _ in range(lab.scale.burst_repeats):
        time.sleep(0.2 + 6 * delay)  # to fill up again: a connection in advance takes three round trips
        taken = _burst(route, burst)
        medians.append(statistics.median(taken))
        slowest.append(max(taken))
    lab.book.add(median_of_burst(delay, burst), route.name, turn, statistics.median(medians) * 1000)
    lab.book.add(_slowest_of_burst(delay, burst), route.name, turn, statistics.median(slowest) * 1000)
    if log is not None:
        found = hits(log, told)
        if found:
            lab.book.add(warm_share(delay, burst), route.name, turn, 100 * sum(found) / len(found))


def _burst(route: Route, size: int) -> list[float]:
    """So many clients at once. Seconds of each from connect() to its row."""
    parameters = conninfo(route.parameters[_LOGIN])
    start = threading.Barrier(size)

    def client(_: int) -> float:
        start.wait()
        began = time.perf_counter()
        with psycopg.connect(parameters, autocommit=True) as connection:
            connection.execute("SELECT 1").fetchone()
            return time.perf_counter() - began

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(client, range(size)))


def hits(log: Path, since: int) -> list[bool]:
    """Of the sessions in the log after byte `since`: whether each came upon a warm connection."""
    with log.open("rb") as file:
        file.seek(since)
        events = [json.loads(line) for line in file if line.startswith(b"{")]
    return [bool(event["warm"]) for event in events if event["event"] == "session_opened" and "warm" in event]
