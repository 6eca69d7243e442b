"""What is answered: JSON with Heroku's two forms of timestamps, refusals, and the bounds on what is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

__all__ = ["MOST_BODY", "ApiRefusal", "Writer", "json_response", "not_found", "read_object", "refusal_response"]

MOST_BODY: Final = 65_536
"""Bytes. The largest body that makes sense, an inbound ruleset, has less than 2,000."""


class ApiRefusal(Exception):
    """A request that is answered with an error. `kind` is the `id` of Heroku's error object."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers = dict(headers or {})


def not_found(message: str) -> ApiRefusal:
    """A 404."""
    return ApiRefusal(404, "not_found", message)


Writer = Callable[[datetime], str]
"""Writes a time."""


def json_response(
    body: object, write_time: Writer, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`body` as JSON; the times in it as `write_time` has them."""

    def default(value: object) -> str:
        if isinstance(value, datetime):
            return write_time(value)
        raise TypeError(f"{type(value).__name__} is no part of an answer")

    text = json.dumps(body, default=default)
    return Response(text, status_code=status, headers=dict(headers or {}), media_type="application/json")


def refusal_response(refusal: ApiRefusal) -> Response:
    """The error object."""
    body = json.dumps({"id": refusal.kind, "message": refusal.message})
    return Response(body, refusal.status, refusal.headers, "application/json")


async def read_object(request: Request) -> dict[str, Any]:
    """The request's body, a JSON object; no body counts as `{}`. Raises `ApiRefusal` (400, 413)."""
    data = bytearray()
    try:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > MOST_BODY:
                    raise ApiRefusal(413, "bad_request", f"The request is larger than {MOST_BODY} bytes.")
    except ClientDisconnect as exc:  # nobody reads this answer
        raise ApiRefusal(400, "bad_request", "The request ended early.") from exc
    if not data:
        return {}
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ApiRefusal(400, "bad_request", "The request's body is not valid JSON.") from exc
    if not isinstance(found, dict):
        raise ApiRefusal(400, "bad_request", "The request's body is not a JSON object.")
    return found
