"""What every request meets: its id, the latency, a fault if one is switched on, the token; then its route.

`Front` is the ASGI application. A fault of the answer lets the rest run and changes what it sends; a fault that loses
the connection needs more than ASGI has: the server puts a function under `CUT` into the request's scope.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mtlskit.errors import MtlskitError
from mtlskit.sandbox.api.answers import ApiRefusal, refusal_response
from mtlskit.sandbox.api.broker_routes import broker_routes
from mtlskit.sandbox.api.calls import Calls
from mtlskit.sandbox.api.events import ApiCallAnswered, ApiCallFailed
from mtlskit.sandbox.api.faults import Fault
from mtlskit.sandbox.api.kafka_routes import kafka_routes
from mtlskit.sandbox.api.login_routes import login_routes
from mtlskit.sandbox.api.platform_routes import platform_routes
from mtlskit.sandbox.api.postgres_routes import postgres_routes
from mtlskit.sandbox.api.sandbox_routes import sandbox_routes
from mtlskit.telemetry import Emit

__all__ = ["CUT", "Cut", "Front"]

CUT: Final = "mtlskit.cut"
Cut: TypeAlias = Callable[[bool], Awaitable[None]]
"""Ends the connection: by a reset, or (False) in the ordinary way after what was sent."""

_CODE: Final = re.compile(r"[0-9]{6}")
_PAGE: Final = "<!DOCTYPE html><html><head><title>Application error</title></head><body><h1>Sorry</h1></body></html>"
_ANSWERS: Final = {
    "400": ("bad_request", "The request could not be understood."),
    "403": ("forbidden", "You do not have access to this resource."),
    "404": ("not_found", "Couldn't find that resource."),
    "409": ("conflict", "The resource is being changed by another request."),
    "422": ("invalid_params", "The request's parameters are not valid."),
    "429": ("rate_limit", "Your account reached the API rate limit. Please wait a moment and try again."),
    "500": ("internal_server_error", "Internal server error."),
    "502": ("bad_gateway", "Bad gateway."),
    "503": ("service_unavailable", "The service is not available now."),
    "504": ("gateway_timeout", "The service did not answer in time."),
}
"""What the faults of these names answer."""


class Front:
    """The application. `latency` in seconds."""

    def __init__(self, calls: Calls, *, token: str, latency: float, emit: Emit) -> None:
        self._app = _router(calls, emit)
        self._faults = calls.state.faults
        self._token = token.encode()
        self._latency = latency
        self._emit = emit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # a websocket, which the router refuses
            await self._app(scope, receive, send)
            return
        request_id, status = str(uuid.uuid4()).encode(), 0

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"request-id", request_id)]}
            await send(message)

        try:
            await self._meet(scope, receive, tell)
        finally:
            peer, method, path = (scope.get("client") or ("",))[0], scope["method"], scope["path"]
            self._emit(ApiCallAnswered(peer=peer, method=_shown(method), path=_shown(path), status=status))

    async def _meet(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._latency:
            await trio.sleep(self._latency)
        path = scope["path"]
        fault = None if path.startswith("/sandbox/") else self._faults.of_call(scope["method"], path)
        if fault is None:
            await self._answer(scope, receive, send)
        elif fault.name in ("hang", "lose-before"):
            await self._lose(fault.name, scope, receive)
        elif fault.name in ("hang-after", "lose-after"):
            await self._answer(scope, receive, _swallow)
            await self._lose(fault.name, scope, receive)
        elif fault.name in ("truncated", "cut", "500-after"):
            await self._spoil(fault.name, scope, receive, send)
        elif (response := _instead(fault, Request(scope))) is not None:
            await response(scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/echo/") or self._knows(Request(scope).headers.get("authorization", "")):
            await self._app(scope, receive, send)
        else:
            await _unauthorized()(scope, receive, send)

    def _knows(self, header: str) -> bool:
        """Both forms: `Bearer TOKEN`, and `Basic` with any user and the token as password."""
        scheme, _, shown = header.partition(" ")
        given = shown.strip().encode()
        if scheme.casefold() == "basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.casefold() != "bearer":
            return False
        return hmac.compare_digest(given, self._token)

    async def _lose(self, name: str, scope: Scope, receive: Receive) -> None:
        if name.startswith("hang"):
            while (await receive())["type"] != "http.disconnect":
                pass
        else:
            await scope[CUT](True)

    async def _spoil(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        messages: list[Message] = []

        async def collect(message: Message) -> None:
            messages.append(message)

        await self._answer(scope, receive, collect)
        if name == "500-after":
            await refusal_response(ApiRefusal(500, *_ANSWERS["500"]))(scope, receive, send)
            return
        body = b"".join(message.get("body", b"") for message in messages[1:])
        half = body[: len(body) // 2]
        if name == "truncated":
            headers = [pair for pair in messages[0]["headers"] if pair[0] != b"content-length"]
            length = (b"content-length", str(len(half)).encode())
            await send({**messages[0], "headers": [*headers, length]})
            await send({"type": "http.response.body", "body": half})
        else:
            await send(messages[0])
            await send({"type": "http.response.body", "body": half, "more_body": True})
            await scope[CUT](False)


async def _swallow(message: Message) -> None:
    """The `send` of an answer that nobody gets."""


def _instead(fault: Fault, request: Request) -> Response | None:
    """What a fault answers; None: it lets this call pass."""
    if fault.name == "html":
        return HTMLResponse(_PAGE, int(fault.value or 200))
    if fault.name in _ANSWERS:
        headers = {"Retry-After": fault.value or "1"} if fault.name == "429" else {}
        return refusal_response(ApiRefusal(int(fault.name), *_ANSWERS[fault.name], headers))
    if request.url.path.startswith("/echo/"):
        return None
    if fault.name == "two-factor":
        code = request.headers.get("heroku-two-factor-code", "")
        if code == fault.value if fault.value else _CODE.fullmatch(code):
            return None
        message = "A second authentication factor or pre-authorization is required for this request."
        return refusal_response(ApiRefusal(403, "two_factor", message))
    return _unauthorized()


def _unauthorized() -> Response:
    return refusal_response(ApiRefusal(401, "unauthorized", "Invalid credentials provided."))


def _router(calls: Calls, emit: Emit) -> ASGIApp:
    async def refused(request: Request, exc: Exception) -> Response:
        if isinstance(exc, ApiRefusal):
            return refusal_response(exc)
        if isinstance(exc, HTTPException):
            kind, text = _ANSWERS.get(str(exc.status_code), ("error", f"{exc.detail}."))
            return refusal_response(ApiRefusal(exc.status_code, kind, text, exc.headers))
        # The space failed, or there is a fault in mtlskit: the client learns no more than that.
        reason = str(exc) if isinstance(exc, MtlskitError) else f"{type(exc).__name__}, a fault in mtlskit"
        emit(ApiCallFailed(method=_shown(request.method), path=_shown(request.url.path), reason=_shown(reason)))
        return refusal_response(ApiRefusal(500, *_ANSWERS["500"]))

    app = Starlette(
        routes=[
            *postgres_routes(calls),
            *login_routes(calls),
            *kafka_routes(calls),
            *broker_routes(calls),
            *platform_routes(calls),
            *sandbox_routes(calls),
        ],
        exception_handlers={ApiRefusal: refused, HTTPException: refused, MtlskitError: refused, Exception: refused},
    )
    app.router.redirect_slashes = False
    return app


def _shown(text: str) -> str:
    """For the log: bounded."""
    return text if len(text) <= 300 else f"{text[:300]}…"
