"""Which identities of which file a command of `mtlskit certs` works on."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from mtlskit.config.values import IdentityConfig, ProxyConfig
    from mtlskit.heroku.client import Heroku
    from mtlskit.heroku.settings import Settings
    from mtlskit.lifecycle.target import Target, Tools
    from mtlskit.telemetry import Emit

__all__ = ["ConfigOption", "HerokuDoor", "control_folder", "identities_called", "load", "stored_target", "tools_for"]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        show_default=False,
        help="Default: $MTLSKIT_CONFIG, ./mtlskit.toml, then mtlskit.toml in your configuration folder.",
    ),
]


def load(config: Path | None) -> ProxyConfig:
    """The configuration file that is meant. Raises `ConfigError`."""
    from mtlskit.config.loading import load_config
    from mtlskit.config.locate import locate_config

    return load_config(locate_config(config, cwd=Path(), environ=os.environ), environ=os.environ)


def identities_called(config: ProxyConfig, names: Sequence[str]) -> list[IdentityConfig]:
    """The identities with these names, in the file's order; all of them for no names. Raises `ConfigError`."""
    from difflib import get_close_matches

    from mtlskit.errors import Code, ConfigError

    known = {identity.name: identity for identity in config.identities}
    for name in names:
        if name not in known:
            near = get_close_matches(name[:64], known, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            listed = f"the identities are {', '.join(known)}" if known else "add a table [identity.NAME]"
            raise ConfigError(
                Code.CONFIG_UNKNOWN_NAME, f"{config.source}: there is no identity {harmless(name)}{meant}", listed
            )
    return [identity for identity in config.identities if not names or identity.name in names]


def stored_target(config: ProxyConfig, identity: IdentityConfig) -> Target:
    """The target of a rotation. Raises `ConfigError` for an identity that somebody else looks after."""
    from mtlskit.config.values import IssuerKind
    from mtlskit.errors import Code, ConfigError
    from mtlskit.lifecycle.target import target_of

    if identity.issuer.kind is IssuerKind.FILES:
        raise ConfigError(
            Code.ISSUER_MISSING,
            f'{identity.name}: issuer = "files" leaves its certificates to somebody else',
            f"put new files in place of {identity.cert} and {identity.key}, which a running proxy loads by itself;"
            f" or name another issuer in [identity.{identity.name}]",
        )
    return target_of(config, identity)


def control_folder() -> Path | None:
    """The folder of control sockets that the variable names, as for `mtlskit proxy` and `mtlskit status`."""
    from mtlskit.control.places import VARIABLE

    variable = os.environ.get(VARIABLE)
    return Path(variable) if variable else None


class HerokuDoor:
    """The way to Heroku's APIs, for all identities of one command: the token is looked for once, when it is needed.

    A refused token is looked for again: whoever watches certificates for months outlives it.
    """

    def __init__(self, config: ProxyConfig, emit: Emit) -> None:
        self._config = config
        self._emit = emit
        self._settings: Settings | None = None

    def prepare(self) -> None:
        """Find the token. Blocks for half a minute at most. Raises `ConfigError` (API_NO_TOKEN, API_HOST)."""
        from mtlskit.heroku.settings import settings_from

        if self._settings is None:
            self._settings = settings_from(os.environ, self._config.heroku, emit=self._emit)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Heroku]:
        """Both APIs, for as long as the block lasts. Raises `ConfigError`, and `HerokuError` for what is asked."""
        import trio

        from mtlskit.cli.heroku_api import second_factor
        from mtlskit.errors import Code, HerokuError
        from mtlskit.heroku.client import open_heroku

        if self._settings is None:
            await trio.to_thread.run_sync(self.prepare)
        settings = self._settings
        if settings is None:
            raise ValueError("prepare() has found settings, or raised")
        try:
            async with open_heroku(settings, two_factor=second_factor(), emit=self._emit) as heroku:
                yield heroku
        except HerokuError as exc:
            if exc.code is Code.API_TOKEN_REFUSED:
                self._settings = None
            raise


def tools_for(
    config: ProxyConfig, identity: IdentityConfig, emit: Emit, *, asked: bool = True, door: HerokuDoor | None = None
) -> Tools:
    """What a rotation of `identity` works with; not `asked`: a certificate is brought by hand.

    `door` is shared by the identities of one command. Raises `ConfigError` for an issuer that cannot be had.
    """
    from datetime import UTC, datetime

    from mtlskit.cli.addon_lookup import heroku_lookup
    from mtlskit.config.values import IssuerKind
    from mtlskit.control.places import control_place
    from mtlskit.issuers.heroku_addon import HerokuAddonIssuer
    from mtlskit.lifecycle.issuing import issuer_of
    from mtlskit.lifecycle.proxies import ControlledProxies
    from mtlskit.lifecycle.target import Tools

    place = control_place(control_folder() or config.control, os.environ)
    door = door or HerokuDoor(config, emit)
    if asked and identity.issuer.kind is IssuerKind.HEROKU:
        door.prepare()  # now, and not in the middle of a rotation
    issuer = issuer_of(identity, asked=asked, heroku=door.opened)
    following = issuer if isinstance(issuer, HerokuAddonIssuer) else None
    endpoints = heroku_lookup(config.heroku, emit).endpoints
    return Tools(issuer, ControlledProxies(place), emit, lambda: datetime.now(UTC), following, endpoints)
