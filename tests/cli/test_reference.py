"""docs/reference/command-line.md tells of every command, flag and variable, and of none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from mtlskit.cli.main import app

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")


def _commands(group: Any, prefix: str = "") -> dict[str, Any]:
    """Every command that does something, by its whole name."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found |= {prefix + name: command} if inner is None else _commands(command, f"{prefix}{name} ")
    return found


COMMANDS = _commands(get_command(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_tells_of_every_flag_and_variable(name: str) -> None:
    command = COMMANDS[name]
    section = PAGE.partition(f"\n## `mtlskit {name}`\n")[2].partition("\n## ")[0]
    told = {
        frozenset(re.findall(r"`(-[-\w]+)[^`]*`", flag)): variable
        for flag, variable in re.findall(r"^\| (`-.*?) \| (?:`(\w+)`)? ?\|", section, re.MULTILINE)
    }
    if any(option.name == "config" for option in command.params):
        # Its variable is looked up with the other places of the file, not by the option.
        assert told.pop(frozenset({"--config", "-c"})) == "MTLSKIT_CONFIG"
    expected = {
        frozenset(option.opts): option.envvar or ""
        for option in command.get_params(typer.Context(command))
        if option.param_type_name == "option" and option.name not in ("config", "help")
    }
    assert told.pop(frozenset({"--help", "-h"})) == ""
    assert told == expected


def test_the_page_tells_of_every_option_without_a_command() -> None:
    root = get_command(app)
    named = set(re.findall(r"^\| `mtlskit (--[a-z-]+)`", PAGE, re.MULTILINE))
    options = [option for option in root.get_params(typer.Context(root)) if option.param_type_name == "option"]
    assert named == {max(option.opts, key=len) for option in options}


def test_the_page_has_a_section_for_every_command() -> None:
    sections = re.findall(r"^## `mtlskit ([\w -]+)`$", PAGE, re.MULTILINE)
    assert sorted(sections) == sorted(COMMANDS)
