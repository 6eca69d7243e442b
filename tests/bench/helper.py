"""Helper processes of the bench: `python -m tests.bench.NAME JOB`, which say one line of JSON and end with their stdin.

So no helper outlives the bench, however that ends: its end of the pipe closes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from tests.bench.errors import BenchError

__all__ = ["Helper"]

_TIMEOUT = 30


class Helper:
    """One helper. A context manager: `said` holds its first line on entry, it is gone on exit."""

    def __init__(self, module: str, job: dict[str, Any]) -> None:
        """`module` below tests.bench is run with `job` as its argument."""
        self._command = [sys.executable, "-m", f"tests.bench.{module}", json.dumps(job)]
        self._process: subprocess.Popen[str] | None = None
        self.said: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.said = self._line()
        except BaseException:
            self.finish(read=False)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(read=False)

    def finish(self, *, read: bool = True) -> dict[str, Any]:
        """Tell it to end, and return its last line (or nothing, where it is not `read`)."""
        process, self._process = self._process, None
        if process is None or process.stdin is None or process.stdout is None:
            return {}
        process.stdin.close()
        try:
            told: dict[str, Any] = json.loads(process.stdout.readline()) if read else {}
            process.wait(_TIMEOUT)
        except (subprocess.TimeoutExpired, ValueError) as exc:
            raise BenchError(f"{' '.join(self._command)} did not end as it should") from exc
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
        return told

    def _line(self) -> dict[str, Any]:
        if self._process is None or self._process.stdout is None:
            return {}
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{' '.join(self._command)} ended at once")
        told: dict[str, Any] = json.loads(line)
        return told
