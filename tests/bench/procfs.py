"""What a proxy's processes have used: CPU time to the nanosecond, and memory, children included. Linux only."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "cpu_seconds", "family", "memory"]

_CPUCLOCK_SCHED = 2


@dataclass(frozen=True)
class Memory:
    """Bytes, summed over the processes: `resident` counts shared pages in each, `proportional` counts them once."""

    resident: int
    proportional: int


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since it was listed
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its living descendants, with that of threads that have ended.

    /proc/PID/stat counts in ticks of 10 ms; the process's CPU clock (clock_getcpuclockid(3): the clock's number is
    made from the pid) reads the same account in nanoseconds.
    """
    return sum(time.clock_gettime((~member << 3) | _CPUCLOCK_SCHED) for member in family(pid))


def memory(pid: int) -> Memory:
    """Memory of the process and its descendants (proc(5), smaps_rollup)."""
    resident = proportional = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
            name, *rest = line.split()
            if name == "Rss:":
                resident += int(rest[0]) * 1024
            elif name == "Pss:":
                proportional += int(rest[0]) * 1024
    return Memory(resident, proportional)
