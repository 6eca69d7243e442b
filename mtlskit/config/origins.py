"""Where a value came from, so that an error can say it: a line of a file, or a flag.

A parser knows what is wrong with a value but not where it stood; an `Origin` puts the two together. It shows the value
*as it was written*, before variables were filled in, and hides what may hold a password.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Protocol

from mtlskit.config.positions import Position, find_entry, index_lines, line_of
from mtlskit.errors import Code, ConfigError

__all__ = [
    "FileOrigin",
    "FlagOrigin",
    "Origin",
    "ValuePath",
    "located",
    "named_at",
    "problem",
    "raise_first",
    "shown",
    "spelled_key",
    "spelled_path",
]

ValuePath = tuple[str | int, ...]
"""Keys and list positions from the root, such as ("tunnel", "reporting", "pins", 0)."""

_BARE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_SHOWN = 64
_MAY_HOLD_A_SECRET = re.compile(r"@|://|password", re.IGNORECASE)


_IN_FLAGS = {"upstream": "HOST:5432, or set MTLSKIT_UPSTREAM"}
"""Examples that differ from the file's: a URL with a password does not belong on a command line."""


class Origin(Protocol):
    """A file or a command line."""

    def place(self, path: ValuePath) -> str:
        """What stands before a sentence about `path`."""
        ...

    def written(self, path: ValuePath) -> object:
        """The value at `path` before variables were filled in; None where there is none."""
        ...

    def spell(self, key: str, value: str) -> str:
        """How an operator writes `key` with `value` here; `value` is in TOML form."""
        ...

    def name_of(self, key: str) -> str:
        """How an operator calls `key` here."""
        ...

    def order(self, path: ValuePath) -> int:
        """A number that sorts problems as a reader meets them."""
        ...


class FileOrigin:
    """Values from a TOML file. `text` is its content, `document` what `tomllib` made of it."""

    def __init__(self, source: Path, text: str, document: Mapping[str, object]) -> None:
        self._source = source
        self._text = text
        self._document = document

    @cached_property
    def _index(self) -> Mapping[Position, int]:
        return index_lines(self._text)

    @cached_property
    def _starts(self) -> Sequence[int]:
        """Where each line begins."""
        return [0, *(found.end() for found in re.finditer("\n", self._text))]

    def _line(self, path: ValuePath) -> int | None:
        return line_of(self._index, tuple(part for part in path if isinstance(part, str)))

    def _line_of_entry(self, path: ValuePath) -> int | None:
        """The line of what `path` leads to, also within a list that runs over several lines."""
        numbers = [place for place, part in enumerate(path) if isinstance(part, int)]
        key = tuple(str(part) for part in path[: numbers[0]]) if numbers else ()
        if key not in self._index:
            return self._line(path)
        line = self._index[key]
        entry = find_entry(self._text, self._starts[line - 1], int(path[numbers[0]]))
        return line if entry is None else bisect_right(self._starts, entry)

    def place(self, path: ValuePath) -> str:
        line = self._line_of_entry(path)
        where = f"{self._source}:{line}" if line is not None else str(self._source)
        return f"{where}: {spelled_path(path)}: " if path else f"{where}: "

    def written(self, path: ValuePath) -> object:
        return look_up(self._document, path)

    def spell(self, key: str, value: str) -> str:
        return f"{key} = {value}"

    def name_of(self, key: str) -> str:
        return key

    def order(self, path: ValuePath) -> int:
        return self._line(path) or 0


class FlagOrigin:
    """Values from a command line. `flags` maps the keys of a tunnel to the flags that set them."""

    def __init__(self, flags: Mapping[str, str], document: Mapping[str, object]) -> None:
        self._flags = flags
        self._document = document

    def place(self, path: ValuePath) -> str:
        return f"{self._flags[str(path[2])]}: " if len(path) > 2 else ""

    def written(self, path: ValuePath) -> object:
        return look_up(self._document, path)

    def spell(self, key: str, value: str) -> str:
        bare = value.strip("[]").replace('"', "")
        return f"{self._flags[key]} {_IN_FLAGS.get(key) or bare}"

    def name_of(self, key: str) -> str:
        return self._flags[key]

    def order(self, path: ValuePath) -> int:
        return list(self._flags).index(str(path[2])) if len(path) > 2 else -1


def named_at(origin: Origin, path: ValuePath) -> str:
    """Where the value at `path` was written, for a sentence that is told later: `FILE:LINE: KEYS`, or a flag."""
    return origin.place(path).removesuffix(": ")


@contextmanager
def located(origin: Origin, path: ValuePath) -> Iterator[None]:
    """Give a `ConfigError` that arises in the block its place and the value it is about."""
    try:
        yield
    except ConfigError as exc:
        value = shown(origin.written(path))
        about = f"{value}: " if value else ""
        raise ConfigError(exc.code, f"{origin.place(path)}{about}{exc.sentence}", exc.hint) from exc


def problem(
    origin: Origin, path: ValuePath, sentence: str, hint: str = "", *, code: Code = Code.CONFIG_BAD_VALUE
) -> ConfigError:
    """An error about `path` that does not show its value."""
    return ConfigError(code, f"{origin.place(path)}{sentence}", hint)


def raise_first(problems: Sequence[ConfigError]) -> None:
    """Raise the first of `problems`, saying how many more there are; return if there is none."""
    if not problems:
        return
    first = problems[0]
    if len(problems) == 1:
        raise first
    raise ConfigError(first.code, f"{first.sentence} (and {len(problems) - 1} more)", first.hint) from first


def shown(value: object) -> str:
    """A value for an error: quoted, on one line, shortened; empty if it may hold a password or says nothing."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = str(value) if not isinstance(value, int) or abs(value) < 10**18 else "a very large number"
    if _MAY_HOLD_A_SECRET.search(text):
        return ""
    shortened = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
    if not isinstance(value, str):
        return shortened
    return f'"{shortened}"' if shortened.isprintable() and '"' not in shortened else json.dumps(shortened)


def spelled_key(key: str) -> str:
    """A key as TOML writes it, on one line and shortened."""
    return key if _BARE.fullmatch(key) else json.dumps(key[:_LONGEST_SHOWN])


def spelled_path(path: ValuePath) -> str:
    """A path as people write it: `tunnel.reporting.pins[0]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{spelled_key(part)}"
    return text


def look_up(document: object, path: ValuePath) -> object:
    """The value at `path` of nested tables and lists, or None."""
    for part in path:
        if isinstance(document, Mapping) and isinstance(part, str):
            document = document.get(part)
        elif isinstance(document, list) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            return None
    return document
