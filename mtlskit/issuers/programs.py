"""Running a program of the operator's: no shell, a time-out, bounded output, and nothing of it left behind.

The program gets a session of its own, so that on a time-out its children end with it. Its error stream is kept at its
end only: the last lines are those that say why.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from mtlskit.telemetry.logs import printable

__all__ = ["MAX_OUTPUT", "ProgramFailed", "Ran", "run_program"]

MAX_OUTPUT = 1024 * 1024
"""Bytes of standard output. A certificate chain has some thousand."""

_SAID = 4096
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_LET_GO = 10.0  # seconds from SIGKILL on: a disk that hangs keeps a process from ending, and must not keep us as well
_LAST_WORDS = 1.0  # seconds to wait for the end of the error stream, when the program has ended
_SHOWN_LINES = 5


class ProgramFailed(Exception):
    """A program did not do what it was run for. The text is one line, for people, and names the program."""


@dataclass(frozen=True)
class Ran:
    """A program that has ended by itself, with status 0."""

    stdout: bytes
    said: str
    """The end of its error stream, on one line."""


async def run_program(
    argv: Sequence[str], *, stdin: bytes = b"", variables: Mapping[str, str] | None = None, seconds: float
) -> Ran:
    """Run `argv` for at most `seconds`, with `variables` added to the environment.

    Raises `ProgramFailed`: it cannot be run, takes too long, prints too much, or ends with another status than 0.
    """
    name = printable(argv[0])
    try:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **(variables or {})},
            start_new_session=os.name == "posix",
        )
    except (OSError, ValueError) as exc:  # ValueError: a null character in an argument
        raise ProgramFailed(f"{name}: cannot be run: {getattr(exc, 'strerror', None) or exc}") from exc
    outcome = _Outcome()
    done = False
    try:
        with trio.move_on_after(seconds) as limit:
            await _converse(process, stdin, outcome)
            done = not outcome.too_much
    finally:
        if not done:
            await _end(process)
        await _close(process)
    if limit.cancelled_caught:
        raise ProgramFailed(f"{name}: not done within {seconds:g} s{outcome.told}")
    if outcome.too_much:
        raise ProgramFailed(f"{name}: printed more than {MAX_OUTPUT} bytes{outcome.told}")
    if process.returncode:
        raise ProgramFailed(f"{name}: {_ended(process.returncode)}{outcome.told}")
    return Ran(bytes(outcome.stdout), outcome.said)


class _Outcome:
    def __init__(self) -> None:
        self.stdout = bytearray()
        self.stderr = bytearray()
        self.too_much = False

    @property
    def said(self) -> str:
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()[-_SHOWN_LINES:]
        return " / ".join(printable(line.strip()) for line in lines if line.strip())

    @property
    def told(self) -> str:
        return f"; it said: {self.said}" if self.said else ""


async def _converse(process: trio.Process, stdin: bytes, outcome: _Outcome) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feed, process, stdin)
        heard = trio.Event()
        nursery.start_soon(_keep_end, process, outcome, heard)
        await _collect(process, outcome)
        if not outcome.too_much:
            await process.wait()
            # Its last words may still be on their way to us. A child that outlives it may hold the error stream open,
            # too: nobody waits for that one.
            with trio.move_on_after(_LAST_WORDS):
                await heard.wait()
        nursery.cancel_scope.cancel()


async def _feed(process: trio.Process, data: bytes) -> None:
    if process.stdin is None:
        return
    # A program that does not read its input is its own affair.
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await process.stdin.send_all(data)
    await process.stdin.aclose()


async def _collect(process: trio.Process, outcome: _Outcome) -> None:
    if process.stdout is None:
        return
    async for chunk in process.stdout:
        outcome.stdout += chunk
        if len(outcome.stdout) > MAX_OUTPUT:
            outcome.too_much = True
            return


async def _keep_end(process: trio.Process, outcome: _Outcome, heard: trio.Event) -> None:
    if process.stderr is not None:
        async for chunk in process.stderr:
            outcome.stderr += chunk
            del outcome.stderr[:-_SAID]
    heard.set()


async def _end(process: trio.Process) -> None:
    """See to it that the program ends, and those that it started with it, also where it has ended before them."""
    with trio.CancelScope(shield=True):
        _signal(process, signal.SIGTERM)
        with trio.move_on_after(_GRACE):
            await process.wait()
        # Also when it has ended: a child of its may have taken no notice.
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
        with trio.move_on_after(_LET_GO):
            await process.wait()


async def _close(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()


def _signal(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(process.pid, number)
        else:
            process.terminate()


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-status).name}"
    return f"ended by signal {-status}"
