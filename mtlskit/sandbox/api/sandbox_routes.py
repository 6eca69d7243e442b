"""The routes that Heroku does not have: faults, moves, and the echo services that tell a caller its address."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from mtlskit.sandbox.api.answers import ApiRefusal, not_found, read_object
from mtlskit.sandbox.api.calls import Calls, parameter
from mtlskit.sandbox.api.faults import FAULTS, make_fault

__all__ = ["DISAGREEING", "sandbox_routes"]

DISAGREEING = "127.0.0.99"
"""What the echo service b says under the fault `echo-disagree`."""


def sandbox_routes(calls: Calls) -> list[Route]:
    """All of them."""
    return [*_fault_routes(calls), *_move_routes(calls), *_echo_routes(calls)]


def _fault_routes(calls: Calls) -> list[Route]:
    faults = calls.state.faults

    def told(status: int = 200) -> Response:
        return calls.answer([fault.told() for fault in faults.on()], status)

    async def everything(request: Request) -> Response:
        return told()

    async def add(request: Request) -> Response:
        body = await read_object(request)
        name = body.pop("name", None)
        try:
            faults.add(make_fault(str(name), **body))
        except ValueError as exc:
            raise ApiRefusal(422, "invalid_params", str(exc)) from exc
        return told(201)

    async def clear(request: Request) -> Response:
        name = request.path_params.get("name")
        if name is not None and name not in FAULTS:
            raise not_found(f"There is no fault {name}.")
        faults.clear(name)
        return told()

    return [
        Route("/sandbox/faults", everything),
        Route("/sandbox/faults", add, methods=["POST"]),
        Route("/sandbox/faults", clear, methods=["DELETE"]),
        Route("/sandbox/faults/{name}", clear, methods=["DELETE"]),
    ]


def _move_routes(calls: Calls) -> list[Route]:
    async def everything(request: Request) -> Response:
        return calls.answer(calls.state.moves)

    async def move(request: Request) -> Response:
        body = await read_object(request)
        calls.state.move(str(body.get("from")), str(body.get("to")))
        return calls.answer(calls.state.moves)

    async def clear(request: Request) -> Response:
        calls.state.moves.clear()
        return calls.answer(calls.state.moves)

    return [
        Route("/sandbox/move", everything),
        Route("/sandbox/move", move, methods=["POST"]),
        Route("/sandbox/move", clear, methods=["DELETE"]),
    ]


def _echo_routes(calls: Calls) -> list[Route]:
    async def echo(request: Request) -> Response:
        service = parameter(request, "service")
        if service not in ("a", "b", "c"):
            raise not_found("There is no such service.")
        address = calls.state.external(request.client.host if request.client is not None else "")
        fault = calls.state.faults.standing("echo-disagree")
        if fault is not None and service == "b":
            address = fault.value or DISAGREEING
        if service == "b":
            answer: dict[str, Any] = {"ip": address}
            return calls.answer(answer)
        return PlainTextResponse(address if service == "a" else f"{address}\n")

    return [Route("/echo/{service}", echo)]
