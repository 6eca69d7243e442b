"""`mtlskit allowlist watch`: follow this host's changing address, as a service does."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mtlskit.cli.allowlist_common import SourceOption, places_of
from mtlskit.cli.allowlist_plan import allowlists_called, owner_of_list
from mtlskit.cli.chosen import ConfigOption, load
from mtlskit.cli.heroku_api import settings_for
from mtlskit.cli.options import LogOption, QuietOption, VerboseOption, log_sink, wants_json
from mtlskit.cli.render import reported
from mtlskit.cli.stopping import run_until_stopped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtlskit.config.values import AllowlistConfig, ProxyConfig
    from mtlskit.heroku.client import Heroku
    from mtlskit.telemetry import Emit

__all__ = ["EPILOG", "watch"]

EPILOG = """\b
Examples:
  mtlskit allowlist watch                every allowlist with my_ip = true
  mtlskit allowlist watch offices

Runs until it is stopped by SIGTERM or SIGINT. The new address is added, and when it acts, the old one is removed. Only
what services say over https is believed, and at least two of them must say the same.

\b
Exit status:
  0  stopped by a signal
  1  this host leaves through several addresses: they are listed, and have to be written down as rules
  2  wrong usage or configuration"""


def watch(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", hidden=True)] = None,
    interval: Annotated[
        str,
        typer.Option(
            "--interval", metavar="DURATION", show_default=False, help="Between two looks at the address. Default: 1m."
        ),
    ] = "1m",
    source: SourceOption = None,
    config: ConfigOption = None,
    log: LogOption = "text",
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let this host in from wherever it is, and follow its address when it changes."""
    with reported(as_json=wants_json(log)):
        from mtlskit.config.durations import parse_duration
        from mtlskit.errors import ConfigError

        emit = log_sink(log, quiet=quiet, verbose=verbose)
        try:
            seconds = parse_duration(interval)
        except ConfigError as exc:
            raise ConfigError(exc.code, f"--interval: {exc.sentence}", exc.hint) from exc
        loaded = load(config)
        watched = _watched(loaded, names or [])
        settings = settings_for(loaded, emit=emit, as_json=wants_json(log))

        async def work() -> None:
            from mtlskit.heroku.client import open_heroku

            async with open_heroku(settings, emit=emit) as heroku:
                await _follow(heroku, loaded, watched, seconds, source, emit)

        run_until_stopped(work)


def _watched(config: ProxyConfig, names: Sequence[str]) -> list[AllowlistConfig]:
    """Raises `ConfigError` if one that was named does not follow an address, or if none does."""
    from mtlskit.errors import Code, ConfigError

    found = allowlists_called(config, names)
    still = [each.name for each in found if not each.my_ip]
    if still and (names or len(still) == len(found)):
        raise ConfigError(
            Code.CONFIG_MISSING_KEY,
            f"{config.source}: [allowlist.{still[0]}] does not let this host's own address in: there is none to follow",
            "add my_ip = true",
        )
    return [each for each in found if each.my_ip]


async def _follow(
    heroku: Heroku,
    config: ProxyConfig,
    watched: Sequence[AllowlistConfig],
    interval: float,
    source: str | None,
    emit: Emit,
) -> None:
    from functools import partial
    from random import SystemRandom

    import trio

    from mtlskit.allowlist.gather import gather
    from mtlskit.allowlist.my_ip import my_addresses, services_of
    from mtlskit.allowlist.state import state_folder
    from mtlskit.allowlist.watch import watch as watch_one

    settings = config.my_ip
    look = partial(my_addresses, services_of(os.environ, settings), source=source or settings.source, trusted_only=True)
    state = state_folder(os.environ)
    async with trio.open_nursery() as nursery:
        for each in watched:
            found = await gather(heroku.data, heroku.platform, each.addons, named_by=places_of([each]))
            nursery.start_soon(
                partial(
                    watch_one,
                    heroku.data,
                    found,
                    owner=owner_of_list(each),
                    look=look,
                    state=state,
                    fixed=[rule.cidr for other in config.allowlists for rule in other.rules],
                    emit=emit,
                    interval=interval,
                    rng=SystemRandom(),
                )
            )
