"""One request and its whole answer, or `Lost` with what is known of how far it got.

Whether a request may be repeated hangs on one fact: has any of it been sent? httpx's exceptions say so where a
connection could not be made; where our own deadline ends an attempt they do not, so the trace that httpcore offers is
watched: it tells when it begins to write the request. Whoever cannot prove that nothing was sent says that it was.

`TokenGate` is the last thing that a request passes before the wire. Only there does it get its token, and only if the
token belongs to that very URL. The layer below sends one request and returns one response: it knows no redirects, no
cookies, no netrc and no variables of the environment, so there is nothing else by which the token could leave.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httpx
import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.hosts import token_belongs
from mtlskit.heroku.token import Token
from mtlskit.heroku.token_forms import AuthForm, clean

__all__ = ["MOST_BODY", "Answer", "Lost", "TokenGate", "Transport"]

MOST_BODY: Final = 10 * 1024 * 1024
"""Bytes of an answer. A page of 1000 add-ons has about 1 MiB."""
CONNECT: Final = 15.0
"""Seconds for TCP and TLS with one address."""
ACCEPT: Final = "application/vnd.heroku+json; version=3"

_FORM: Final = "mtlskit.auth"
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)


@dataclass(frozen=True)
class Answer:
    """A whole answer. The body may hold keys and passwords: it is never shown."""

    status: int
    body: bytes = field(repr=False)
    content_type: str = ""
    request_id: str = ""
    retry_after: str = ""
    next_range: str = ""
    location: str = field(default="", repr=False)


class Lost(Exception):
    """There is no whole answer. `sent`: some of the request may have reached the server."""

    def __init__(self, reason: str, *, sent: bool, final: bool = False, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent
        self.final = final
        """It would be the same again."""
        self.hint = hint


class _Body(httpx.AsyncByteStream):
    """A request's body. httpx's own is a generator, which a connection that breaks meanwhile leaves unfinished."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._done = False

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if self._done or not self._content:
            raise StopAsyncIteration
        self._done = True
        return self._content


class TokenGate(httpx.AsyncBaseTransport):
    """Gives each request its token, or refuses to send it. Raises `HerokuError` (API_HOST, API_TOKEN_REFUSED)."""

    def __init__(self, inner: httpx.AsyncBaseTransport, token: Token) -> None:
        self._inner = inner
        self._token = token

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a copy that has the token: the caller's request, which errors may carry about, never has it."""
        if not token_belongs(request.url):
            place = clean(f"{request.url.scheme}://{request.url.host}", self._token, most=100)
            raise HerokuError(
                Code.API_HOST,
                f"{place}: the token belongs to Heroku only, over https; nothing was sent",
                "set HEROKU_HOST and HEROKU_DATA_HOST to Heroku's hosts, or to a sandbox on this machine",
            )
        form: AuthForm = request.extensions[_FORM]
        headers = httpx.Headers(request.headers)
        headers["Authorization"] = form.header(self._token)
        return await self._inner.handle_async_request(
            httpx.Request(
                request.method,
                request.url,
                headers=headers,
                stream=_Body(request.content),
                extensions={key: value for key, value in request.extensions.items() if key != _FORM},
            )
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._inner.aclose()


class _Progress:
    """Listens to httpcore: where is the request?"""

    def __init__(self) -> None:
        self.connecting = False
        self.sending = False

    async def __call__(self, name: str, info: Mapping[str, Any]) -> None:
        if name == "connection.connect_tcp.started":
            self.connecting = True
        # A proxy is asked for its tunnel with a CONNECT first: that is not our request yet.
        elif name == "http11.send_request_headers.started" and info["request"].method != b"CONNECT":
            self.sending = True

    @property
    def sent(self) -> bool:
        """Not provably unsent."""
        return self.sending or not self.connecting


class Transport:
    """Sends requests, so many at once. `attempt`: seconds for one, until its answer is read whole."""

    def __init__(self, inner: httpx.AsyncBaseTransport, token: Token, *, limit: int, attempt: float) -> None:
        self._gate = TokenGate(inner, token)
        self._token = token
        self._limiter = trio.CapacityLimiter(limit)
        self._attempt = attempt

    async def send(
        self, method: str, url: str, *, form: AuthForm, headers: Mapping[str, str], content: bytes | None
    ) -> Answer:
        """One request. Raises `Lost`; `HerokuError` (API_HOST, API_RUBBISH)."""
        progress = _Progress()
        request = httpx.Request(
            method,
            url,
            headers={"Accept": ACCEPT, "Accept-Encoding": "identity", "User-Agent": "mtlskit", **headers},
            content=content,
            extensions={_FORM: form, "trace": progress, "timeout": {"connect": CONNECT}},
        )
        async with self._limiter:
            with trio.move_on_after(self._attempt):
                return await self._exchange(request, progress)
        raise Lost(f"no answer within {self._attempt:g} s", sent=progress.sent)

    async def _exchange(self, request: httpx.Request, progress: _Progress) -> Answer:
        try:
            response = await self._gate.handle_async_request(request)
            try:
                body = await self._read(response, cast("httpx.AsyncByteStream", response.stream))
            finally:
                with trio.CancelScope(shield=True):  # closing hands the connection back, and waits for nobody
                    await response.aclose()
        except httpx.RemoteProtocolError:
            # Its text quotes what came where an answer should begin, which may be the rest of one with a key in it: so
            # it is not chained.
            broken = True
        except httpx.TransportError as exc:
            raise _lost(exc, sent=progress.sent and (progress.sending or not isinstance(exc, _NOT_SENT))) from exc
        else:
            broken = False
        if broken:
            raise Lost("the connection broke off before the answer was whole, or it is not HTTP", sent=progress.sent)
        return Answer(
            status=response.status_code,
            body=body,
            content_type=self._shown(response.headers.get("Content-Type", "")),
            request_id=self._shown(response.headers.get("Request-Id") or response.headers.get("X-Request-Id") or ""),
            retry_after=response.headers.get("Retry-After", ""),
            next_range=response.headers.get("Next-Range", ""),
            location=response.headers.get("Location", ""),
        )

    async def _read(self, response: httpx.Response, stream: httpx.AsyncByteStream) -> bytes:
        # We ask for no compression. Unpacking what comes packed all the same could make much out of little.
        encoding = response.headers.get("Content-Encoding", "identity").strip().casefold()
        if encoding not in ("", "identity"):
            raise Lost(
                f"the answer is packed ({clean(encoding, self._token, most=20)!a}), which was not asked for",
                sent=True,
                final=True,
            )
        parts: list[bytes] = []
        size = 0
        with trio.CancelScope() as scope:
            async for chunk in stream:
                size += len(chunk)
                if size <= MOST_BODY:
                    parts.append(chunk)
                else:
                    # The layers below are generators within each other, and only an exception from the innermost ends
                    # them all at once: it comes out of its next read.
                    scope.cancel()
        if size > MOST_BODY:
            raise Lost(f"the answer is larger than {MOST_BODY // 1024 // 1024} MiB", sent=True, final=True)
        return b"".join(parts)

    def _shown(self, header: str) -> str:
        return clean(header, self._token, most=100)


def _lost(exc: httpx.TransportError, *, sent: bool) -> Lost:
    """In our own words: what httpx says may quote what the server sent."""
    for cause in _causes(exc):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Lost(
                f"its certificate is not trusted: {cause.verify_message}",
                sent=sent,
                final=True,
                hint="a proxy that opens TLS has a CA of its own: SSL_CERT_FILE=CA.pem names it",
            )
        if isinstance(cause, socket.gaierror):
            return Lost(f"its name has no address: {cause.strerror}", sent=sent)
    if isinstance(exc, httpx.ProxyError):
        return Lost(
            "the proxy of this network refused the connection", sent=sent, hint="look at HTTPS_PROXY and NO_PROXY"
        )
    if isinstance(exc, httpx.TimeoutException):
        return Lost("no connection in time" if not sent else "no answer in time", sent=sent)
    system = [cause.strerror for cause in _causes(exc) if isinstance(cause, OSError) and cause.strerror]
    if not sent:
        return Lost(f"no connection: {system[-1] if system else 'TCP or TLS failed'}", sent=sent)
    return Lost("the connection broke off before the answer was whole", sent=sent)


def _causes(exc: BaseException | None) -> Iterator[BaseException]:
    """The exception, what it came from, and the members of groups (a dial tries several addresses)."""
    seen: set[int] = set()
    waiting = [exc]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [one.__context__, one.__cause__]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
