"""One bounded GET of something public: an echo of my address, a list that somebody publishes.

https only, checked against the system's CAs; plain http on this machine alone, where the sandbox is. No redirect is
followed to anything else, no token goes along, and no proxy of the environment is used where the caller's own address
matters. httpx is imported when it is needed: most commands do without.
"""

from __future__ import annotations

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
    except (httpx.InvalidURL, TypeError, ValueError) as exc:
        raise ValueError("is no URL") from exc
    if not parsed.host or parsed.scheme not in ("http", "https"):
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
                url = str(httpx.URL(url).join(onward))
            raise FetchFailed("it redirects again and again")
    except trio.TooSlowError as exc:
        raise FetchFailed(f"no whole answer within {deadline:g} s") from exc
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise FetchFailed(_reason(exc)) from exc
    except ValueError as exc:
        raise FetchFailed(f"it redirects to what {exc}") from exc


async def _get(url: str, most: int, source: str | None, direct: bool) -> tuple[bytes, str | None]:
    """The body; or where it redirects to."""
    import httpx

    # The system's CAs (SSL_CERT_FILE names others), which take a while to be read; plain http needs none.
    secure = url.startswith("https:")
    context = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    transport = httpx.AsyncHTTPTransport(verify=context, local_address=source, trust_env=False) if source else None
    headers = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "mtlskit", "Cache-Control": "no-cache"}
    async with (
        httpx.AsyncClient(verify=context, trust_env=not direct, transport=transport, timeout=None) as client,  # noqa: S113 - the caller's deadline is over all of it
        client.stream("GET", url, headers=headers, auth=_no_auth) as response,
    ):
        if response.status_code in _REDIRECTS:
            return b"", response.headers.get("Location", "")
        if response.status_code != 200:
            raise FetchFailed(f"it answers with the status {response.status_code}")
        return await _read(response, most), None


def _no_auth(request: httpx.Request) -> httpx.Request:
    """In place of what ~/.netrc holds for the host, which is not for here."""
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
