"""A file of which some tables are wrong: what is right in it, and every problem.

A proxy refuses such a file as a whole, because a door that is missing without a word would be found too late. Who wants
to know what is wrong wants all of it, and what can be said about the tunnels that are described well. So each table is
built as if it were alone in the file, with those that it needs, and in the end all that are right together.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from mtlskit.config.builder import build_config
from mtlskit.config.fields import Surroundings
from mtlskit.config.interpolate import interpolate_document
from mtlskit.config.loading import parse_toml, read_text
from mtlskit.config.origins import FileOrigin
from mtlskit.config.values import ProxyConfig
from mtlskit.errors import ConfigError

__all__ = ["Parts", "load_parts"]

_IDENTITY, _TUNNEL, _ALLOWLIST = "identity", "tunnel", "allowlist"
_NAMED = (_IDENTITY, _TUNNEL, _ALLOWLIST)
"""Sections whose tables have names, `[tunnel.NAME]`."""

_NAMED_INSTEAD = 10
"""Identities that are built along with a tunnel that names none of them: hundreds of such must not take long."""


@dataclass(frozen=True)
class Parts:
    """What a file holds."""

    tunnels: Mapping[str, ProxyConfig]
    """Those that are right, in the file's order, each with a configuration that it is in."""
    broken: tuple[str, ...]
    """The tunnels that are wrong, or whose identity is."""
    problems: tuple[ConfigError, ...]
    """At least one for each table that is wrong, and for each that clashes with others."""

    @property
    def names(self) -> tuple[str, ...]:
        """Every tunnel of the file."""
        return (*self.tunnels, *self.broken)


def load_parts(path: Path, *, environ: Mapping[str, str], platform: str = sys.platform) -> Parts:
    """Read `path` table by table; relative paths in it start at its folder.

    Raises `ConfigError` where nothing can be read at all: CONFIG_NOT_FOUND, CONFIG_UNREADABLE, CONFIG_SYNTAX.
    """
    text = read_text(path)
    document = parse_toml(text, path)
    builder = _Builder(path, FileOrigin(path, text, document), environ, platform)
    common = {key: value for key, value in document.items() if key not in _NAMED and builder.build({key: value})}
    identities = _right(_IDENTITY, document, common, builder)
    allowlists = _right(_ALLOWLIST, document, common, builder)
    tunnels = _tables(_TUNNEL, document, builder)
    alone: dict[str, ProxyConfig] = {}
    for name, table in tunnels.items():
        wanted = table.get(_IDENTITY)
        wanted = wanted if isinstance(wanted, str) else ""
        if wanted in _entries(_IDENTITY, document) and wanted not in identities:
            continue  # its identity has been complained about
        needed = {each: identities[each] for each in (wanted, name) if each in identities}
        if wanted and wanted not in needed:  # the complaint names those that it may have meant
            near = (*get_close_matches(wanted[:64], identities, n=1), *islice(identities, _NAMED_INSTEAD))
            needed |= {each: identities[each] for each in near}
        config = builder.build({**common, _IDENTITY: needed, _TUNNEL: {name: table}})
        if config is not None:
            alone[name] = config
    right = {name: tunnels[name] for name in alone}
    together = builder.build({**common, _IDENTITY: identities, _TUNNEL: right, _ALLOWLIST: allowlists})
    return Parts(
        {name: together or config for name, config in alone.items()},
        tuple(name for name in tunnels if name not in alone),
        tuple(builder.problems),
    )


class _Builder:
    """Builds documents, and keeps what is wrong with them."""

    def __init__(self, source: Path, origin: FileOrigin, environ: Mapping[str, str], platform: str) -> None:
        self._source = source
        self._around = Surroundings(origin=origin, base=source.absolute().parent, environ=environ, platform=platform)
        self.problems: list[ConfigError] = []

    def build(self, document: Mapping[str, object]) -> ProxyConfig | None:
        """None where it is wrong."""
        filled, problems = interpolate_document(document, self._around.environ, self._around.origin)
        self.problems += problems
        if problems:
            return None
        try:
            return build_config(filled, self._around, source=self._source)
        except ConfigError as exc:
            self.problems.append(exc)
            return None


def _right(
    section: str, document: Mapping[str, object], common: Mapping[str, object], builder: _Builder
) -> dict[str, Mapping[str, object]]:
    """The tables of a section that can be built."""
    tables = _tables(section, document, builder)
    return {name: table for name, table in tables.items() if builder.build({**common, section: {name: table}})}


def _tables(section: str, document: Mapping[str, object], builder: _Builder) -> dict[str, Mapping[str, object]]:
    """The tables of a section by name; none where the section itself is not what it should be."""
    if section not in document:
        return {}
    entries = _entries(section, document)
    tables: dict[str, Mapping[str, object]] = {
        name: entry for name, entry in entries.items() if isinstance(entry, dict)
    }
    if not entries or len(tables) < len(entries):
        builder.build({section: document[section]})
        return {}
    return tables


def _entries(section: str, document: Mapping[str, object]) -> Mapping[str, object]:
    entries = document.get(section)
    return entries if isinstance(entries, dict) else {}
