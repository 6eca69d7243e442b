"""Where a key stands in a TOML text: the line numbers that `tomllib` does not keep.

The text has been parsed by then, so this reads only what begins a line: table headers and keys. A line inside a
multi-line string may be taken for a key; then the number is off, and nothing else is. Entries of a list are counted
from its key on, so that one of many is found in a list that runs over many lines.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from itertools import islice

__all__ = ["find_entry", "index_lines", "line_of"]

_KEY = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*')"
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*({_DOTTED})[ \t]*\]")
_LIST_HEADER = re.compile(rf"^[ \t]*\[\[[ \t]*({_DOTTED})[ \t]*\]", re.MULTILINE)
_ASSIGNMENT = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{},]|[^\s\[\]{},"\'#]+',
    re.DOTALL,
)
"""What a value is made of: texts, comments, brackets, commas, and runs of everything else."""
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


def find_entry(text: str, start: int, number: int) -> int | None:
    """Where entry `number` (from 0) of a list begins in `text`; None if it is not found.

    The line of the list's key begins at `start`. A list of tables, `[[…]]`, has its first header there.
    """
    if header := _LIST_HEADER.match(text, start):
        same = (found for found in _LIST_HEADER.finditer(text, start) if _parts(found[1]) == _parts(header[1]))
        entry = next(islice(same, number, None), None)
        return None if entry is None else entry.start()
    assignment = _ASSIGNMENT.match(text, start)
    return None if assignment is None else _find_value(text, assignment.end(), number)


def _find_value(text: str, start: int, number: int) -> int | None:
    """As `find_entry`, for a list in brackets whose value begins at `start`."""
    depth, counted, fresh = 0, 0, False
    for token in _TOKEN.finditer(text, start):
        word = token[0]
        if word.startswith("#"):
            continue
        if depth == 1 and fresh and word != "]":
            if counted == number:
                return token.start()
            counted, fresh = counted + 1, False
        if word in ("[", "{"):
            depth, fresh = depth + 1, depth == 0
        elif word in ("]", "}"):
            depth -= 1
        elif word == "," and depth == 1:
            fresh = True
        if depth == 0:
            return None
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
