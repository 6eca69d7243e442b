"""The only place that prints. Commands return results and raise errors; here they become text, JSON and statuses.

Where the log is JSON, errors and warnings are lines of it, so that whoever collects it finds them there too.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TextIO

import typer

from mtlskit.errors import MtlskitError
from mtlskit.telemetry import Event, Level, json_log
from mtlskit.telemetry.logs import printable

__all__ = [
    "INTERRUPTED",
    "Colour",
    "Error",
    "Warned",
    "alarming",
    "colourful",
    "fail",
    "flushed",
    "line",
    "painted",
    "print_json",
    "print_json_line",
    "reported",
    "warn",
]

_RED = "\x1b[31m"
_GREEN = "\x1b[32m"
_YELLOW = "\x1b[33m"
_DIM = "\x1b[2m"
_BOLD = "\x1b[1m"
_PLAIN = "\x1b[0m"


class Colour(StrEnum):
    """A colour, or a weight, of a result on a terminal."""

    RED = _RED
    GREEN = _GREEN
    YELLOW = _YELLOW
    DIM = _DIM
    BOLD = _BOLD


INTERRUPTED = 130
"""128 + SIGINT, as shells count."""


@dataclass(frozen=True, kw_only=True)
class Error(Event):
    """The command ends with an error."""

    level: ClassVar[Level] = Level.ERROR

    code: str
    reason: str
    hint: str

    def sentence(self) -> str:
        return f"{self.reason} [{self.code}]" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something about how the command was called deserves attention."""

    level: ClassVar[Level] = Level.WARNING

    warning: str

    def sentence(self) -> str:
        return self.warning


def colourful(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that wants colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def alarming(text: str) -> str:
    """`text` for a line of a command's output, in red where that is a terminal that wants colours."""
    return f"{_RED}{text}{_PLAIN}" if colourful(sys.stdout) else text


def painted(text: str, colour: Colour | None) -> str:
    """`text` of a command's output, in a colour where the output is a terminal that wants colours."""
    return f"{colour}{text}{_PLAIN}" if colour is not None and text and colourful(sys.stdout) else text


def line(text: str = "") -> None:
    """One line of a command's output. A reader that has gone (`| head`) is no error, a full disk is.

    The command goes on without a reader: it may be about to do what it was called for.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _forget(sys.stdout)
    except OSError as exc:
        _forget(sys.stdout)
        _tell(f"error: the output cannot be written: {exc.strerror}")
        raise typer.Exit(1) from None


def print_json(value: Any) -> None:
    """A command's result for scripts."""
    line(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """One of many results for scripts, on a line of its own."""
    line(json.dumps(value))


def fail(error: MtlskitError, *, as_json: bool = False) -> None:
    """An error, on the error stream: the sentence, and what to do."""
    if as_json:
        json_log(sys.stderr)(Error(code=error.code.value, reason=error.sentence, hint=error.hint))
        return
    red, dim, plain = (_RED, _DIM, _PLAIN) if colourful(sys.stderr) else ("", "", "")
    _tell(f"{red}error:{plain} {printable(error.sentence)} {dim}[{error.code}]{plain}")
    if error.hint:
        _tell(f"{dim}hint:{plain}  {printable(error.hint)}")


def warn(warning: str, *, as_json: bool = False) -> None:
    """A warning, on the error stream; the command goes on."""
    if as_json:
        json_log(sys.stderr)(Warned(warning=warning))
        return
    yellow, plain = (_YELLOW, _PLAIN) if colourful(sys.stderr) else ("", "")
    _tell(f"{yellow}warning:{plain} {printable(warning)}")


def _tell(text: str) -> None:
    """One line on the error stream. Where nobody can read it, the exit status still says what it said."""
    with suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def flushed(status: int) -> int:
    """The exit status, once all output has been flushed: 1 instead of 0 where a result was lost on a full disk.

    A terminal or a pipe that has gone changes nothing. Python itself would end with 120 for any of these.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _forget(stream)
        except OSError as exc:
            _forget(stream)
            if stream is sys.stdout and exc.errno != errno.EIO:
                status = status or 1
    return status


def _forget(stream: TextIO) -> None:
    """What `stream` still holds goes nowhere, or Python would try again at its end."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextmanager
def reported(*, as_json: bool = False, on_interrupt: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn our errors into a message and an exit status; everything else is a fault of ours and keeps its traceback."""
    try:
        yield
    except* MtlskitError as group:
        errors = list(_leaves(group))
        for error in errors:
            fail(error, as_json=as_json)
        status = max(error.exit_status for error in errors)
    except* KeyboardInterrupt:
        on_interrupt()
        status = INTERRUPTED
    else:
        return
    raise typer.Exit(status)


def _leaves(group: BaseExceptionGroup[MtlskitError]) -> Iterator[MtlskitError]:
    for exc in group.exceptions:
        if isinstance(exc, BaseExceptionGroup):
            yield from _leaves(exc)
        else:
            yield exc
