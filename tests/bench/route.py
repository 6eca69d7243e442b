"""A way from a client to a server, with a contender on it or none; and the contender's process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import procfs
from tests.bench.contenders import Contender, Place, Poll
from tests.bench.errors import BenchError
from tests.bench.wire import Door

__all__ = ["Route", "running"]

_START_TIMEOUT = 30
_STOP_TIMEOUT = 10


@dataclass(frozen=True)
class Route:
    """`door` is for raw clients, `parameters` (by way of logging in: trust, scram) for libpq's."""

    name: str
    door: Door
    parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    pid: int | None = None
    """The contender's process; None where there is no contender."""
    poll: Poll | None = None
    """How the contender is asked for its state, where it can be."""

    def cpu(self) -> float:
        """CPU time that the contender's processes have used until now, in seconds. 0 where there is none."""
        return procfs.cpu_seconds(self.pid) if self.pid is not None else 0.0


@contextmanager
def running(contender: Contender, place: Place) -> Iterator[int]:
    """Run a contender; gives its process id once it accepts. Raises `BenchError`, with what it said, if it does not."""
    command = contender.command(place)
    output = place.log or place.folder / "output"
    with (
        output.open("wb") as log,
        subprocess.Popen(
            _ending_with_us(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.folder,
            env=_environment(),
            # As a service has one: Linux shares the cores between sessions before it does between their processes
            # (autogroup, sched(7)), and a proxy is no part of its clients. PostgreSQL has one of its own, too.
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait(process, place.port, output)
            yield process.pid
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], port: int, output: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.001)  # start-up is measured by this
        else:
            return
    said = output.read_text(errors="replace")[-2000:].strip()
    raise BenchError(f"{process.args!r} does not accept connections: {said or 'it said nothing'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and where it would let its connections finish, a second one; at last SIGKILL, to every child too."""
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT / 2)
        except subprocess.TimeoutExpired:
            continue
        return
    for member in reversed(procfs.family(process.pid)):
        os.kill(member, signal.SIGKILL)
    process.wait(_STOP_TIMEOUT)


def _ending_with_us(command: list[str]) -> list[str]:
    """So that nothing runs on when we are killed: the kernel sends SIGTERM then (prctl(2), PR_SET_PDEATHSIG)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else command


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MTLSKIT_")}
