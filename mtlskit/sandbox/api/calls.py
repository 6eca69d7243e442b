"""What all routes share: the calls, and how their answers are written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from mtlskit.sandbox.api.answers import json_response
from mtlskit.sandbox.api.clock import odd_time, rfc3339
from mtlskit.sandbox.api.hooks import SpaceHooks
from mtlskit.sandbox.api.kafka import Kafka
from mtlskit.sandbox.api.mtls import Mtls
from mtlskit.sandbox.api.rules import Rules
from mtlskit.sandbox.api.state import ApiState

__all__ = ["Calls", "Endpoint", "parameter"]

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]


class Calls:
    """The calls of one API."""

    def __init__(self, state: ApiState, hooks: SpaceHooks) -> None:
        self.state = state
        self.hooks = hooks
        self.mtls = Mtls(state, hooks)
        self.rules = Rules(state, self.mtls)
        self.kafka = Kafka(state, hooks)
        self._answers = 0

    def make_first_certificates(self) -> None:
        """What a fresh space lacks. Raises `MtlskitError` of the space."""
        self.mtls.make_first_certificates()
        self.kafka.make_first_certificates()

    def answer(self, body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
        """An answer. Every second one has its times in the other of Heroku's two forms."""
        self._answers += 1
        write_time = odd_time if self._answers % 2 == 0 else rfc3339
        return json_response(body, write_time, status=status, headers=headers)


def parameter(request: Request, name: str) -> str:
    """A part of the path."""
    found: Any = request.path_params[name]
    return str(found)
