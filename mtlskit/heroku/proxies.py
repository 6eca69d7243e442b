"""The way out of a network that has an HTTP proxy: HTTPS_PROXY and NO_PROXY, as the Heroku CLI and curl read them.

Only https goes through a proxy, which opens a tunnel and sees nothing of what is in it. This machine (the sandbox) is
asked directly, always: over plain http a proxy would read the token. Nothing else of the environment has a say in how
a request is sent, netrc included.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import AsyncExitStack

import httpx

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.hosts import is_loopback

__all__ = ["Routes", "proxy_for", "trust"]


def proxy_for(url: httpx.URL, environ: Mapping[str, str]) -> str | None:
    """The proxy's URL; None: directly."""
    if url.scheme != "https" or is_loopback(url):
        return None
    names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    proxy = next((environ[name] for name in names if environ.get(name)), None)
    exempt = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if proxy is None or _exempt(url.host, exempt):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _exempt(host: str, no_proxy: str) -> bool:
    """NO_PROXY: names with everything below them, between commas; `*` is everything."""
    names = [name.strip().casefold().removeprefix("*.").lstrip(".") for name in no_proxy.split(",")]
    return any(name == "*" or (name and (host == name or host.endswith(f".{name}"))) for name in names)


def trust() -> ssl.SSLContext:
    """The CAs of this system (SSL_CERT_FILE and SSL_CERT_DIR included), or httpx's own where the system has none."""
    paths = ssl.get_default_verify_paths()
    none_here = paths.cafile is None and paths.capath is None
    context = httpx.create_ssl_context() if none_here else ssl.create_default_context()
    # Set and not inherited, so that every Python checks the same: the strict mode of 3.13 refuses roots without
    # keyUsage, and the CAs of proxies that open TLS are often so. curl and the Heroku CLI take them.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST
    return context


class Routes(httpx.AsyncBaseTransport):
    """Connections to each host the way that leads there."""

    def __init__(self, urls: tuple[httpx.URL, ...], environ: Mapping[str, str], *, limit: int) -> None:
        """Raises `HerokuError` (API_HOST) for a proxy that cannot be used."""
        limits = httpx.Limits(max_connections=limit, max_keepalive_connections=limit, keepalive_expiry=5.0)
        # The system's CAs take longer to read than the sandbox to answer, which is asked over plain http.
        context = trust() if any(url.scheme == "https" for url in urls) else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ways: dict[str, httpx.AsyncHTTPTransport] = {}
        for url in urls:
            proxy = proxy_for(url, environ)
            try:
                self._ways[url.host] = httpx.AsyncHTTPTransport(
                    verify=context, trust_env=False, limits=limits, proxy=None if proxy is None else httpx.Proxy(proxy)
                )
            except (ValueError, ImportError, httpx.InvalidURL):
                # Not chained: the proxy's URL may hold a password, and the error would quote it.
                problem = HerokuError(
                    Code.API_HOST,
                    "HTTPS_PROXY does not name a proxy that can be used",
                    "write it as http://HOST:PORT, or exempt Heroku's hosts: NO_PROXY=.heroku.com",
                )
            else:
                continue
            raise problem

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """By the host of the request; there are no others than those named at the start."""
        return await self._ways[request.url.host].handle_async_request(request)

    async def aclose(self) -> None:
        """Close every connection."""
        async with AsyncExitStack() as stack:
            for way in self._ways.values():
                stack.push_async_callback(way.aclose)
