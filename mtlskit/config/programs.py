"""Programs that the configuration names: an argument list each, run without a shell."""

from __future__ import annotations

from collections.abc import Sequence

from mtlskit.config.durations import parse_duration
from mtlskit.config.fields import Surroundings, one
from mtlskit.config.origins import ValuePath, problem
from mtlskit.config.paths import parse_path
from mtlskit.config.schema import EXAMPLES, HooksTable
from mtlskit.config.values import Hooks
from mtlskit.errors import Code, ConfigError

__all__ = ["build_hooks", "parse_program"]

_HOOKS = ("before_switch", "after_switch", "failed")


def build_hooks(table: HooksTable, around: Surroundings) -> Hooks:
    """The programs around a rotation. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    path: ValuePath = ("hooks",)
    programs = {key: parse_program(getattr(table, key), (*path, key), around) for key in _HOOKS}
    timeout = Hooks.timeout
    if table.timeout is not None:
        timeout = one(table.timeout, parse_duration, (*path, "timeout"), around.origin)
    return Hooks(**programs, timeout=timeout)


def parse_program(words: Sequence[str] | None, path: ValuePath, around: Surroundings) -> tuple[str, ...]:
    """Check an argument list; None, which was not given, is empty.

    A program with a slash (or a leading `~`) is a path, and starts at the configuration's folder as every other one
    does; one without is searched for in PATH when it runs. Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    if words is None:
        return ()
    hint = f"write {around.origin.spell(str(path[-1]), EXAMPLES[str(path[-1])])}"
    if not words:
        raise problem(around.origin, path, "the list is empty, and names no program", hint)
    for number, word in enumerate(words):
        if "\0" in word:
            raise problem(around.origin, (*path, number), "no argument of a program can hold a NUL character", hint)
    program = words[0]
    located = "/" in program or program.startswith("~") or (around.platform == "win32" and "\\" in program)
    if len(words) == 1 and not located and len(program.split()) > 1:
        raise problem(around.origin, path, "a program and its arguments in one text: no shell takes them apart", hint)
    return (one(program, lambda text: _program(text, located, around), (*path, 0), around.origin), *words[1:])


def _program(text: str, located: bool, around: Surroundings) -> str:
    if not text.strip():
        raise ConfigError(Code.CONFIG_BAD_VALUE, "the name of the program is empty", "begin the list with its name")
    return str(parse_path(text, base=around.base, environ=around.environ)) if located else text
