"""`mtlskit certs watch`: keep certificates renewed, as a service does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.chosen import ConfigOption, HerokuDoor, identities_called, load, stored_target, tools_for
from mtlskit.cli.options import LogOption, QuietOption, VerboseOption, log_sink, wants_json
from mtlskit.cli.render import reported, warn
from mtlskit.cli.stopping import run_until_stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlskit.config.values import ProxyConfig
    from mtlskit.lifecycle.watch import Watched
    from mtlskit.telemetry import Emit

__all__ = ["EPILOG", "watch"]

EPILOG = """\b
Examples:
  mtlskit certs watch                  every identity that has an issuer
  mtlskit certs watch reporting

Runs until it is stopped by SIGTERM or SIGINT. From cron, `mtlskit certs rotate --due` does the same once."""


def watch(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", hidden=True)] = None,
    config: ConfigOption = None,
    log: LogOption = "text",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Renew each certificate when it is due, at a random moment of the hour after; try again after failures.

    The credential of a Kafka add-on is followed once a minute, and never reset.
    """
    with reported(as_json=wants_json(log)):
        from random import SystemRandom

        emit = log_sink(log, quiet=quiet, verbose=verbose)
        watched = _watched(load(config), names or [], emit, as_json=wants_json(log))

        async def work() -> None:
            from mtlskit.lifecycle.watch import watch as watch_all

            await watch_all(watched, rng=SystemRandom())

        run_until_stopped(work)


def _watched(config: ProxyConfig, names: Sequence[str], emit: Emit, *, as_json: bool) -> list[Watched]:
    """Raises `ConfigError` if one that was named cannot be watched, or if none can."""
    from mtlskit.errors import Code, ConfigError
    from mtlskit.lifecycle.watch import Watched

    watched, refused, door = [], None, HerokuDoor(config, emit)
    for identity in identities_called(config, names):
        try:
            watched.append(Watched(stored_target(config, identity), tools_for(config, identity, emit, door=door)))
        except ConfigError as exc:
            if names:
                raise
            refused = exc
            warn(f"not watched: {exc.sentence}", as_json=as_json)
    if not watched:
        raise refused or ConfigError(
            Code.CONFIG_MISSING_KEY,
            f"{config.source}: there is no identity to watch",
            'add a table [identity.NAME] with an issuer, such as issuer = "ca"',
        )
    return watched
