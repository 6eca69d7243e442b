"""The keys of a Kafka tunnel: at which host and port its clients find each broker.

Everything else that a Kafka tunnel has, it has in common with the others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, ip_address

from mtlskit.config.addons import names_addon
from mtlskit.config.addresses import parse_host
from mtlskit.config.fields import one
from mtlskit.config.origins import Origin, ValuePath, problem
from mtlskit.config.reach import is_this_machine_only
from mtlskit.config.schema import EXAMPLES, TunnelTable
from mtlskit.config.upstreams import is_kafka_url
from mtlskit.config.values import (
    IdentityConfig,
    IssuerKind,
    KafkaDoors,
    ListenAddress,
    TcpAddress,
    TunnelKind,
    UnixAddress,
    Verify,
    VerifyMode,
)
from mtlskit.errors import Code, ConfigError

__all__ = ["HIGHEST_NODE", "KAFKA_KEYS", "MOST_BROKERS", "build_doors", "default_verify"]

KAFKA_KEYS = ("advertised", "first_broker_port", "last_broker_port", "first_broker_address", "brokers")

HIGHEST_NODE = 2**31 - 1
"""Node ids are int32 in Kafka's protocol, and negative ones mean no broker."""

MOST_BROKERS = 1024
"""Ports by name. The largest clusters that are told of have some hundred brokers."""

_HIGHEST_PORT = 65_535
_LISTEN = '"127.0.0.1:9092"'
_NODE = re.compile(r"0|[1-9][0-9]{0,9}")
_HOST_HINT = 'write a host name or an IP address without a port, such as "host.docker.internal"'
_ADDRESS_HINT = 'write an IPv4 address of this machine alone, such as "127.0.1.0"'
_BROKERS_HINT = "write node ids with a port each: { 1001 = 9101, 1002 = 9102 }"


def build_doors(
    table: TunnelTable, kind: TunnelKind, listen: ListenAddress, path: ValuePath, origin: Origin
) -> KafkaDoors:
    """Where the tunnel at `path` has its brokers. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    if kind is not TunnelKind.KAFKA:
        _refuse_keys(table, path, origin)
        return KafkaDoors()
    if isinstance(listen, UnixAddress):
        raise problem(
            origin,
            (*path, "listen"),
            "Kafka's clients are told a host and a port for each broker, and a unix socket has neither",
            f"use {origin.spell('listen', _LISTEN)}",
        )
    address = _first_address(table, listen, path, origin)
    first, last = _range(table, listen, path, origin)
    return KafkaDoors(
        advertised=None
        if table.advertised is None
        else one(table.advertised, _advertised, (*path, "advertised"), origin),
        first_port=first,
        last_port=last,
        first_address=address,
        ports=_brokers(table.brokers or {}, listen, (*path, "brokers"), origin),
    )


def default_verify(upstream: Sequence[str], identity: IdentityConfig, path: ValuePath, origin: Origin) -> Verify:
    """What is checked of the brokers of the tunnel at `path` where the file does not say it.

    Heroku's have certificates for other names than those that KAFKA_URL has, so that their CA alone can be checked.
    Raises `ConfigError` (CONFIG_MISSING_KEY) where there is no CA file for that.
    """
    written = any(names_addon(text) or is_kafka_url(text) for text in upstream)
    if not written and identity.issuer.kind is not IssuerKind.HEROKU:
        return Verify()
    if identity.ca is None:
        raise problem(
            origin,
            path,
            f"{origin.name_of('ca')} is missing: a Kafka of Heroku's is checked by its CA alone",
            f"add {origin.spell('ca', EXAMPLES['ca'])} with what the app's KAFKA_TRUSTED_CERT holds",
            code=Code.CONFIG_MISSING_KEY,
        )
    return Verify(VerifyMode.CA)


def _refuse_keys(table: TunnelTable, path: ValuePath, origin: Origin) -> None:
    for key in KAFKA_KEYS:
        if getattr(table, key) is not None:
            raise problem(
                origin,
                (*path, key),
                f"only a {TunnelKind.KAFKA} tunnel has listeners for brokers",
                f'leave {origin.name_of(key)} out, or set the kind to "{TunnelKind.KAFKA}"',
            )


def _advertised(text: str) -> str:
    text = text.strip()
    try:
        address = ip_address(text)
    except ValueError:
        if ":" in text or text.startswith("["):
            raise ConfigError(
                Code.CONFIG_BAD_VALUE, "the port is each listener's own: a host stands here alone", _HOST_HINT
            ) from None
    else:
        if address.is_unspecified:
            raise ConfigError(Code.CONFIG_BAD_VALUE, "no client can connect to a wildcard address", _HOST_HINT)
    return parse_host(text, hint=_HOST_HINT)


def _range(table: TunnelTable, listen: TcpAddress, path: ValuePath, origin: Origin) -> tuple[int | None, int]:
    """The first port of brokers, if it is written, and the last one."""
    first = _number(table.first_broker_port, "first_broker_port", 0, path, origin)
    last = _number(table.last_broker_port, "last_broker_port", 1, path, origin)
    begin = first if first is not None else listen.port and listen.port + 1
    if last is not None and not begin:
        raise problem(
            origin,
            (*path, "last_broker_port"),
            "the system chooses the ports of brokers here, since the first one is 0 or not written",
            "write first_broker_port = 9093, or leave last_broker_port out",
        )
    if last is not None and last < begin:
        whose = "first_broker_port" if first is not None else "the port after the tunnel's own"
        raise problem(
            origin,
            (*path, "last_broker_port"),
            f"{last} is below {begin}, {whose}: no broker would have a port",
            "write a higher one: node N has the first port + N",
        )
    alone = first is None and table.first_broker_address is None and not table.brokers
    if begin > _HIGHEST_PORT and alone:
        raise problem(
            origin,
            (*path, "listen"),
            f"brokers have the ports after the tunnel's own, and there is none after {listen.port}",
            f"listen on a lower port, or add {origin.spell('first_broker_port', '9093')}",
        )
    return first, _HIGHEST_PORT if last is None else last


def _number(value: int | None, key: str, lowest: int, path: ValuePath, origin: Origin) -> int | None:
    return None if value is None else one(value, lambda number: _port(number, lowest), (*path, key), origin)


def _port(value: int, lowest: int = 1) -> int:
    if not lowest <= value <= _HIGHEST_PORT:
        raise ConfigError(
            Code.CONFIG_BAD_VALUE, f"must be from {lowest} to {_HIGHEST_PORT}", "write the number of a port: 9093"
        )
    return value


def _first_address(table: TunnelTable, listen: TcpAddress, path: ValuePath, origin: Origin) -> IPv4Address | None:
    if table.first_broker_address is None:
        return None
    key = "first_broker_address"
    for other in ("advertised", "first_broker_port", "last_broker_port"):
        if getattr(table, other) is not None:
            raise problem(
                origin,
                (*path, other),
                f"{key} and {other} exclude each other: the brokers have addresses of their own, on one port",
                "leave one of them out",
            )
    address = one(table.first_broker_address, _loopback, (*path, key), origin)
    if not listen.port:
        raise problem(
            origin,
            (*path, key),
            "brokers listen on the tunnel's own port, and port 0 has no number yet",
            f"write a port: {origin.spell('listen', _LISTEN)}",
        )
    if not is_this_machine_only(listen):
        raise problem(
            origin,
            (*path, key),
            f"only this machine can reach loopback addresses, and {listen} is open to others",
            "listen on 127.0.0.1, or give the brokers ports: first_broker_port",
        )
    return address


def _loopback(text: str) -> IPv4Address:
    try:
        address = IPv4Address(text.strip())
    except ValueError as exc:
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not an IPv4 address", _ADDRESS_HINT) from exc
    if not address.is_loopback:
        raise ConfigError(Code.CONFIG_BAD_VALUE, "not a loopback address (127.0.0.0/8)", _ADDRESS_HINT)
    return address


def _brokers(
    given: Mapping[str, object], listen: TcpAddress, path: ValuePath, origin: Origin
) -> tuple[tuple[int, int], ...]:
    """Node ids with their ports, in the order of the file."""
    if len(given) > MOST_BROKERS:
        raise problem(
            origin, path, f"more than {MOST_BROKERS} brokers", "leave out those that have the first port + their id"
        )
    taken: dict[int, str] = {}
    ports = []
    for key, value in given.items():
        place = (*path, key)
        if not _NODE.fullmatch(key) or int(key) > HIGHEST_NODE:
            raise problem(origin, place, f"not a node id: those are numbers from 0 to {HIGHEST_NODE}", _BROKERS_HINT)
        if not isinstance(value, int) or isinstance(value, bool):
            raise problem(origin, place, "must be a whole number", _BROKERS_HINT)
        port = one(value, _port, place, origin)
        if port == listen.port:
            raise problem(
                origin, place, f"{port} is the tunnel's own port, where clients begin", "give the broker another one"
            )
        if port in taken:
            raise problem(
                origin, place, f"broker {taken[port]} has port {port} already", "give each broker a port of its own"
            )
        taken[port] = key
        ports.append((int(key), port))
    return tuple(ports)
