"""One tunnel from command-line flags, by the same rules and parsers as the file."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mtlskit.config.builder import build_config
from mtlskit.config.fields import Surroundings
from mtlskit.config.origins import FlagOrigin
from mtlskit.config.values import FROM_FLAGS, ProxyConfig

__all__ = ["FLAGS", "config_from_flags"]

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "kind": "--kind",
        "listen": "--listen",
        "upstream": "--upstream",
        "cert": "--cert",
        "key": "--key",
        "ca": "--ca",
        "passphrase_file": "--passphrase-file",
        "verify": "--verify",
        "advertised": "--advertised",
        "first_broker_port": "--first-broker-port",
        "negotiation": "--negotiation",
        "pins": "--pin",
        "allow_clients": "--allow-client",
        "allow_users": "--allow-user",
        "max_connections": "--max-connections",
        "warm": "--warm",
    }
)
"""The keys of a tunnel that have a flag. Those in the plural are repeated: one value each time."""


def config_from_flags(
    *,
    listen: str | None,
    upstream: Sequence[str],
    cert: str | Path | None,
    key: str | Path | None,
    base: Path,
    environ: Mapping[str, str],
    kind: str = "postgres",
    ca: str | Path | None = None,
    passphrase_file: str | Path | None = None,
    verify: str | None = None,
    advertised: str | None = None,
    first_broker_port: int | None = None,
    negotiation: str | None = None,
    pins: Sequence[str] = (),
    allow_clients: Sequence[str] = (),
    allow_users: Sequence[str] = (),
    max_connections: int | None = None,
    warm: int | None = None,
    name: str = FROM_FLAGS,
    platform: str = sys.platform,
) -> ProxyConfig:
    """Build the configuration of one tunnel; relative paths start at `base`. What is None was not given.

    `${…}` is left as it is: a shell has had its turn. Raises `ConfigError`, whose sentences name the flag.
    """
    given: dict[str, object] = {
        "kind": kind,
        "listen": listen,
        "upstream": list(upstream) or None,
        "cert": _text(cert),
        "key": _text(key),
        "ca": _text(ca),
        "passphrase_file": _text(passphrase_file),
        "verify": verify,
        "advertised": advertised,
        "first_broker_port": first_broker_port,
        "negotiation": negotiation,
        "pins": list(pins),
        "allow_clients": list(allow_clients),
        "allow_users": list(allow_users),
        "max_connections": max_connections,
        "warm": warm,
    }
    document = {"tunnel": {name: {field: value for field, value in given.items() if value is not None}}}
    origin = FlagOrigin(FLAGS, document)
    around = Surroundings(origin=origin, base=base.absolute(), environ=environ, platform=platform)
    return build_config(document, around, source=None)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)
