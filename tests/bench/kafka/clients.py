"""Several clients at once: started, let go together, and what they say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.errors import BenchError
from tests.bench.helper import Helper
from tests.bench.kafka.client import Job
from tests.bench.kafka.lab import KafkaRoute

__all__ = ["Moved", "together", "transfer"]


@dataclass(frozen=True)
class Moved:
    """What it took to move records. `cpu`: seconds, of the proxy."""

    megabytes: float
    seconds: float
    cpu: float

    @property
    def speed(self) -> float:
        """MB/s of all clients together."""
        return self.megabytes / self.seconds

    @property
    def cost(self) -> float:
        """CPU milliseconds a MB."""
        return self.cpu * 1000 / self.megabytes


def transfer(route: KafkaRoute, jobs: Sequence[Job]) -> Moved:
    """From the first that begins to the last that ends."""
    told, cpu = together(route, jobs)
    seconds = max(each["ended"] for each in told) - min(each["began"] for each in told)
    return Moved(sum(job.count * job.size for job in jobs) / 1e6, seconds, cpu)


def together(route: KafkaRoute, jobs: Sequence[Job]) -> tuple[list[dict[str, Any]], float]:
    """What each client said, and the CPU time of the proxy. Raises `BenchError` where one could not do its job."""
    helpers = [Helper("kafka.client", asdict(job)) for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as pool, ExitStack() as stack:
        for helper in helpers:
            stack.push(helper)  # whatever becomes of the others
        _check(each.said for each in pool.map(Helper.__enter__, helpers))
        before = route.cpu()
        told = list(pool.map(Helper.finish, helpers))
        cpu = route.cpu() - before
    _check(told)
    return told, cpu


def _check(told: Iterable[dict[str, Any]]) -> None:
    for each in told:
        if "failed" in each:
            raise BenchError(each["failed"])
