"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mtlskit.telemetry import Emit

__all__ = ["LogFormat", "LogOption", "QuietOption", "VerboseOption", "log_sink"]


class LogFormat(StrEnum):
    """How the log is written."""

    TEXT = "text"
    JSON = "json"


LogOption = Annotated[
    LogFormat, typer.Option("--log", envvar="MTLSKIT_LOG", help="Log as text for people, or as one JSON object a line.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step of every session.")]


def log_sink(log: LogFormat, *, quiet: bool, verbose: bool) -> Emit:
    """The log on standard error, as the options want it."""
    from mtlskit.cli.render import colourful
    from mtlskit.telemetry import Level, json_log, people_log

    level = Level.WARNING if quiet else Level.DEBUG if verbose else Level.INFO
    if log is LogFormat.JSON:
        return json_log(sys.stderr, level=level)
    return people_log(sys.stderr, level=level, colour=colourful(sys.stderr))
