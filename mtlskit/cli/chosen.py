"""Which identities of which file a command of `mtlskit certs` works on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.usage import harmless

if TYPE_CHECKING:
    from mtlskit.config.values import IdentityConfig, ProxyConfig
    from mtlskit.issuers.base import Issuer
    from mtlskit.lifecycle.target import Target, Tools
    from mtlskit.telemetry import Emit

__all__ = ["ConfigOption", "identities_called", "load", "stored_target", "tools_for"]

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


def _control_folder() -> Path | None:
    """The folder of control sockets that the variable names, as for `mtlskit proxy` and `mtlskit status`."""
    from mtlskit.control.places import VARIABLE

    variable = os.environ.get(VARIABLE)
    return Path(variable) if variable else None


def tools_for(config: ProxyConfig, identity: IdentityConfig, emit: Emit, *, asked: bool = True) -> Tools:
    """What a rotation of `identity` works with; not `asked`: a certificate is brought by hand.

    Raises `ConfigError` for an issuer that cannot be had, and `SandboxError`.
    """
    from datetime import UTC, datetime

    from mtlskit.control.places import control_place
    from mtlskit.lifecycle.issuing import issuer_of
    from mtlskit.lifecycle.proxies import ControlledProxies
    from mtlskit.lifecycle.target import Tools

    place = control_place(_control_folder() or config.control, os.environ)
    issuer = _sandbox_issuer(identity) or issuer_of(identity, asked=asked)
    return Tools(issuer, ControlledProxies(place), emit, lambda: datetime.now(UTC))


def _sandbox_issuer(identity: IdentityConfig) -> Issuer | None:
    """Where `sandbox.env` is loaded, the sandbox stands in for Heroku."""
    from mtlskit.config.values import IssuerKind

    description = os.environ.get("MTLSKIT_SANDBOX")
    if identity.issuer.kind is not IssuerKind.HEROKU or not description:
        return None
    from mtlskit.issuers.heroku import HerokuIssuer
    from mtlskit.sandbox.certificates import SandboxCertificates

    addon = identity.issuer.addon or ""
    return HerokuIssuer(addon, SandboxCertificates.of(Path(description), addon), pause=0.5)
