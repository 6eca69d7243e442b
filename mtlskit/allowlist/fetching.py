"""One bounded GET of something public: an echo of my address, a list that somebody publishes.

https only, checked against the system's CAs; plain http on this machine alone, where the sandbox is. No redirect is
followed to anything else, and none from elsewhere to this machine: what listens here may trust whoever asks from here.
No token goes along, and no proxy of the environment is used for this machine, nor where the caller's own address
matters. httpx is imported when it is needed: most commands do without.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import httpx

__all__ = ["FetchFailed", "checked_url", "fetch"]

_MOST_REDIRECTS: Final = 3
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class FetchFailed(Exception):
    """No whole answer; `str` says why, in our own words."""


def checked_url(url: str) -> str:
    """`url` as it is asked, where what comes from there can be believed. Raises `ValueError` with the reason."""
    import httpx

    from mtlskit.heroku.hosts import is_loopback

    try:
        parsed = httpx.URL(url)
        host = parsed.host  # which is where an IDN that is none shows
    except (httpx.InvalidURL, TypeError, ValueError) as exc:
        raise ValueError("is no URL") from exc
    if not host or parsed.scheme not in ("http", "https"):
        raise ValueError("is no https URL")
    if parsed.userinfo:
        raise ValueError("holds a user or a password, which is not for here")
    if parsed.scheme == "http" and not is_loopback(parsed):
        raise ValueError("is plain http: anybody on the way could change what comes back; https only")
    return str(parsed)


async def fetch(
    url: str, *, most: int, deadline: float, source: str | None = None, direct: bool = False, follow: bool = False
) -> bytes:
    """The body of a 200, at most `most` bytes, within `deadline` seconds.

    `source` is the local address to ask from. `direct`: past any proxy of the environment. `follow`: redirects too,
    each checked as the URL was. Raises `FetchFailed`.
    """
    import httpx

    try:
        with trio.fail_after(deadline):
            for _ in range(_MOST_REDIRECTS + 1):
                body, onward = await _get(checked_url(url), most, source, direct)
                if onward is None:
                    return body
                if not follow:
                    raise FetchFailed("it redirects, which is not followed here")
                url = _onward(url, onward)
            raise FetchFailed("it redirects again and again")
    except trio.TooSlowError as exc:
        raise FetchFailed(f"no whole answer within {deadline:g} s") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise FetchFailed(_reason(exc)) from exc
    except UnicodeError as exc:  # of a resolver; and httpx looks at redirects, though it follows none
        raise FetchFailed("it, or what it redirects to, is no host") from exc
    except ValueError as exc:
        raise FetchFailed(f"it redirects to what {exc}") from exc


def _onward(url: str, location: str) -> str:
    """Where a redirect leads. Raises `FetchFailed` for one from elsewhere to this machine."""
    import httpx

    from mtlskit.heroku.hosts import is_loopback

    here = httpx.URL(url)
    there = httpx.URL(checked_url(str(here.join(location))))
    if is_loopback(there) and not is_loopback(here):
        raise FetchFailed("it redirects to this machine, which is not followed")
    return str(there)


def _proxy(url: str) -> httpx.Proxy | None:
    """HTTPS_PROXY and NO_PROXY as for Heroku; never for this machine: over plain http a proxy could answer instead."""
    import httpx

    from mtlskit.heroku.proxies import proxy_for

    proxy = proxy_for(httpx.URL(url), os.environ)
    return None if proxy is None else httpx.Proxy(proxy)


async def _get(url: str, most: int, source: str | None, direct: bool) -> tuple[bytes, str | None]:
    """The body; or where it redirects to."""
    import httpx

    from mtlskit.heroku.proxies import trust

    # The system's CAs (SSL_CERT_FILE names others), which take a while to be read; plain http needs none.
    context = trust() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        transport = httpx.AsyncHTTPTransport(
            verify=context, local_address=source, trust_env=False, proxy=None if direct else _proxy(url)
        )
    except (ValueError, ImportError, httpx.InvalidURL):
        transport = None  # nothing is chained: the proxy's URL may hold a password
    if transport is None:
        raise FetchFailed("HTTPS_PROXY does not name a proxy that can be used")
    headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "mtlskit", "Cache-Control": "no-cache"}
    async with (
        httpx.AsyncClient(trust_env=False, transport=transport, timeout=None) as client,  # noqa: S113 - the caller's deadline is over all of it
        client.stream("GET", url, headers=headers, auth=_no_auth) as response,
    ):
        if response.status_code in _REDIRECTS:
            return b"", response.headers.get("Location", "")
        if response.status_code != 200:
            raise FetchFailed(f"it answers with the status {response.status_code}")
        return await _read(response, most), None


def _no_auth(request: httpx.Request) -> httpx.Request:
    """Nothing of who asks: what ~/.netrc may hold for the host is not for here."""
    return request


async def _read(response: httpx.Response, most: int) -> bytes:
    if response.headers.get("Content-Encoding", "identity").strip().casefold() not in ("", "identity"):
        raise FetchFailed("the answer is packed, which was not asked for")  # little could become much
    body = bytearray()
    with trio.CancelScope() as enough:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > most:
                enough.cancel()  # leaving the loop would leave the generators below it to the garbage collector
    if len(body) > most:
        raise FetchFailed(f"the answer is larger than {most} bytes")
    return bytes(body)


def _reason(exc: Exception) -> str:
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, ssl.SSLError):
            return cause.strerror
    return "TCP or TLS failed, or the answer is no HTTP"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The exception, what it came from, and the members of groups (a dial tries several addresses)."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [exc]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
