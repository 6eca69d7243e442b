"""The work loads, one module each: `measure(lab)` writes its figures into the lab's book."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from tests.bench.lab import Lab
from tests.bench.loads import (
    bulk,
    connect,
    copying,
    echo,
    fairness,
    first_row,
    handshakes,
    idle,
    pgbench,
    startup,
)

__all__ = ["LOADS"]

LOADS: Mapping[str, Callable[[Lab], None]] = MappingProxyType(
    {
        "bulk": bulk.measure,
        "echo": echo.measure,
        "pgbench": pgbench.measure,
        "copy": copying.measure,
        "connect": connect.measure,
        "first-row": first_row.measure,
        "idle": idle.measure,
        "fairness": fairness.measure,
        "handshakes": handshakes.measure,
        "startup": startup.measure,
    }
)
"""By the name that `--only` takes."""
