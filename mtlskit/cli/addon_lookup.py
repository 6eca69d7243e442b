"""Asking Heroku where an add-on is, for the tunnels of a proxy and for the proofs of a rotation.

The client is opened for each look-up and closed after it: there is one every few minutes, the token may be another one
by then, and a proxy without add-ons never loads the HTTP library.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from mtlskit.heroku.whereabouts import Whereabouts
from mtlskit.telemetry import Emit, silent

if TYPE_CHECKING:
    from mtlskit.config.values import HerokuConfig, ProxyConfig
    from mtlskit.heroku.client import Heroku

__all__ = ["heroku_lookup", "lookup_for"]


def lookup_for(config: ProxyConfig, emit: Emit = silent) -> Whereabouts | None:
    """Who asks Heroku for the tunnels of `config`; None where none of them names an add-on."""
    if all(tunnel.addon is None for tunnel in config.tunnels):
        return None
    return heroku_lookup(config.heroku, emit)


def heroku_lookup(config: HerokuConfig, emit: Emit = silent) -> Whereabouts:
    """Asks both APIs. Also raises `ConfigError` (API_NO_TOKEN, API_HOST)."""
    return Whereabouts(partial(_opened, config, emit))


@asynccontextmanager
async def _opened(config: HerokuConfig, emit: Emit) -> AsyncIterator[Heroku]:
    """Nobody is asked for a second factor: a proxy runs without anybody."""
    import trio

    from mtlskit.heroku.client import open_heroku
    from mtlskit.heroku.settings import Settings, settings_from

    def find() -> Settings:  # asks programs for the token, which takes its time
        return settings_from(os.environ, config, emit=emit)

    settings = await trio.to_thread.run_sync(find, abandon_on_cancel=True)
    async with open_heroku(settings, emit=emit) as heroku:
        yield heroku
