"""Where a key stands in a TOML text: the line numbers that `tomllib` does not keep.

The text has been parsed by then, so this reads only what begins a line: table headers and keys. A line inside a
multi-line string may be taken for a key; then the number is off, and nothing else is.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

__all__ = ["index_lines", "line_of"]

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')"
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*({_DOTTED})[ \t]*\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_BARE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")

_DEPTH = 8
"""Deeper than any key of the schema. Without a bound, one long dotted key would cost the square of its length."""

Position = tuple[str, ...]


def index_lines(text: str) -> Mapping[Position, int]:
    """Map the full path of each table and key to the line (from 1) where it stands first."""
    lines: dict[Position, int] = {}
    table: Position = ()
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _HEADER.match(line):
            table = _parts(header[1])
            _note(lines, table, number)
        elif assignment := _ASSIGNMENT.match(line):
            _note(lines, table + _parts(assignment[1]), number)
    return lines


def line_of(index: Mapping[Position, int], path: Position) -> int | None:
    """The line of `path`, or of the nearest thing around it that has one; None where nothing is known."""
    for length in range(len(path), 0, -1):
        if (number := index.get(path[:length])) is not None:
            return number
    return None


def _note(lines: dict[Position, int], path: Position, number: int) -> None:
    """Note `path`, and the tables that it makes without a header of their own."""
    for length in range(1, min(len(path), _DEPTH) + 1):
        lines.setdefault(path[:length], number)


def _parts(dotted: str) -> Position:
    if _BARE.fullmatch(dotted):
        return tuple(dotted.split("."))
    try:
        value: object = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()  # a line of a multi-line string that only looks like a key
    parts: list[str] = []
    while isinstance(value, dict):
        key, value = next(iter(value.items()))
        parts.append(key)
    return tuple(parts)
