"""From a checked shape to frozen values: every text is parsed, and the rules that span several keys are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

from mtlskit.config.access import parse_network, parse_pin, parse_user, parse_verify
from mtlskit.config.addons import AddonUpstream, addon_upstream, build_login, check_login
from mtlskit.config.addresses import parse_listen
from mtlskit.config.allowlists import build_allowlist
from mtlskit.config.durations import parse_duration
from mtlskit.config.fields import Surroundings, check_name, choice, each, one, path_at
from mtlskit.config.identities import INLINE, build_identity, check_folders, inline_identity
from mtlskit.config.kafka import build_doors, default_verify
from mtlskit.config.origins import Origin, ValuePath, located, named_at, problem, raise_first
from mtlskit.config.programs import build_hooks
from mtlskit.config.remote import build_heroku, build_my_ip, parse_source
from mtlskit.config.rules import check_door, check_listeners, check_loops
from mtlskit.config.schema import EXAMPLES, TimeoutsTable, TunnelTable, check_shape
from mtlskit.config.upstreams import join_upstreams, parse_upstream
from mtlskit.config.values import (
    MOST_WARM,
    AllowlistConfig,
    Endpoint,
    ExpiringSessions,
    IdentityConfig,
    ListenAddress,
    Negotiation,
    ProxyConfig,
    Timeouts,
    TunnelConfig,
    TunnelKind,
    Verify,
    VerifyMode,
)
from mtlskit.errors import Code, ConfigError

__all__ = ["DEFAULT_STORE", "MOST_CONNECTIONS", "build_config"]

DEFAULT_STORE = "identities"
"""The folder of the store, beside the configuration file."""

MOST_CONNECTIONS = 100_000
"""Of one tunnel. A session takes two descriptors and some 50 KiB; no process serves more."""

_NOT_AHEAD: Mapping[TunnelKind, str] = MappingProxyType(
    {TunnelKind.TCP: "another server may speak first", TunnelKind.KAFKA: "Kafka's clients keep their connections"}
)
_UNBRACED = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]{0,127})")


def build_config(document: Mapping[str, object], around: Surroundings, *, source: Path | None) -> ProxyConfig:
    """Build everything that `document` describes (texts filled in already). `source` is None for flags: no store.

    Raises `ConfigError` for the first problem; each later stage is reached only when the one before found nothing.
    """
    origin = around.origin
    shape = check_shape(document, origin)
    store = path_at(shape.store, ("store",), around) or around.base / DEFAULT_STORE
    control = path_at(shape.control, ("control",), around)
    hooks = build_hooks(shape.hooks, around)
    heroku = build_heroku(shape.heroku, origin)
    my_ip = build_my_ip(shape.my_ip, origin)
    problems: list[ConfigError] = []
    identities: dict[str, IdentityConfig] = {}
    tunnels: list[TunnelConfig] = []
    allowlists: list[AllowlistConfig] = []
    for name, identity_table in shape.identity.items():
        try:
            identities[name] = build_identity(name, identity_table, store, around)
        except ConfigError as exc:
            problems.append(exc)
    for name, tunnel_table in shape.tunnel.items():
        if tunnel_table.identity in shape.identity and tunnel_table.identity not in identities:
            continue  # its identity has been complained about
        try:
            tunnels.append(_tunnel(name, tunnel_table, identities, around))
        except ConfigError as exc:
            problems.append(exc)
    for name, allowlist_table in shape.allowlist.items():
        try:
            allowlists.append(build_allowlist(name, allowlist_table, around))
        except ConfigError as exc:
            problems.append(exc)
    raise_first(problems)
    check_listeners(tunnels, origin)
    check_folders(identities.values(), origin)
    inline = [tunnel.identity for tunnel in tunnels if shape.tunnel[tunnel.name].identity is None]
    return ProxyConfig(
        tunnels=tuple(tunnels),
        source=source,
        identities=(*identities.values(), *inline),
        store=store if source is not None else None,
        control=control,
        hooks=hooks,
        allowlists=tuple(allowlists),
        heroku=heroku,
        my_ip=my_ip,
    )


def _tunnel(
    name: str, table: TunnelTable, identities: Mapping[str, IdentityConfig], around: Surroundings
) -> TunnelConfig:
    path: ValuePath = ("tunnel", name)
    origin = around.origin
    check_name(path, origin)
    kind = _kind(table, path, origin)
    identity = _identity_of(name, table, identities, around)
    addon, upstream = _upstream(table, kind, (*path, "upstream"), origin)
    listen = _listen(table, path, around)
    tunnel = TunnelConfig(
        name=name,
        kind=kind,
        listen=listen,
        upstream=upstream,
        identity=identity,
        verify=_verify(table, kind, identity, path, origin),
        verify_by_default=table.verify is None,
        negotiation=_negotiation(table, kind, path, origin),
        pins=each(table.pins, parse_pin, (*path, "pins"), origin),
        allow_clients=each(table.allow_clients, parse_network, (*path, "allow_clients"), origin),
        allow_users=each(table.allow_users, parse_user, (*path, "allow_users"), origin),
        max_connections=_max_connections(table, path, origin),
        warm=_warm(table, kind, path, origin),
        addon=addon.addon if addon else None,
        addon_named_by=named_at(origin, (*path, "upstream")) if addon else "",
        credential=addon.credential if addon else TunnelConfig.credential,
        login=build_login(table.login, kind, addon, (*path, "login"), origin),
        source=None if table.source is None else one(table.source, parse_source, (*path, "source"), origin),
        expiring_sessions=_expiring_sessions(table, kind, path, origin),
        kafka=build_doors(table, kind, listen, path, origin),
        timeouts=_timeouts(table.timeouts, (*path, "timeouts"), origin),
    )
    check_door(tunnel, origin, around.platform)
    check_login(tunnel, origin)
    check_loops(tunnel, origin)
    return tunnel


def _kind(table: TunnelTable, path: ValuePath, origin: Origin) -> TunnelKind:
    with located(origin, (*path, "kind")):
        return choice(table.kind, TunnelKind, "not a kind of tunnel")


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
        return choice(table.negotiation, Negotiation, "not a way to begin TLS")


def _listen(table: TunnelTable, path: ValuePath, around: Surroundings) -> ListenAddress:
    with located(around.origin, (*path, "listen")):
        return parse_listen(table.listen, base=around.base, environ=around.environ)


def _upstream(
    table: TunnelTable, kind: TunnelKind, path: ValuePath, origin: Origin
) -> tuple[AddonUpstream | None, tuple[Endpoint, ...]]:
    """The add-on that says where to connect, or the endpoints that the file names."""
    texts = _texts(table)
    alone = isinstance(table.upstream, str)
    paths: list[ValuePath] = [path if alone else (*path, number) for number in range(len(texts))]
    for place in paths:
        _refuse_unbraced(place, origin)
    if addon := addon_upstream(texts, kind, paths, origin):
        return addon, ()
    parsed = [
        one(text, lambda text: parse_upstream(text, kind), place, origin)
        for text, place in zip(texts, paths, strict=True)
    ]
    with located(origin, path):
        return None, join_upstreams(parsed)


def _texts(table: TunnelTable) -> list[str]:
    return [table.upstream] if isinstance(table.upstream, str) else table.upstream


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
        if name in identities:
            raise problem(
                around.origin,
                path,
                f"the tunnel has a certificate of its own, and there is an [identity.{name}] as well",
                f'write identity = "{name}" in its stead, or rename one of them',
            )
        return inline_identity(name, table, around)
    for key in INLINE:
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
    ca = path_at(table.ca, (*path, "ca"), around)
    return identity if ca is None else replace(identity, ca=ca)


def _refuse_unknown_identity(name: str, known: Sequence[str], path: ValuePath, origin: Origin) -> NoReturn:
    near = get_close_matches(name[:64], known, n=1)
    meant = f'; did you mean "{near[0]}"?' if near else ""
    hint = f"the identities are {', '.join(known)}" if known else "add a table [identity.NAME] with cert and key"
    with located(origin, path):
        raise ConfigError(Code.CONFIG_UNKNOWN_NAME, f"there is no identity of this name{meant}", hint)


def _verify(table: TunnelTable, kind: TunnelKind, identity: IdentityConfig, path: ValuePath, origin: Origin) -> Verify:
    if table.verify is None:
        return Verify() if kind is not TunnelKind.KAFKA else default_verify(_texts(table), identity, path, origin)
    with located(origin, (*path, "verify")):
        verify = parse_verify(table.verify)
        if verify.mode is not VerifyMode.FULL and identity.ca is None:
            # A Kafka of Heroku's would need one without the key as well.
            otherwise = "" if kind is TunnelKind.KAFKA else f", or leave {origin.name_of('verify')} out"
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                "this needs a CA file: with the system's roots, anybody's certificate would do",
                f"add {origin.spell('ca', EXAMPLES['ca'])}{otherwise}",
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
                f"only a {TunnelKind.POSTGRES} tunnel connects in advance: {_NOT_AHEAD[kind]}",
                f"leave {origin.name_of('warm')} out",
            )
    return table.warm


def _expiring_sessions(table: TunnelTable, kind: TunnelKind, path: ValuePath, origin: Origin) -> ExpiringSessions:
    if table.expiring_sessions is None:
        return ExpiringSessions.KEEP
    path = (*path, "expiring_sessions")
    if kind is not TunnelKind.POSTGRES:
        raise problem(
            origin,
            path,
            f"only a {TunnelKind.POSTGRES} tunnel ends its sessions before their certificate does",
            f"leave {origin.name_of('expiring_sessions')} out",
        )
    with located(origin, path):
        return choice(table.expiring_sessions, ExpiringSessions, "not a way to treat sessions")


def _timeouts(table: TimeoutsTable, path: ValuePath, origin: Origin) -> Timeouts:
    given = {key: value for key, value in table if value is not None}
    return replace(
        Timeouts(), **{key: one(value, parse_duration, (*path, key), origin) for key, value in given.items()}
    )
