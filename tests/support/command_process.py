"""mtlskit's commands as processes: started, waited for by a line of their output, stopped with a signal.

A watchdog kills what does not get ready in time, so a test ends with the output in its failure instead of hanging. If
this process dies first, a guard ends the command and removes its folder.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.accounts import Account, credentials
from tests.services.processes import Guard

TIMEOUT = 60.0  # seconds; a safety net, nothing is measured by it


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """Ours without what would steer a proxy or a client; `folder` is the home; our own `mtlskit` comes first."""
    steering = ("HEROKU", "PG", "MTLSKIT_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(steering)}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
    own = {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8", "PGPASSFILE": os.devnull, "PGCONNECT_TIMEOUT": "30"}
    return kept | own | more


class CommandProcess:
    """A command that stays up. A context manager: ready on entry, gone on exit, whatever happened.

    `ready` is searched for in each line of its output. `account`: the user who runs it.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        ready: str,
        folder: Path,
        environment: Mapping[str, str],
        account: Account | None = None,
    ) -> None:
        """Nothing happens before `start`."""
        self._argv = list(argv)
        self._ready = re.compile(ready)
        self._folder = folder
        self._environment = dict(environment)
        self._account = account
        self._lines: list[str] = []
        self._process: subprocess.Popen[str]
        self._guard: Guard

    def start(self) -> None:
        """Start, and return when the line is there. Fails with the output if the command ends before."""
        self._process = subprocess.Popen(
            self._argv,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for us; we stop it
            **credentials(self._account),
        )
        self._guard = Guard(self._process.pid, self._folder)
        watchdog = threading.Timer(TIMEOUT, self._process.kill)
        watchdog.start()
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                self._lines.append(line)
                if self._ready.search(line):
                    return
        finally:
            watchdog.cancel()
            watchdog.join()
        output = self.output
        self.close()
        raise AssertionError(f"{self._argv} was not ready:\n{output}")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has written: up to the ready line, and all of it once it was stopped."""
        return "".join(self._lines)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal, wait for the end, and return the exit status."""
        self._process.send_signal(number)
        rest, _ = self._process.communicate(timeout=TIMEOUT)
        self._lines.append(rest)
        self._guard.dismiss()
        return self._process.returncode

    def close(self) -> None:
        """End it if it is still there: politely first, because it has children of its own to end."""
        if self._process.returncode is None:
            with suppress(subprocess.TimeoutExpired):
                self.stop()
                return
            self._process.kill()
            self._process.communicate()
            self._guard.dismiss()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
