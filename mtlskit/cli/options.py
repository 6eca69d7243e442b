"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from mtlskit.telemetry import Emit

__all__ = ["JsonOption", "LogFormat", "LogOption", "QuietOption", "VerboseOption", "log_sink", "wants_json"]


class LogFormat(StrEnum):
    """How the log is written."""

    TEXT = "text"
    JSON = "json"


LogOption = Annotated[
    str,
    typer.Option(
        "--log",
        metavar="FORMAT",
        envvar="MTLSKIT_LOG",
        # A text, so that another one is refused in our own words.
        autocompletion=lambda: [each.value for each in LogFormat],
        show_default=False,
        help="text for people, or json: one object a line. Default: text.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result, or the error, as JSON.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Log every step of every session.")]


def wants_json(log: str) -> bool:
    """Whether errors and the log are JSON; anything but "json" is for people, until `log_sink` has looked at it."""
    return log == LogFormat.JSON.value


def log_sink(log: str, *, quiet: bool, verbose: bool) -> Emit:
    """The log on standard error, as the options want it. Raises `ConfigError` (USAGE) for a format that is none."""
    from mtlskit.cli.render import colourful
    from mtlskit.cli.usage import harmless
    from mtlskit.errors import Code, ConfigError
    from mtlskit.telemetry import Level, json_log, people_log

    if log not in {each.value for each in LogFormat}:
        raise ConfigError(Code.USAGE, f"--log {harmless(log)}: not a format of the log", "use --log text or --log json")
    level = Level.WARNING if quiet else Level.DEBUG if verbose else Level.INFO
    if wants_json(log):
        return json_log(sys.stderr, level=level)
    return people_log(sys.stderr, level=level, colour=colourful(sys.stderr))
