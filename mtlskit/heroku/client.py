"""A client of both APIs, for as long as a block lasts."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.auth import Signer, TwoFactor, check_token
from mtlskit.heroku.data import DataApi
from mtlskit.heroku.hosts import token_belongs
from mtlskit.heroku.platform import PlatformApi
from mtlskit.heroku.proxies import Routes
from mtlskit.heroku.retries import Asker, Patience
from mtlskit.heroku.settings import Settings
from mtlskit.heroku.transport import Transport
from mtlskit.telemetry import Emit, silent

__all__ = ["Heroku", "Patience", "Settings", "TwoFactor", "open_heroku"]


@dataclass(frozen=True)
class Heroku:
    """Both APIs. Calls may be made from many tasks at once."""

    data: DataApi
    platform: PlatformApi


@asynccontextmanager
async def open_heroku(
    settings: Settings,
    *,
    two_factor: TwoFactor | None = None,
    emit: Emit = silent,
    limit: int = 16,
    patience: Patience | None = None,
    environ: Mapping[str, str] | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> AsyncIterator[Heroku]:
    """Open the client; its connections are closed at the end of the block.

    `limit`: requests at once, over both APIs; the others wait. `environ`: where a proxy is looked up, None for the
    process's own. `transport` stands in for the network. Raises `HerokuError` (API_HOST, API_TOKEN_REFUSED) before
    anything is sent.
    """
    check_token(settings.token)
    urls = (_checked(settings.platform_url), _checked(settings.data_url))
    inner = transport or Routes(urls, os.environ if environ is None else environ, limit=limit)
    patience = patience or Patience()
    sender = Transport(inner, settings.token, limit=limit, attempt=patience.attempt)
    askers = [
        Asker(Signer(sender, settings.token, two_factor), str(url), settings.token, patience=patience, emit=emit)
        for url in urls
    ]
    platform = PlatformApi(askers[0])
    try:
        yield Heroku(data=DataApi(askers[1], platform), platform=platform)
    finally:
        # Closing waits for nobody: what is in use is cut off, and a cancelled block must not leave sockets behind.
        with trio.CancelScope(shield=True):
            await inner.aclose()


def _checked(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL("")  # not chained: the text may hold a password
    if not token_belongs(url):
        raise HerokuError(
            Code.API_HOST,
            f"{url.scheme or 'no scheme'}://{url.host or 'no host'}: the token belongs to Heroku only, over https",
            "set HEROKU_HOST and HEROKU_DATA_HOST to Heroku's hosts over https, or to a sandbox on this machine",
        )
    return url
