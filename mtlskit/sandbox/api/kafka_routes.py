"""The data API's routes of Kafka clusters."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.calls import Calls, parameter
from mtlskit.sandbox.api.model import AddonRecord
from mtlskit.sandbox.api.rule_routes import rule_routes

__all__ = ["kafka_routes"]

_CLUSTER: Final = "/data/kafka/v0/clusters/{name}"


def _cluster_fields(addon: AddonRecord, prefix: str) -> dict[str, Any]:
    return {
        "id": addon.id,
        "name": addon.name,
        "addon": {"id": addon.id, "name": addon.name},
        "state": {
            "message": "available",
            "status": "available",
            "healthy?": True,
            "waiting?": False,
            "degraded_brokers": [],
            "degraded_topics": [],
        },
        "topic_prefix": prefix or None,
        "shared_cluster": bool(prefix),
        "limits": {},
        "formation": {"id": addon.id},
        "customer_encryption_key": None,
    }


def kafka_routes(calls: Calls) -> list[Route]:
    """All of them."""

    async def cluster(request: Request) -> Response:
        addon = calls.state.addon(parameter(request, "name"), AddonKind.KAFKA)
        return calls.answer(_cluster_fields(addon, calls.kafka.prefix))

    async def rotate(request: Request) -> Response:
        calls.kafka.rotate(parameter(request, "name"))
        return calls.answer({"message": "Credentials are being rotated."})

    async def waiting(request: Request) -> Response:
        calls.state.addon(parameter(request, "name"), AddonKind.KAFKA)
        return calls.answer({"waiting?": False, "message": "available"})

    return [
        Route(_CLUSTER, cluster),
        Route(f"{_CLUSTER}/rotate-credentials", rotate, methods=["POST"]),
        Route(f"{_CLUSTER}/wait_status", waiting),
        *rule_routes(calls, _CLUSTER, AddonKind.KAFKA),
    ]
