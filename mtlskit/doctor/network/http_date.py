"""What time it is at a web server: the Date of its answer (RFC 9110, section 6.6.1), in whole seconds.

The certificate of the server is checked, chain and name, but for its dates: with a wrong clock they would fail, and the
clock is what is to be found out. No token goes along, and nothing of the answer is used but that one header.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
import trio

from mtlskit.errors import MtlskitError
from mtlskit.heroku.proxies import proxy_for, trust

__all__ = ["ServerDate", "ask_date"]

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (X509_VERIFY_PARAM_set_flags(3)), which Python's ssl has no name for."""
_LONGEST_DATE: Final = 64


@dataclass(frozen=True)
class ServerDate:
    """What a server's answer said."""

    host: str
    at: datetime
    """Aware; the middle of the second that was named."""
    seconds: float
    """How long the answer took; its Date was true somewhere between."""


async def ask_date(url: str, environ: Mapping[str, str], *, patience: float) -> ServerDate | str:
    """The Date of `url`, or in a few words why there is none; within `patience` seconds."""
    with trio.move_on_after(patience):
        try:
            return await _ask(httpx.URL(url), environ)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError, MtlskitError) as exc:
            return f"no answer ({type(exc).__name__})"
    return f"no answer within {patience:g} s"


async def _ask(url: httpx.URL, environ: Mapping[str, str]) -> ServerDate | str:
    proxy = proxy_for(url, environ)
    context = _context() if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    way = httpx.AsyncHTTPTransport(verify=context, trust_env=False, proxy=None if proxy is None else httpx.Proxy(proxy))
    try:
        began = trio.current_time()
        response = await way.handle_async_request(httpx.Request("HEAD", url, headers={"User-Agent": "mtlskit"}))
        taken = trio.current_time() - began
        text = response.headers.get("Date", "")[:_LONGEST_DATE]
        with trio.CancelScope(shield=True):  # closing waits for nobody
            await response.aclose()
    finally:
        with trio.CancelScope(shield=True):
            await way.aclose()
    with suppress(ValueError, TypeError, OverflowError):
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return ServerDate(url.host, at.astimezone(UTC).replace(microsecond=500_000), taken)
    return "its answer has no Date"


def _context() -> ssl.SSLContext:
    context = trust()
    context.verify_flags |= _NO_CHECK_TIME
    return context
