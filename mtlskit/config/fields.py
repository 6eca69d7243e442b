"""How the builders of the configuration read one value: with its place, so that an error can name it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from mtlskit.config.origins import Origin, ValuePath, located, problem, spelled_key
from mtlskit.config.paths import parse_path
from mtlskit.errors import Code, ConfigError

__all__ = ["Surroundings", "check_name", "choice", "each", "one", "path_at"]

_Given = TypeVar("_Given")
_Parsed = TypeVar("_Parsed")
_Choice = TypeVar("_Choice", bound=StrEnum)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True)
class Surroundings:
    """What the values depend on beyond the text: where it came from, its folder, the environment, the platform."""

    origin: Origin
    base: Path
    environ: Mapping[str, str]
    platform: str
    """As in `sys.platform`."""


def check_name(path: ValuePath, origin: Origin) -> None:
    """Whether the table at `path` has a name that can stand on a command line, and be a folder's."""
    if not _NAME.fullmatch(str(path[-1])):
        raise problem(
            origin,
            path,
            f"{spelled_key(str(path[-1]))} is not a usable name",
            "take letters, digits, '-' and '_', at most 63, not beginning with '-'",
        )


def choice(text: str, choices: type[_Choice], complaint: str) -> _Choice:
    """The member of `choices` that `text` writes. Raises `ConfigError` (CONFIG_BAD_VALUE), which lists them."""
    try:
        return choices(text)
    except ValueError as exc:
        names = [each.value for each in choices]
        near = get_close_matches(text[:64], names, n=1)
        meant = f'; did you mean "{near[0]}"?' if near else ""
        *before, last = [f'"{name}"' for name in names]
        raise ConfigError(Code.CONFIG_BAD_VALUE, f"{complaint}{meant}", f"use {', '.join(before)} or {last}") from exc


def path_at(text: str | None, path: ValuePath, around: Surroundings) -> Path | None:
    """The file or folder that the value at `path` names, if there is one."""
    if text is None:
        return None
    with located(around.origin, path):
        return parse_path(text, base=around.base, environ=around.environ)


def each(
    values: Iterable[_Given], parse: Callable[[_Given], _Parsed], path: ValuePath, origin: Origin
) -> tuple[_Parsed, ...]:
    """Every entry of the list at `path`, parsed."""
    return tuple(one(value, parse, (*path, number), origin) for number, value in enumerate(values))


def one(value: _Given, parse: Callable[[_Given], _Parsed], path: ValuePath, origin: Origin) -> _Parsed:
    """The value at `path`, parsed; a `ConfigError` of `parse` gets its place."""
    with located(origin, path):
        return parse(value)
