"""Asking Heroku where an add-on is, for the tunnels of a proxy and for the proofs of a rotation.

The client is opened for each look-up and closed after it: there is one every few minutes, the token may be another one
by then, and a proxy without add-ons never loads the HTTP library.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mtlskit.telemetry import Emit, silent

if TYPE_CHECKING:
    from mtlskit.config.values import Endpoint, HerokuConfig, ProxyConfig, TunnelConfig
    from mtlskit.heroku.values import Credential

__all__ = ["HerokuLookup", "lookup_for"]


def lookup_for(config: ProxyConfig, emit: Emit = silent) -> HerokuLookup | None:
    """Who asks Heroku for the tunnels of `config`; None where none of them names an add-on."""
    if all(tunnel.addon is None for tunnel in config.tunnels):
        return None
    return HerokuLookup(config.heroku, emit)


class HerokuLookup:
    """An `AddonLookup` over the data API. Nobody is asked for a second factor: a proxy runs without anybody."""

    def __init__(self, config: HerokuConfig, emit: Emit = silent) -> None:
        self._config = config
        self._emit = emit

    async def __call__(self, addon: str, credential: str) -> Credential:
        """One credential of an add-on. Raises `ConfigError` (API_NO_TOKEN, API_HOST) and `HerokuError`."""
        import trio

        from mtlskit.heroku.client import open_heroku
        from mtlskit.heroku.settings import Settings, settings_from

        def find() -> Settings:  # asks programs for the token, which takes its time
            return settings_from(os.environ, self._config, emit=self._emit)

        settings = await trio.to_thread.run_sync(find, abandon_on_cancel=True)
        async with open_heroku(settings, emit=self._emit) as heroku:
            return await heroku.data.credential(addon, credential)

    async def endpoints(self, tunnel: TunnelConfig) -> tuple[Endpoint, ...]:
        """Where a tunnel leads to, as it is written or as Heroku tells. Raises as above."""
        from mtlskit.config.values import Endpoint

        if tunnel.addon is None:
            return tunnel.upstream
        found = await self(tunnel.addon, tunnel.credential)
        return (Endpoint(found.host, found.port),)
