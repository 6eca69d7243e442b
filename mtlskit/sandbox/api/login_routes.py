"""The data API's routes of a database's logins, and of the database as a whole."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mtlskit.sandbox.api.answers import ApiRefusal, not_found
from mtlskit.sandbox.api.calls import Calls, parameter
from mtlskit.sandbox.api.model import AddonRecord
from mtlskit.sandbox.api.postgres_routes import DATABASE

__all__ = ["database_url", "login_routes"]

_DEFAULT = "default"


def database_url(calls: Calls) -> str:
    """The one login's URL."""
    host, port, database, user, password = calls.hooks.credential()
    shown = f"[{host}]" if ":" in host else host
    return f"postgres://{quote(user, safe='')}:{quote(password, safe='')}@{shown}:{port}/{quote(database, safe='')}"


def login_routes(calls: Calls) -> list[Route]:
    """All of them."""
    return [*_credential_routes(calls), *_database_routes(calls)]


def _credential(calls: Calls, addon: AddonRecord) -> dict[str, Any]:
    host, port, database, user, password = calls.hooks.credential()
    return {
        "uuid": str(uuid.uuid5(uuid.UUID(addon.id), _DEFAULT)),
        "name": _DEFAULT,
        "state": "active",
        "database": database,
        "host": host,
        "port": port,
        "credentials": [{"user": user, "password": password, "state": "active"}],
    }


def _credential_routes(calls: Calls) -> list[Route]:
    def default(request: Request) -> AddonRecord:
        addon = calls.mtls.database(parameter(request, "name"))
        if request.path_params.get("credential", _DEFAULT) != _DEFAULT:
            raise not_found("Couldn't find that credential.")
        return addon

    async def everything(request: Request) -> Response:
        return calls.answer([_credential(calls, default(request))])

    async def one(request: Request) -> Response:
        return calls.answer(_credential(calls, default(request)))

    async def rotate(request: Request) -> Response:
        addon = default(request)
        user = calls.hooks.credential()[3]
        if await calls.hooks.rotate_password(user) is None:
            message = f"The password of {user} cannot be changed: the database is not the sandbox's own."
            raise ApiRefusal(422, "invalid_params", message)
        return calls.answer({"message": f"Rotated the credential {_DEFAULT} of {addon.name}."})

    base = f"{DATABASE}/credentials"
    return [
        Route(base, everything),
        Route(f"{base}/{{credential}}", one),
        Route(f"{base}/{{credential}}/credentials_rotation", rotate, methods=["POST"]),
        Route(f"{DATABASE}/credentials_rotation", rotate, methods=["POST"]),
    ]


def _database_routes(calls: Calls) -> list[Route]:
    async def detail(request: Request) -> Response:
        addon = calls.mtls.database(parameter(request, "name"))
        status = addon.endpoint_status(calls.state.now())
        enabled = {"Operational": "Enabled", None: "Disabled"}.get(status, status)
        return calls.answer(
            {
                "name": addon.name,
                "available_for_ingress": addon.mtls,
                "waiting?": False,
                "leader": None,
                "resource_url": database_url(calls),
                "info": [
                    {"name": "Plan", "values": [addon.plan]},
                    {"name": "Status", "values": ["Available"]},
                    *([{"name": "Mutual TLS", "values": [enabled]}] if addon.mtls else []),
                ],
            }
        )

    async def waiting(request: Request) -> Response:
        calls.mtls.database(parameter(request, "name"))
        return calls.answer({"waiting?": False, "message": "available"})

    return [
        Route("/client/v11/databases/{name}", detail),
        Route("/client/v11/databases/{name}/wait_status", waiting),
        Route(f"{DATABASE}/wait_status", waiting),
    ]
