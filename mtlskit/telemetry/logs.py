"""Two sinks for events: lines for people, and JSON objects, one a line, for machines.

Names that a client or a server sent (users, databases, error texts) reach these lines, so everything that is not
printable is escaped: nobody forges a second line or drives the reader's terminal. A sink that cannot write (the disk
is full, the reader has gone) drops the line: the sessions matter more.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TextIO

from mtlskit.telemetry.events import Emit, Event, Level

__all__ = ["json_log", "people_log", "printable"]

_COLOURS: Final = {Level.DEBUG: "\x1b[2m", Level.INFO: "", Level.WARNING: "\x1b[33m", Level.ERROR: "\x1b[31m"}
_PLAIN: Final = "\x1b[0m"


def _now() -> datetime:
    return datetime.now(UTC)


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped as Python would, and nothing else changed."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def people_log(
    stream: TextIO, *, level: Level = Level.INFO, colour: bool = False, clock: Callable[[], datetime] = _now
) -> Emit:
    """A sink that writes `2026-01-31T12:00:00Z warning  sentence` to `stream`; times in UTC."""

    def emit(event: Event) -> None:
        if event.level < level:
            return
        stamp = clock().strftime("%Y-%m-%dT%H:%M:%SZ")
        line = f"{stamp} {event.level.name.lower():<7} {printable(event.sentence())}"
        before = _COLOURS[event.level] if colour else ""
        _write(stream, f"{before}{line}{_PLAIN if before else ''}\n")

    return emit


def json_log(stream: TextIO, *, level: Level = Level.INFO, clock: Callable[[], datetime] = _now) -> Emit:
    """A sink that writes one JSON object a line: `time`, `level`, `event`, `message`, and the event's own fields."""

    def emit(event: Event) -> None:
        if event.level < level:
            return
        facts = {
            "time": clock().isoformat(timespec="milliseconds"),
            "level": event.level.name.lower(),
            "event": event.name,
            "message": printable(event.sentence()),
        }
        facts = facts | dataclasses.asdict(event) | facts  # no field of an event can pass for one of these four
        # json escapes whatever is not ASCII, control characters and lone surrogates included.
        _write(stream, json.dumps(facts, default=str) + "\n")

    return emit


def _write(stream: TextIO, line: str) -> None:
    with suppress(OSError, ValueError):
        stream.write(line)
        stream.flush()
