"""A sandbox in a folder that outlives it, the commands typed at it, and how long each took."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.errors import BenchError
from tests.services.accounts import server_account
from tests.services.places import scratch_folder
from tests.support.command_process import CommandProcess, clean_environment
from tests.support.sandbox_command import READY, Sandbox

__all__ = ["HERE", "Took", "allowlist", "home", "postgres_addons", "running", "typed"]

HERE = "127.0.0.1/32"
"""Every add-on of a sandbox has a rule for it from the start."""

_DEADLINE = 900.0
"""Seconds; a safety net: the rules of twenty add-ons take a minute or two to make."""


@dataclass(frozen=True)
class Took:
    """Seconds: on the wall, and of CPU."""

    wall: float
    cpu: float


@contextmanager
def home() -> Iterator[Path]:
    """A folder for sandboxes, one after the other; gone afterwards."""
    with scratch_folder("mtlskit-bench-", server_account()) as folder:
        os.chown(folder, os.geteuid(), os.getegid())
        folder.chmod(0o711)  # PostgreSQL's user passes through
        yield folder


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Sandbox]:
    """A sandbox in `folder`, as another one has left it."""
    argv = ["mtlskit", "sandbox", "--dir", "space", *flags]
    with CommandProcess(argv, ready=READY, folder=folder, environment=clean_environment(folder)):
        yield Sandbox(folder)


def typed(words: Sequence[str], folder: Path, environment: dict[str, str], *, status: int = 0) -> Took:
    """Run `mtlskit WORDS` to its end. Raises `BenchError` with what it said if it ends with another status."""
    before, began = _cpu(), time.perf_counter()
    done = subprocess.run(
        ["mtlskit", *words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
        check=False,
    )
    took = Took(time.perf_counter() - began, _cpu() - before)
    if done.returncode != status:
        said = f"{done.stdout}{done.stderr}"[-2000:]
        raise BenchError(f"mtlskit {' '.join(words)} ended with {done.returncode}, not {status}:\n{said}")
    return took


def postgres_addons(sandbox: Sandbox) -> list[str]:
    """Those with rules."""
    return [name for name in sandbox.addons() if name != sandbox.kafka]


def _cpu() -> float:
    """Of children that have ended: while a command runs, no other does."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def allowlist(path: Path, addons: Sequence[str], cidrs: Sequence[str]) -> None:
    """Write a configuration file with one allowlist."""
    names = ", ".join(f'"{addon}"' for addon in addons)
    rules = ", ".join(f'{{ cidr = "{cidr}", description = "office {n}" }}' for n, cidr in enumerate(cidrs, 1))
    path.write_text(f"[allowlist.bench]\naddons = [{names}]\nrules = [{rules}]\n", encoding="utf-8")
