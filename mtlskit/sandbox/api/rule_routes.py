"""The routes of IP rules, below a database's endpoint or a cluster."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.answers import read_object
from mtlskit.sandbox.api.calls import Calls, parameter
from mtlskit.sandbox.api.model import RuleRecord

__all__ = ["rule_fields", "rule_routes"]


def rule_fields(calls: Calls, rule: RuleRecord) -> dict[str, Any]:
    """An IP rule as the API tells it."""
    now = calls.state.now()
    return {
        "id": rule.id,
        "cidr": rule.cidr,
        "description": rule.description,
        "status": rule.status(now),
        "created_at": rule.created_at,
        "updated_at": rule.touched(now),
    }


def rule_routes(calls: Calls, base: str, kind: AddonKind) -> list[Route]:
    """`base` holds `{name}`."""

    async def everything(request: Request) -> Response:
        rules = calls.rules.all(parameter(request, "name"), kind)
        return calls.answer([rule_fields(calls, rule) for rule in rules])

    async def one(request: Request) -> Response:
        rule = calls.rules.one(parameter(request, "name"), kind, parameter(request, "id"))
        return calls.answer(rule_fields(calls, rule))

    async def add(request: Request) -> Response:
        body = await read_object(request)
        rule = calls.rules.add(parameter(request, "name"), kind, body.get("cidr"), body.get("description"))
        return calls.answer(rule_fields(calls, rule), 201)

    async def delete(request: Request) -> Response:
        rule = calls.rules.delete(parameter(request, "name"), kind, parameter(request, "id"))
        return calls.answer(rule_fields(calls, rule), 202)

    return [
        Route(f"{base}/ip-rules", everything),
        Route(f"{base}/ip-rules", add, methods=["POST"]),
        Route(f"{base}/ip-rules/{{id}}", one),
        Route(f"{base}/ip-rules/{{id}}", delete, methods=["DELETE"]),
    ]
