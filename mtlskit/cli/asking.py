"""Asking before something is destroyed."""

from __future__ import annotations

import sys

import typer

__all__ = ["agreed"]


def agreed(question: str) -> bool:
    """Whether the person at the terminal says yes. Raises `ConfigError` (USAGE) where there is none to ask."""
    from mtlskit.errors import Code, ConfigError

    if not sys.stdin.isatty():
        raise ConfigError(Code.USAGE, "nobody can be asked whether to do this: there is no terminal", "say --yes")
    answer: bool = typer.confirm(question, err=True)
    return answer
