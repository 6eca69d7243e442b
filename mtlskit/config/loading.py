"""From the file to `ProxyConfig`. Reading the file is the only contact with the disk: what it names is opened later."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from mtlskit.config.builder import build_config
from mtlskit.config.fields import Surroundings
from mtlskit.config.interpolate import interpolate_document
from mtlskit.config.locate import WITHOUT_A_FILE
from mtlskit.config.origins import FileOrigin, raise_first, spelled_key, spelled_path
from mtlskit.config.values import ProxyConfig
from mtlskit.errors import Code, ConfigError

__all__ = ["LARGEST_FILE", "load_config", "parse_config", "parse_toml", "read_text", "refuse_unknown", "select"]

LARGEST_FILE = 1024 * 1024
"""Bytes. A thousand tunnels take some 300 KiB; a larger file is a log or a dump named by mistake."""

_TEXTS_IN_QUOTES = (
    'each key stands once in its table, and texts stand in quotes: key = "value"; see https://toml.io/en/v1.0.0'
)
_PLACE = re.compile(r"\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_TUPLE = re.compile(r"""\((?:'[^']*'|"[^"]*"),(?: (?:'[^']*'|"[^"]*"),?)*\)""")
"""How tomllib writes the name of a table: ('tunnel', 'reporting')."""


def load_config(path: Path, *, environ: Mapping[str, str], platform: str = sys.platform) -> ProxyConfig:
    """Read `path` and parse it; relative paths in it start at its folder.

    Raises `ConfigError` with any of the codes CONFIG_NOT_FOUND to CONFIG_NOT_SUPPORTED.
    """
    return parse_config(read_text(path), source=path, environ=environ, platform=platform)


def read_text(path: Path) -> str:
    """What stands in the file. Raises `ConfigError`: CONFIG_NOT_FOUND, CONFIG_UNREADABLE, CONFIG_SYNTAX (not UTF-8)."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError as exc:
        looked = "" if path.is_absolute() else f": looked for {path.absolute()}"
        raise ConfigError(
            Code.CONFIG_NOT_FOUND,
            f"{path}: there is no such file{looked}",
            f"check the name, or describe one tunnel without a file: {WITHOUT_A_FILE}",
        ) from exc
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        reason = getattr(exc, "strerror", None) or str(exc)
        raise ConfigError(
            Code.CONFIG_UNREADABLE,
            f"{path}: cannot be read: {reason}",
            f"check its kind and permissions: ls -ld {shlex.quote(str(path.absolute()))}",
        ) from exc
    if len(content) > LARGEST_FILE:
        raise ConfigError(
            Code.CONFIG_UNREADABLE, f"{path}: larger than {LARGEST_FILE} bytes", "check that this is the right file"
        )
    return _decode(content, path)


def parse_config(text: str, *, source: Path, environ: Mapping[str, str], platform: str = sys.platform) -> ProxyConfig:
    """Parse the text of a configuration file; `source` names it in errors, and relative paths start at its folder.

    A file may hold identities alone, for `mtlskit certs`, or an allowlist; `select` is what asks for tunnels. The disk
    is not touched.
    Raises `ConfigError` as `load_config` does.
    """
    document = parse_toml(text, source)
    origin = FileOrigin(source, text, document)
    filled, problems = interpolate_document(document, environ, origin)
    raise_first(problems)
    around = Surroundings(origin=origin, base=source.absolute().parent, environ=environ, platform=platform)
    config = build_config(filled, around, source=source)
    named = config.tunnels or config.identities or config.allowlists
    if not named and not {"heroku", "my_ip"} & document.keys():
        raise _no_tunnel(source)
    return config


def select(config: ProxyConfig, names: Sequence[str]) -> ProxyConfig:
    """Keep only the tunnels called `names`, in the file's order; no names keep them all.

    Raises `ConfigError`: CONFIG_UNKNOWN_NAME, or CONFIG_MISSING_KEY where there is no tunnel at all.
    """
    if not config.tunnels:
        raise _no_tunnel(config.source)
    if not names:
        return config
    refuse_unknown(names, [tunnel.name for tunnel in config.tunnels], config.source)
    return replace(config, tunnels=tuple(tunnel for tunnel in config.tunnels if tunnel.name in names))


def refuse_unknown(names: Sequence[str], known: Sequence[str], source: Path | None) -> None:
    """Raises `ConfigError` (CONFIG_UNKNOWN_NAME) for the first of `names` that is none of the `known` tunnels."""
    for name in names:
        if name not in known:
            near = get_close_matches(name[:64], known, n=1)
            meant = f'; did you mean "{near[0]}"?' if near else ""
            where = f"{source}: " if source else ""
            raise ConfigError(
                Code.CONFIG_UNKNOWN_NAME,
                f"{where}there is no tunnel {spelled_key(name)}{meant}",
                f"the tunnels are {', '.join(known)}",
            )


def _no_tunnel(source: Path | None) -> ConfigError:
    where = f"{source}: " if source else ""
    return ConfigError(
        Code.CONFIG_MISSING_KEY,
        f"{where}there is no tunnel",
        "add a table [tunnel.NAME] with kind, listen, upstream, cert, key and ca",
    )


def _decode(content: bytes, path: Path) -> str:
    try:
        # "-sig": editors on Windows put a byte order mark in front, which TOML does not know.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ConfigError(
            Code.CONFIG_SYNTAX, f"{path}:{line}: not UTF-8 (byte 0x{content[exc.start]:02x})", "save the file as UTF-8"
        ) from exc


def parse_toml(text: str, source: Path) -> dict[str, object]:
    """The document, whatever its tables and keys. Raises `ConfigError` (CONFIG_SYNTAX) with the line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        # The line and column are attributes from Python 3.14 on; before, they stand in the message alone.
        message = str(exc)
        place = _PLACE.search(message)
        reason = (message[: place.start()] if place else message).strip()
        if place and place["line"]:
            line, column = int(place["line"]), int(place["column"])
        else:
            line, column = text.count("\n") + 1, len(text) - (text.rfind("\n") + 1) + 1
        raise _syntax(
            source,
            f"{source}:{line}:{column}: not TOML: {_one_line(_TUPLE.sub(_dotted, reason))}",
            _toml_hint(text, line),
        ) from exc
    except RecursionError as exc:
        raise _syntax(source, f"{source}: not usable: lists or tables are nested too deeply") from exc
    except ValueError as exc:  # an integer beyond the interpreter's limit of digits
        raise _syntax(source, f"{source}: not usable: a number has too many digits") from exc


def _dotted(found: re.Match[str]) -> str:
    """`tunnel.reporting` for ('tunnel', 'reporting')."""
    try:
        return spelled_path(ast.literal_eval(found[0]))
    except (ValueError, SyntaxError):
        return found[0]


def _one_line(reason: str) -> str:
    reason = reason if reason.isprintable() else reason.encode("unicode_escape").decode("ascii")
    return reason if len(reason) <= 160 else f"{reason[:160]}…"


def _toml_hint(text: str, line: int) -> str:
    """What to write in `line` (from 1) instead. The line says what was meant more surely than tomllib's sentence."""
    lines = text.split("\n")
    if lines[line - 1 : line] and lines[line - 1].lstrip().startswith("["):
        return (
            "a table begins with [tunnel.NAME] or [identity.NAME], once for each NAME of letters, digits, '-' and '_'"
        )
    return _TEXTS_IN_QUOTES


def _syntax(source: Path, sentence: str, hint: str = _TEXTS_IN_QUOTES) -> ConfigError:
    return ConfigError(Code.CONFIG_SYNTAX, sentence, hint)
