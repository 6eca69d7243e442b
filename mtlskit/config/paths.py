"""Paths as operators write them: relative to the configuration file's folder, with `~` for a home folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mtlskit.errors import Code, ConfigError

__all__ = ["parse_path"]


def parse_path(text: str, *, base: Path, environ: Mapping[str, str]) -> Path:
    """Turn `text` into a path: `~` is expanded, a relative path starts at `base`. The disk is not looked at.

    Raises `ConfigError` (CONFIG_BAD_VALUE) for an empty path, one with control characters (no system call takes a NUL),
    or an unknown home folder.
    """
    if not text.strip():
        raise ConfigError(Code.CONFIG_BAD_VALUE, "the path is empty", "name a file, or leave the key out")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise ConfigError(
            Code.CONFIG_BAD_VALUE,
            "the path holds a control character",
            r"in TOML, write paths with backslashes in single quotes: 'C:\keys\client.crt'",
        )
    return base / _expand(text, environ)


def _expand(text: str, environ: Mapping[str, str]) -> Path:
    path = Path(text)
    if not text.startswith("~"):
        return path
    home = environ.get("HOME") or environ.get("USERPROFILE")
    if path.parts[0] == "~" and home:
        return Path(home, *path.parts[1:])
    try:
        return path.expanduser()
    except RuntimeError as exc:
        raise ConfigError(
            Code.CONFIG_BAD_VALUE, f"the home folder of {path.parts[0]} is not known", "write the whole path"
        ) from exc
