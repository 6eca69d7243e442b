"""From a checked shape to frozen values: every text is parsed, and the rules that span several keys are kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn, TypeVar

from mtlskit.config.access import parse_network, parse_pin, parse_user, parse_verify
from mtlskit.config.addresses import parse_listen
from mtlskit.config.durations import parse_duration
from mtlskit.config.origins import Origin, ValuePath, located, problem, raise_first, spelled_key
from mtlskit.config.paths import parse_path
from mtlskit.config.rules import check_door, check_listeners, check_loops
from mtlskit.config.schema import EXAMPLES, IdentityTable, TimeoutsTable, TunnelTable, check_shape
from mtlskit.config.upstreams import join_upstreams, parse_upstream
from mtlskit.config.values import (
    MOST_WARM,
    Endpoint,
    IdentityConfig,
    ListenAddress,
    Negotiation,
    Timeouts,
    TunnelConfig,
    TunnelKind,
    Verify,
    VerifyMode,
)
from mtlskit.errors import Code, ConfigError

__all__ = ["MOST_CONNECTIONS", "Surroundings", "build_tunnels"]

MOST_CONNECTIONS = 100_000
"""Of one tunnel. A session takes two descriptors and some 50 KiB; no process serves more."""

_Given = TypeVar("_Given")
_Parsed = TypeVar("_Parsed")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
_LATER_ISSUERS = ("heroku", "ca", "csr", "command")
_LATER_KINDS = ("kafka",)
_UNBRACED = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]{0,127})")
_INLINE = ("cert", "key", "passphrase_file")


@dataclass(frozen=True)
class Surroundings:
    """What the values depend on beyond the text: where it came from, its folder, the environment, the platform."""

    origin: Origin
    base: Path
    environ: Mapping[str, str]
    platform: str
    """As in `sys.platform`."""


def build_tunnels(document: Mapping[str, object], around: Surroundings) -> tuple[TunnelConfig, ...]:
    """Build every tunnel of `document` (texts filled in already).

    Raises `ConfigError` for the first problem; each later stage is reached only when the one before found nothing.
    """
    _refuse_later_versions(document, around.origin)
    shape = check_shape(document, around.origin)
    problems: list[ConfigError] = []
    identities: dict[str, IdentityConfig] = {}
    tunnels: list[TunnelConfig] = []
    for name, identity_table in shape.identity.items():
        try:
            identities[name] = _identity(name, identity_table, ("identity", name), around)
        except ConfigError as exc:
            problems.append(exc)
    for name, tunnel_table in shape.tunnel.items():
        if tunnel_table.identity in shape.identity and tunnel_table.identity not in identities:
            continue  # its identity has been complained about
        try:
            tunnels.append(_tunnel(name, tunnel_table, identities, around))
        except ConfigError as exc:
            problems.append(exc)
    raise_first(problems)
    check_listeners(tunnels, around.origin)
    return tuple(tunnels)


def _refuse_later_versions(document: Mapping[str, object], origin: Origin) -> None:
    """Name what a later version brings, before its other keys are called unknown."""
    for path, value in _entries(document, "identity", "issuer"):
        if value in _LATER_ISSUERS:
            raise problem(
                origin,
                path,
                f'issuer "{value}" arrives in a later version',
                'use issuer = "files" with cert and key',
                code=Code.CONFIG_NOT_SUPPORTED,
            )
    for path, value in _entries(document, "tunnel", "kind"):
        if value in _LATER_KINDS:
            raise problem(
                origin,
                path,
                f'kind "{value}" arrives in a later version',
                f'this version has "{TunnelKind.POSTGRES}", and "{TunnelKind.TCP}" for any other TLS service',
                code=Code.CONFIG_NOT_SUPPORTED,
            )


def _entries(document: Mapping[str, object], section: str, key: str) -> list[tuple[ValuePath, object]]:
    tables = document.get(section)
    if not isinstance(tables, dict):
        return []
    return [((section, name, key), table.get(key)) for name, table in tables.items() if isinstance(table, dict)]


def _check_name(path: ValuePath, origin: Origin) -> None:
    if not _NAME.fullmatch(str(path[-1])):
        raise problem(
            origin,
            path,
            f"{spelled_key(str(path[-1]))} is not a usable name",
            "take letters, digits, '-' and '_', at most 63, not beginning with '-'",
        )


def _identity(name: str, table: IdentityTable | TunnelTable, path: ValuePath, around: Surroundings) -> IdentityConfig:
    _check_name(path, around.origin)
    if isinstance(table, IdentityTable) and table.issuer != "files":
        with located(around.origin, (*path, "issuer")):
            raise ConfigError(Code.CONFIG_BAD_VALUE, "unknown issuer", 'use issuer = "files" with cert and key')
    files = {key: _path(getattr(table, key), (*path, key), around) for key in (*_INLINE, "ca")}
    cert, key = files["cert"], files["key"]
    if cert is None or key is None:
        raise _no_identity(cert, key, path, around.origin)
    return IdentityConfig(name, cert, key, ca=files["ca"], passphrase_file=files["passphrase_file"])


def _no_identity(cert: Path | None, key: Path | None, path: ValuePath, origin: Origin) -> ConfigError:
    code = Code.CONFIG_MISSING_KEY
    both = " and ".join(origin.spell(name, EXAMPLES[name]) for name in ("cert", "key"))
    if cert is None and key is None:
        return problem(origin, path, "a client certificate and its key are missing", f"add {both}", code=code)
    lacking = "key" if key is None else "cert"
    return problem(origin, path, f"{origin.name_of(lacking)} is missing", f"a client identity takes {both}", code=code)


def _path(text: str | None, path: ValuePath, around: Surroundings) -> Path | None:
    if text is None:
        return None
    with located(around.origin, path):
        return parse_path(text, base=around.base, environ=around.environ)


def _tunnel(
    name: str, table: TunnelTable, identities: Mapping[str, IdentityConfig], around: Surroundings
) -> TunnelConfig:
    path: ValuePath = ("tunnel", name)
    origin = around.origin
    _check_name(path, origin)
    kind = _kind(table, path, origin)
    identity = _identity_of(name, table, identities, around)
    tunnel = TunnelConfig(
        name=name,
        kind=kind,
        listen=_listen(table, path, around),
        upstream=_upstream(table, kind, (*path, "upstream"), origin),
        identity=identity,
        verify=_verify(table, identity, path, origin),
        negotiation=_negotiation(table, kind, path, origin),
        pins=tuple(_each(table.pins, parse_pin, (*path, "pins"), origin)),
        allow_clients=tuple(_each(table.allow_clients, parse_network, (*path, "allow_clients"), origin)),
        allow_users=tuple(_each(table.allow_users, parse_user, (*path, "allow_users"), origin)),
        max_connections=_max_connections(table, path, origin),
        warm=_warm(table, kind, path, origin),
        timeouts=_timeouts(table.timeouts, (*path, "timeouts"), origin),
    )
    check_door(tunnel, origin, around.platform)
    check_loops(tunnel, origin)
    return tunnel


def _kind(table: TunnelTable, path: ValuePath, origin: Origin) -> TunnelKind:
    with located(origin, (*path, "kind")):
        return _choice(table.kind, TunnelKind, "not a kind of tunnel")


def _negotiation(table: TunnelTable, kind: TunnelKind, path: ValuePath, origin: Origin) -> Negotiation:
    if table.negotiation is None:
        return Negotiation.SSLREQUEST
    if kind is not TunnelKind.POSTGRES:
        raise problem(
            origin,
            (*path, "negotiation"),
            f"only a {TunnelKind.POSTGRES} tunnel negotiates",
            f"leave {origin.name_of('negotiation')} out",
        )
    with located(origin, (*path, "negotiation")):
        return _choice(table.negotiation, Negotiation, "not a way to begin TLS")


_Choice = TypeVar("_Choice", TunnelKind, Negotiation)


def _choice(text: str, choices: type[_Choice], complaint: str) -> _Choice:
    try:
        return choices(text)
    except ValueError as exc:
        near = get_close_matches(text[:64], [str(choice) for choice in choices], n=1)
        meant = f'; did you mean "{near[0]}"?' if near else ""
        listed = " or ".join(f'"{choice}"' for choice in choices)
        raise ConfigError(Code.CONFIG_BAD_VALUE, f"{complaint}{meant}", f"use {listed}") from exc


def _listen(table: TunnelTable, path: ValuePath, around: Surroundings) -> ListenAddress:
    with located(around.origin, (*path, "listen")):
        return parse_listen(table.listen, base=around.base, environ=around.environ)


def _upstream(table: TunnelTable, kind: TunnelKind, path: ValuePath, origin: Origin) -> tuple[Endpoint, ...]:
    if isinstance(table.upstream, str):
        _refuse_unbraced(path, origin)
        parsed = [_one(table.upstream, lambda text: parse_upstream(text, kind), path, origin)]
    else:
        for number in range(len(table.upstream)):
            _refuse_unbraced((*path, number), origin)
        parsed = _each(table.upstream, lambda text: parse_upstream(text, kind), path, origin)
    with located(origin, path):
        return join_upstreams(parsed)


def _refuse_unbraced(path: ValuePath, origin: Origin) -> None:
    """`$NAME` as a shell has it. Judged by what was written: what a variable holds may be a secret."""
    written = origin.written(path)
    if isinstance(written, str) and (variable := _UNBRACED.fullmatch(written.strip())):
        raise problem(origin, path, "a variable is written with braces", f'did you mean "${{{variable[1]}}}"?')


def _identity_of(
    name: str, table: TunnelTable, identities: Mapping[str, IdentityConfig], around: Surroundings
) -> IdentityConfig:
    path: ValuePath = ("tunnel", name)
    if table.identity is None:
        return _identity(name, table, path, around)
    for key in _INLINE:
        if getattr(table, key) is not None:
            raise problem(
                around.origin,
                (*path, key),
                f"identity and {key} exclude each other",
                f"leave {key} out, or write it in the table of the identity",
            )
    identity = identities.get(table.identity)
    if identity is None:
        _refuse_unknown_identity(table.identity, list(identities), (*path, "identity"), around.origin)
    ca = _path(table.ca, (*path, "ca"), around)
    return identity if ca is None else replace(identity, ca=ca)


def _refuse_unknown_identity(name: str, known: Sequence[str], path: ValuePath, origin: Origin) -> NoReturn:
    near = get_close_matches(name[:64], known, n=1)
    meant = f'; did you mean "{near[0]}"?' if near else ""
    hint = f"the identities are {', '.join(known)}" if known else "add a table [identity.NAME] with cert and key"
    with located(origin, path):
        raise ConfigError(Code.CONFIG_UNKNOWN_NAME, f"there is no identity of this name{meant}", hint)


def _verify(table: TunnelTable, identity: IdentityConfig, path: ValuePath, origin: Origin) -> Verify:
    with located(origin, (*path, "verify")):
        verify = parse_verify(table.verify)
        if verify.mode is not VerifyMode.FULL and identity.ca is None:
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                "this needs a CA file: with the system's roots, anybody's certificate would do",
                f"add {origin.spell('ca', EXAMPLES['ca'])}, or leave {origin.name_of('verify')} out",
            )
        return verify


def _max_connections(table: TunnelTable, path: ValuePath, origin: Origin) -> int:
    if not 1 <= table.max_connections <= MOST_CONNECTIONS:
        with located(origin, (*path, "max_connections")):
            raise ConfigError(Code.CONFIG_BAD_VALUE, f"must be from 1 to {MOST_CONNECTIONS}", "leave it out for 1000")
    return table.max_connections


def _warm(table: TunnelTable, kind: TunnelKind, path: ValuePath, origin: Origin) -> int:
    with located(origin, (*path, "warm")):
        if not 0 <= table.warm <= MOST_WARM:
            raise ConfigError(Code.CONFIG_BAD_VALUE, f"must be from 0 to {MOST_WARM}", "leave it out for 0")
        if table.warm and kind is not TunnelKind.POSTGRES:
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                f"only a {TunnelKind.POSTGRES} tunnel connects in advance: another server may speak first",
                f"leave {origin.name_of('warm')} out",
            )
    return table.warm


def _timeouts(table: TimeoutsTable, path: ValuePath, origin: Origin) -> Timeouts:
    given = {key: value for key, value in table if value is not None}
    return replace(
        Timeouts(), **{key: _one(value, parse_duration, (*path, key), origin) for key, value in given.items()}
    )


def _each(
    values: Iterable[_Given], parse: Callable[[_Given], _Parsed], path: ValuePath, origin: Origin
) -> list[_Parsed]:
    return [_one(value, parse, (*path, number), origin) for number, value in enumerate(values)]


def _one(value: _Given, parse: Callable[[_Given], _Parsed], path: ValuePath, origin: Origin) -> _Parsed:
    with located(origin, path):
        return parse(value)
