"""From `[allowlist.NAME]` to an `AllowlistConfig`: who shall be let in, at which add-ons."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mtlskit.config.addons import parse_addon
from mtlskit.config.cidrs import parse_cidr
from mtlskit.config.fields import Surroundings, check_name, each, one
from mtlskit.config.origins import Origin, ValuePath, named_at, problem
from mtlskit.config.paths import parse_path
from mtlskit.config.remote import parse_url
from mtlskit.config.schema import EXAMPLES, AllowlistTable, RuleTable
from mtlskit.config.values import AllowlistConfig, AllowRule
from mtlskit.errors import Code, ConfigError

__all__ = ["LONGEST_DESCRIPTION", "build_allowlist"]

LONGEST_DESCRIPTION = 200
"""Characters. What Heroku takes is not known, and the owner's tag has to fit behind it."""

_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
"""As `mtlskit.allowlist.owner.is_owner_part` has it, which lies above; a test compares them."""
_SPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_WITH_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SOURCES = ("rules", "my_ip", "rules_from", "from_space")


def build_allowlist(name: str, table: AllowlistTable, around: Surroundings) -> AllowlistConfig:
    """The allowlist `[allowlist.NAME]`.

    Raises `ConfigError`: CONFIG_BAD_VALUE, CONFIG_MISSING_KEY, and what `parse_cidr` raises.
    """
    path: ValuePath = ("allowlist", name)
    origin = around.origin
    check_name(path, origin)
    addons = _texts(table.addons, parse_addon, (*path, "addons"), origin)
    if not addons:
        raise problem(
            origin,
            (*path, "addons"),
            "the list names no add-on",
            f"write {origin.spell('addons', EXAMPLES['addons'])}; heroku addons shows them",
        )
    if not any(getattr(table, key) for key in _SOURCES):
        raise problem(
            origin,
            path,
            f"nobody is to be let in: none of {', '.join(_SOURCES)} is there",
            f"add {origin.spell('rules', EXAMPLES['rules'])}",
            code=Code.CONFIG_MISSING_KEY,
        )
    return AllowlistConfig(
        name=name,
        addons=addons,
        addons_named_by=named_at(origin, (*path, "addons")),
        rules=tuple(_rule(rule, (*path, "rules", number), origin) for number, rule in enumerate(table.rules)),
        my_ip=table.my_ip,
        rules_from=_texts(table.rules_from, lambda text: _list(text, around), (*path, "rules_from"), origin),
        spaces=_texts(table.from_space, _space, (*path, "from_space"), origin),
        collapse=table.collapse,
        owner_id=None if table.owner is None else one(table.owner, _owner, (*path, "owner"), origin),
    )


def _texts(given: str | Sequence[str], parse: Callable[[str], str], path: ValuePath, origin: Origin) -> tuple[str, ...]:
    """A text or a list of them, parsed, each once."""
    if isinstance(given, str):
        return (one(given, parse, path, origin),)
    return tuple(dict.fromkeys(each(given, parse, path, origin)))


def _rule(table: RuleTable, path: ValuePath, origin: Origin) -> AllowRule:
    with _placed(origin, path):
        cidr = parse_cidr(table.cidr)
    return AllowRule(cidr, one(table.description, _description, (*path, "description"), origin))


@contextmanager
def _placed(origin: Origin, path: ValuePath) -> Iterator[None]:
    """As `located`, for sentences that name the value themselves."""
    try:
        yield
    except ConfigError as exc:
        raise ConfigError(exc.code, f"{origin.place(path)}{exc.sentence}", exc.hint) from exc


def _description(text: str) -> str:
    if len(text) > LONGEST_DESCRIPTION:
        raise _bad(f"the description is longer than {LONGEST_DESCRIPTION} characters", "shorten it")
    if not text.isprintable():
        raise _bad("the description holds a control character", "write it on one line")
    if "[mtlskit:" in text:
        raise _bad("the owner's tag is put behind a description, not written in it", "leave [mtlskit:…] out")
    return text.strip()


def _list(text: str, around: Surroundings) -> str:
    """An https URL as it is; a file as its whole path."""
    if _WITH_SCHEME.match(text.strip()):
        return parse_url(text)
    return str(parse_path(text, base=around.base, environ=around.environ))


def _space(text: str) -> str:
    if not _SPACE.fullmatch(text.strip()):
        raise _bad("not the name of a Private Space", "write it as heroku spaces shows it")
    return text.strip()


def _owner(text: str) -> str:
    if not _OWNER.fullmatch(text):
        raise _bad("not an owner's id", "take letters, digits, '-', '_' and '.', at most 63")
    return text


def _bad(sentence: str, hint: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, sentence, hint)
