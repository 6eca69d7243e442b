"""The data API's routes of a database's endpoint: its status, its certificates, its IP rules."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.answers import ApiRefusal
from mtlskit.sandbox.api.calls import Calls, parameter
from mtlskit.sandbox.api.model import AddonRecord, CertificateRecord
from mtlskit.sandbox.api.rule_routes import rule_fields, rule_routes
from mtlskit.sandbox.api.state import APP, OWNER

__all__ = ["DATABASE", "postgres_routes"]

DATABASE: Final = "/postgres/v0/databases/{name}"
_ENDPOINT: Final = f"{DATABASE}/tls-endpoint"
_STUMBLES: Final = 3
"""While an endpoint is provisioned, every so manieth look at it gets a 500."""


def postgres_routes(calls: Calls) -> list[Route]:
    """All of them."""
    return [
        *_endpoint_routes(calls),
        *_certificate_routes(calls),
        *rule_routes(calls, _ENDPOINT, AddonKind.POSTGRES),
    ]


def _endpoint_fields(calls: Calls, addon: AddonRecord) -> dict[str, Any]:
    now = calls.state.now()
    return {
        "app": APP,
        "addon": addon.name,
        "status": addon.endpoint_status(now) or "Deprovisioning",  # a space in a hurry has taken it down meanwhile
        "enabled_by": OWNER,
        "active_ip_rules": [rule_fields(calls, rule) for rule in addon.rules if rule.status(now) == "Authorized"],
        "certificate_authority_chain": calls.hooks.authorities(),
    }


def _endpoint_routes(calls: Calls) -> list[Route]:
    looks: Counter[str] = Counter()

    async def status(request: Request) -> Response:
        addon = calls.mtls.with_endpoint(parameter(request, "name"))
        if addon.endpoint_status(calls.state.now()) == "Provisioning":
            looks[addon.id] += 1
            if looks[addon.id] % _STUMBLES == 0:
                raise ApiRefusal(500, "internal_server_error", "Internal server error.")
        return calls.answer(_endpoint_fields(calls, addon))

    async def enable(request: Request) -> Response:
        addon = calls.mtls.enable(parameter(request, "name"))
        looks[addon.id] = 0
        return calls.answer(_endpoint_fields(calls, addon), 201)

    async def disable(request: Request) -> Response:
        return calls.answer(_endpoint_fields(calls, calls.mtls.disable(parameter(request, "name"))), 202)

    return [
        Route(_ENDPOINT, status),
        Route(_ENDPOINT, enable, methods=["POST"]),
        Route(_ENDPOINT, disable, methods=["DELETE"]),
    ]


def _certificate_fields(calls: Calls, certificate: CertificateRecord) -> dict[str, Any]:
    now = calls.state.now()
    return {
        "id": certificate.id,
        "name": certificate.name,
        "created_at": certificate.created_at,
        "updated_at": certificate.touched(now),
        "expires_at": certificate.expires_at,
        "status": certificate.status(now),
    }


def _whole_certificate(calls: Calls, certificate: CertificateRecord) -> dict[str, Any]:
    key, chain = calls.mtls.secrets(certificate) or (None, None)
    return {**_certificate_fields(calls, certificate), "private_key": key, "certificate_with_chain": chain}


def _certificate_routes(calls: Calls) -> list[Route]:
    async def everything(request: Request) -> Response:
        found = calls.mtls.with_endpoint(parameter(request, "name")).certificates
        return calls.answer([_certificate_fields(calls, each) for each in found])

    async def create(request: Request) -> Response:
        made = calls.mtls.create_certificate(parameter(request, "name"))
        return calls.answer(_whole_certificate(calls, made), 201)

    async def one(request: Request) -> Response:
        found = calls.mtls.certificate(parameter(request, "name"), parameter(request, "id"))
        return calls.answer(_whole_certificate(calls, found))

    async def delete(request: Request) -> Response:
        ended = calls.mtls.delete_certificate(parameter(request, "name"), parameter(request, "id"))
        return calls.answer(_certificate_fields(calls, ended), 202)

    return [
        Route(f"{_ENDPOINT}/certificates", everything),
        Route(f"{_ENDPOINT}/certificates", create, methods=["POST"]),
        Route(f"{_ENDPOINT}/certificates/{{id}}", one),
        Route(f"{_ENDPOINT}/certificates/{{id}}", delete, methods=["DELETE"]),
    ]
