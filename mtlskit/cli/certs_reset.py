"""What `mtlskit certs rotate` asks, refuses and tells before it begins: most of it about credentials of apps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import typer

from mtlskit.cli.chosen import HerokuDoor, stored_target, tools_for
from mtlskit.cli.render import line, print_json

if TYPE_CHECKING:
    from mtlskit.config.values import IdentityConfig, ProxyConfig
    from mtlskit.lifecycle.target import Wanted

__all__ = ["agreed_to_reset", "refuse_credentials", "refuse_reset", "show_plans"]

T = TypeVar("T")


def refuse_reset(*, reset: bool, names: Sequence[str]) -> None:
    """Raises `ConfigError` (USAGE) for a reset of anything but one identity that is named."""
    from mtlskit.errors import Code, ConfigError

    if reset and len(names) != 1:
        raise ConfigError(
            Code.USAGE,
            "--reset-app-credentials restarts dynos, so it takes one identity, by its name",
            "mtlskit certs rotate NAME --reset-app-credentials",
        )


def refuse_credentials(config: ProxyConfig, identities: Sequence[IdentityConfig]) -> None:
    """Raises `ConfigError` (ROTATION_REFUSED) for identities that are copies of an app's credential.

    By what the store knows; of others, `rotate` finds out. One that was left unfinished is gone on with.
    """
    from mtlskit.errors import ConfigError
    from mtlskit.lifecycle.following import refused
    from mtlskit.lifecycle.taking_back import current_of
    from mtlskit.store.journal import Journal

    for identity in identities:
        target = stored_target(config, identity)
        current = current_of(target)
        if current is None or not current.facts.followed:
            continue
        if Journal(target.stored.journal_path).unfinished() is None:
            no = refused(target)
            raise ConfigError(no.code, no.sentence, no.hint)


def agreed_to_reset(
    config: ProxyConfig, identity: IdentityConfig, door: HerokuDoor, *, yes: bool, as_json: bool
) -> bool:
    """Name the apps whose dynos restart, and ask; `yes`: they are named, and nobody is asked.

    Raises `ConfigError` (ROTATION_REFUSED) where there is nobody to ask, and `RotationError`.
    """
    import sys

    from mtlskit.cli.render import warn
    from mtlskit.errors import Code, ConfigError
    from mtlskit.lifecycle.following import reset_command

    told = _what_restarts(identity, door)
    if yes:
        warn(f"{identity.name}: {told}", as_json=as_json)
        return True
    if not sys.stdin.isatty():
        raise ConfigError(
            Code.ROTATION_REFUSED,
            f"{identity.name}: {told}; nobody can be asked whether to do this: there is no terminal",
            f"say --yes: {reset_command(identity.name)}",
        )
    warn(f"{identity.name}: {told}", as_json=as_json)
    answer: bool = typer.confirm("Reset the credential?", err=True)
    if not answer:
        line("nothing was reset")
    return answer


def show_plans(
    config: ProxyConfig,
    identities: Sequence[IdentityConfig],
    wanted: Wanted,
    door: HerokuDoor,
    *,
    as_json: bool,
) -> None:
    """What would be done. Leaves with status 3 where that is something."""
    plans = [(identity.name, _plan(config, identity, wanted, door)) for identity in identities]
    plans = [(name, plan) for name, plan in plans if plan]
    if as_json:
        print_json({"identities": [{"identity": name, "would": plan} for name, plan in plans]})
    else:
        for name, plan in plans:
            line(f"{name}: would {plan}")
        if not plans:
            line("nothing to do")
    if plans:
        raise typer.Exit(3)


def _plan(config: ProxyConfig, identity: IdentityConfig, wanted: Wanted, door: HerokuDoor) -> str:
    from datetime import UTC, datetime

    from mtlskit.lifecycle import due, following
    from mtlskit.lifecycle.taking_back import current_of
    from mtlskit.telemetry import silent

    target, now = stored_target(config, identity), datetime.now(UTC)
    if wanted.reset:
        return f"reset the credential, and take the new one; {_what_restarts(identity, door)}"
    current = current_of(target)
    if current is None or not current.facts.followed:
        return due.plan_of(target, wanted, now)
    tools = tools_for(config, identity, silent, door=door)
    return _run(lambda: following.plan_of(target, tools, wanted, now))


def _what_restarts(identity: IdentityConfig, door: HerokuDoor) -> str:
    from mtlskit.config.values import IssuerKind
    from mtlskit.errors import Code, ConfigError
    from mtlskit.issuers.heroku_addon import HerokuAddonIssuer

    if identity.issuer.kind is not IssuerKind.HEROKU:
        raise ConfigError(
            Code.ROTATION_REFUSED,
            f'{identity.name}: issuer = "{identity.issuer.kind}" has no credential of an app to reset',
            f"leave --reset-app-credentials out: mtlskit certs rotate {identity.name}",
        )
    door.prepare()
    issuer = HerokuAddonIssuer(identity.issuer.addon or "", door.opened, identity.issuer.addon_named_by)
    apps = _run(issuer.apps)
    dynos = f"the dynos of {'app' if len(apps) == 1 else 'the apps'} {', '.join(apps)}"
    return f"a reset of {identity.issuer.addon} ends the credential that it has, and restarts {dynos}"


def _run(work: Callable[[], Awaitable[T]]) -> T:
    import trio

    async def go() -> T:
        return await work()

    return trio.run(go)
