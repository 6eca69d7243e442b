"""The only place that prints. Commands return results and raise errors; here they become text, JSON and statuses."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer

from mtlskit.errors import MtlskitError
from mtlskit.telemetry.logs import printable

__all__ = ["colourful", "fail", "line", "print_json", "reported"]

_RED = "\x1b[31m"
_DIM = "\x1b[2m"
_PLAIN = "\x1b[0m"

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""


def colourful(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that wants colours (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def line(text: str = "") -> None:
    """One line of a command's output. A reader that has gone (`| head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None


def print_json(value: Any) -> None:
    """A command's result for scripts."""
    line(json.dumps(value, indent=2))


def fail(error: MtlskitError, *, as_json: bool = False) -> None:
    """An error, on the error stream: the sentence, and what to do."""
    if as_json:
        facts = {"code": error.code.value, "reason": error.sentence, "hint": error.hint}
        print(json.dumps({"error": facts}), file=sys.stderr, flush=True)
        return
    red, dim, plain = (_RED, _DIM, _PLAIN) if colourful(sys.stderr) else ("", "", "")
    print(f"{red}error:{plain} {printable(error.sentence)} {dim}[{error.code}]{plain}", file=sys.stderr)
    if error.hint:
        print(f"{dim}hint:{plain}  {printable(error.hint)}", file=sys.stderr)
    sys.stderr.flush()


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
