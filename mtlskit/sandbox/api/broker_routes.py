"""The routes that look at the sandbox's Kafka and disturb it. Heroku has nothing of the kind."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mtlskit.errors import ConfigError, SandboxError
from mtlskit.sandbox.api.answers import ApiRefusal, not_found, read_object
from mtlskit.sandbox.api.calls import Calls
from mtlskit.sandbox.api.hooks import Brokers

__all__ = ["broker_routes"]

_MOST: Final = 2**15 - 1
"""Of every number here: more would be too much for one field of Kafka's protocol or another."""
_MOST_ERRORS: Final = 100


def broker_routes(calls: Calls) -> list[Route]:
    """All of them."""

    def brokers() -> Brokers:
        if calls.state.brokers is None:
            raise not_found("This sandbox has no Kafka brokers.")
        return calls.state.brokers

    def told(status: int = 200) -> Response:
        kafka = brokers()
        listed = [{"id": node, "address": address, "up": up} for node, (address, up) in kafka.brokers().items()]
        return calls.answer({"url": kafka.url, "brokers": listed, "topics": dict(kafka.topics)}, status)

    async def look(request: Request) -> Response:
        return told()

    async def create_topic(request: Request) -> Response:
        body = await read_object(request)
        await _done(brokers().create_topic(_text(body, "name"), _number(body, "partitions", 1, default=3)))
        return told(201)

    async def set_leader(request: Request) -> Response:
        body = await read_object(request)
        partition, broker = _number(body, "partition", 0), _number(body, "broker", 1)
        await _done(brokers().set_leader(_text(body, "topic"), partition, broker))
        return told()

    async def set_up(request: Request) -> Response:
        body = await read_object(request)
        if not isinstance(body.get("up"), bool):
            raise ApiRefusal(422, "invalid_params", "up must be true or false.")
        await _done(brokers().set_up(_number(body, "broker", 1), body["up"]))
        return told()

    async def push_errors(request: Request) -> Response:
        body = await read_object(request)
        errors = body.get("errors")
        if not isinstance(errors, list) or not 1 <= len(errors) <= _MOST_ERRORS:
            raise ApiRefusal(422, "invalid_params", f"errors must be a list of 1 to {_MOST_ERRORS} error codes.")
        codes = [_number({"error": each}, "error", -_MOST) for each in errors]
        await _done(brokers().push_errors(_number(body, "api_key", 0), codes))
        return told()

    return [
        Route("/sandbox/kafka", look),
        Route("/sandbox/kafka/topics", create_topic, methods=["POST"]),
        Route("/sandbox/kafka/leaders", set_leader, methods=["POST"]),
        Route("/sandbox/kafka/brokers", set_up, methods=["POST"]),
        Route("/sandbox/kafka/errors", push_errors, methods=["POST"]),
    ]


async def _done(call: Awaitable[None]) -> None:
    try:
        await call
    except (ConfigError, SandboxError) as exc:
        raise ApiRefusal(422, "invalid_params", f"{exc.sentence}.") from exc


def _text(body: dict[str, Any], name: str) -> str:
    if not isinstance(body.get(name), str):
        raise ApiRefusal(422, "invalid_params", f"{name} must be a text.")
    return str(body[name])


def _number(body: dict[str, Any], name: str, least: int, *, default: int | None = None) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _MOST:
        raise ApiRefusal(422, "invalid_params", f"{name} must be a whole number from {least} to {_MOST}.")
    return value
