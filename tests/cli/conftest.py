"""Typer makes every command anew, from its signature, each time that one is invoked: the tests let it do so once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import typer.main


@pytest.fixture(scope="session", autouse=True)
def _commands_are_made_once() -> Iterator[None]:
    """For `typer.testing.CliRunner`. `mtlskit` as a process makes its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", cache(typer.main.get_command))
        yield
