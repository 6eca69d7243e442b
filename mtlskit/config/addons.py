"""Add-ons by name, and what a tunnel takes from one: `upstream = "heroku:ADDON"` and `login = "heroku"`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mtlskit.config.fields import choice, one
from mtlskit.config.origins import Origin, ValuePath, located, problem
from mtlskit.config.values import Login, TunnelConfig, TunnelKind, UnixAddress
from mtlskit.errors import Code, ConfigError

__all__ = ["AddonUpstream", "addon_upstream", "build_login", "check_login", "names_addon", "parse_addon"]

_ADDON = re.compile(r"[A-Za-z0-9][A-Za-z0-9_:.-]{0,199}")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
_PREFIX = "heroku:"


@dataclass(frozen=True)
class AddonUpstream:
    """An add-on that says itself where to connect, and which of its credentials says so."""

    addon: str
    credential: str = TunnelConfig.credential


def parse_addon(text: str) -> str:
    """Check the name of an add-on. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    if not _ADDON.fullmatch(text.strip()):
        raise ConfigError(
            Code.CONFIG_BAD_VALUE, "not the name of an add-on", 'write it as Heroku does: "postgresql-curved-12345"'
        )
    return text.strip()


def addon_upstream(
    texts: Sequence[str], kind: TunnelKind, paths: Sequence[ValuePath], origin: Origin
) -> AddonUpstream | None:
    """The add-on that `texts` (each at its path) name as upstream; None where they name endpoints.

    Raises `ConfigError` (CONFIG_BAD_VALUE).
    """
    for text, path in zip(texts, paths, strict=True):
        if not names_addon(text):
            continue
        if len(texts) > 1:
            raise problem(
                origin,
                path,
                'an add-on as upstream stands alone: it has one address, "heroku:ADDON"',
                "leave the others out, or give them tunnels of their own",
            )
        if kind is TunnelKind.TCP:
            raise problem(
                origin,
                path,
                f"a {kind} tunnel takes no add-on as upstream: Postgres and Kafka add-ons alone say where they are",
                f'write HOST:PORT, or set the kind to "{TunnelKind.POSTGRES}" or "{TunnelKind.KAFKA}"',
            )
        if kind is TunnelKind.KAFKA and "/" in text:
            raise problem(
                origin,
                path,
                "a Kafka add-on has one certificate for all, and no credentials to choose from",
                'write "heroku:ADDON"',
            )
        return one(text, _parse, path, origin)
    return None


def build_login(
    text: str | None, kind: TunnelKind, upstream: AddonUpstream | None, path: ValuePath, origin: Origin
) -> Login:
    """Who logs in at the upstream. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    if text is None:
        return Login.CLIENT
    login = one(text, lambda value: choice(value, Login, "not a way to log in"), path, origin)
    if login is Login.HEROKU and kind is not TunnelKind.POSTGRES:
        raise problem(
            origin,
            path,
            f"only a {TunnelKind.POSTGRES} tunnel logs in for its clients",
            "leave login out",
        )
    if login is Login.HEROKU and upstream is None:
        with located(origin, path):
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                "only an add-on as upstream has a credential to log in with",
                'write upstream = "heroku:ADDON", or leave login out',
            )
    return login


def check_login(tunnel: TunnelConfig, origin: Origin) -> None:
    """Refuse a door that asks for no password and does not say whom it is for.

    With `login = "heroku"` whoever reaches the door is in the database, so the file has to name them: by user, by
    address, or by a unix socket, which is its owner's alone. Raises `ConfigError` (CONFIG_OPEN_DOOR).
    """
    if tunnel.login is Login.CLIENT or isinstance(tunnel.listen, UnixAddress):
        return
    if tunnel.allow_users or tunnel.allow_clients:
        return
    raise problem(
        origin,
        ("tunnel", tunnel.name, "login"),
        f'with login = "{Login.HEROKU}" every user of this machine would be in the database without a password',
        'add allow_users with who may (Linux), such as ["tableau"], or listen on a unix socket;'
        ' for everybody on this machine: allow_clients = ["127.0.0.1"]',
        code=Code.CONFIG_OPEN_DOOR,
    )


def names_addon(text: str) -> bool:
    """Whether `text` is an add-on as upstream. `heroku:5432` is a port of a host that is called heroku."""
    text = text.strip()
    rest = text.removeprefix(_PREFIX)
    return rest != text and not (rest.isascii() and rest.isdigit())


def _parse(text: str) -> AddonUpstream:
    addon, slash, credential = text.strip().removeprefix(_PREFIX).partition("/")
    if slash and not _CREDENTIAL.fullmatch(credential):
        raise ConfigError(
            Code.CONFIG_BAD_VALUE, "not the name of a credential after the slash", 'write "heroku:ADDON/CREDENTIAL"'
        )
    return AddonUpstream(parse_addon(addon), credential or TunnelConfig.credential)
