"""The platform API's routes: add-ons, their attachments, config vars, and the space."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mtlskit.heroku.values import AddonKind
from mtlskit.sandbox.api.answers import ApiRefusal, not_found, read_object
from mtlskit.sandbox.api.calls import Calls, parameter
from mtlskit.sandbox.api.login_routes import database_url
from mtlskit.sandbox.api.model import AddonRecord, InboundRecord
from mtlskit.sandbox.api.state import APP, OWNER

__all__ = ["OUTBOUND", "SPACE", "platform_routes"]

SPACE: Final = "sandbox"
OUTBOUND: Final = ("127.0.0.10", "127.0.0.11", "127.0.0.12", "127.0.0.13")
"""The space's stable outbound addresses: loopback ones stand in for them."""

_APP_ID: Final = str(uuid.uuid5(uuid.NAMESPACE_DNS, "app.sandbox.example"))
_SPACE_ID: Final = str(uuid.uuid5(uuid.NAMESPACE_DNS, "space.sandbox.example"))
_PAGE: Final = 2
"""Items of a page. Heroku's are larger; small ones show whether a client turns them."""
_MOST_PAGE: Final = 1_000
_MOST_RANGES: Final = 20
_RANGE: Final = re.compile(r"id(?: +(?P<after>\]?)(?P<start>[0-9a-f-]{0,36})\.\.[0-9a-f-]{0,36})?(?P<rest>;.*)?")
_MAX: Final = re.compile(r"max=([0-9]{1,4})\b")


def platform_routes(calls: Calls) -> list[Route]:
    """All of them."""
    return [*_addon_routes(calls), *_space_routes(calls)]


def _addon_fields(calls: Calls, addon: AddonRecord) -> dict[str, Any]:
    suffixes = ("URL",) if addon.kind is AddonKind.POSTGRES else calls.kafka.suffixes
    return {
        "id": addon.id,
        "name": addon.name,
        "addon_service": {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, addon.service)), "name": addon.service},
        "plan": {"id": str(uuid.uuid5(uuid.NAMESPACE_DNS, addon.plan)), "name": f"{addon.service}:{addon.plan}"},
        "app": {"id": _APP_ID, "name": APP},
        "config_vars": [f"{addon.attachment}_{suffix}" for suffix in suffixes],
        "state": "provisioned",
        "created_at": addon.created_at,
        "updated_at": addon.created_at,
    }


def _attachment_fields(addon: AddonRecord) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid5(uuid.UUID(addon.id), "attachment")),
        "name": addon.attachment,
        "app": {"id": _APP_ID, "name": APP},
        "addon": {"id": addon.id, "name": addon.name, "app": {"id": _APP_ID, "name": APP}},
        "namespace": None,
        "created_at": addon.created_at,
        "updated_at": addon.created_at,
    }


def _addon_routes(calls: Calls) -> list[Route]:
    async def everything(request: Request) -> Response:
        start, after, size = _range(request.headers.get("range", "id"))
        addons = sorted(calls.state.world.addons, key=lambda each: each.id)
        left = [each for each in addons if each.id > start or (each.id == start and not after)]
        page = left[:size]
        headers = {"Accept-Ranges": "id, name, updated_at"}
        if page:
            headers["Content-Range"] = f"id {page[0].id}..{page[-1].id}; max={size}"
        if more := len(left) > len(page):
            headers["Next-Range"] = f"id ]{page[-1].id}..; max={size}"
        return calls.answer([_addon_fields(calls, each) for each in page], 206 if more else 200, headers)

    async def one(request: Request) -> Response:
        return calls.answer(_addon_fields(calls, calls.state.addon(parameter(request, "name"))))

    async def attachments(request: Request) -> Response:
        addon = calls.state.addon(parameter(request, "name"))
        return calls.answer([_attachment_fields(addon)])

    async def config_vars(request: Request) -> Response:
        if parameter(request, "app") not in (APP, _APP_ID):
            raise not_found("Couldn't find that app.")
        found: dict[str, str] = {}
        for addon in calls.state.world.addons:
            postgres = addon.kind is AddonKind.POSTGRES
            values = {"URL": database_url(calls)} if postgres else calls.kafka.config_vars(addon.name)
            found |= {f"{addon.attachment}_{suffix}": value for suffix, value in values.items()}
        return calls.answer(found)

    return [
        Route("/addons", everything),
        Route("/addons/{name}", one),
        Route("/addons/{name}/addon-attachments", attachments),
        Route("/apps/{app}/config-vars", config_vars),
    ]


def _range(header: str) -> tuple[str, bool, int]:
    """The first id, whether the page begins after it, and the page's size. Raises ApiRefusal (416)."""
    found = _RANGE.fullmatch(header.strip())
    if found is None:
        raise ApiRefusal(416, "requested_range_not_satisfiable", "The list is ordered by id only.")
    size = _MAX.search(found["rest"] or "")
    return found["start"] or "", bool(found["after"]), min(int(size[1]), _MOST_PAGE) or 1 if size else _PAGE


def _space_fields(created: datetime) -> dict[str, Any]:
    return {
        "id": _SPACE_ID,
        "name": SPACE,
        "state": "allocated",
        "shield": False,
        "generation": {"name": "cedar"},
        "region": {"name": "virginia"},
        "cidr": "10.0.0.0/16",
        "data_cidr": "10.1.0.0/16",
        "created_at": created,
        "updated_at": created,
    }


def _space_routes(calls: Calls) -> list[Route]:
    def check(request: Request) -> None:
        if parameter(request, "space") not in (SPACE, _SPACE_ID):
            raise not_found("Couldn't find that space.")

    async def everything(request: Request) -> Response:
        return calls.answer([_space_fields(calls.state.first.created_at)])

    async def space(request: Request) -> Response:
        check(request)
        return calls.answer(_space_fields(calls.state.first.created_at))

    async def nat(request: Request) -> Response:
        check(request)
        created = calls.state.first.created_at
        return calls.answer(
            {"state": "enabled", "sources": list(OUTBOUND), "created_at": created, "updated_at": created}
        )

    async def ruleset(request: Request) -> Response:
        check(request)
        return calls.answer(_ruleset(calls))

    async def replace(request: Request) -> Response:
        check(request)
        rules = _inbound((await read_object(request)).get("rules"))
        calls.state.change(calls.state.world.model_copy(update={"inbound": rules}))
        return calls.answer(_ruleset(calls))

    return [
        Route("/spaces", everything),
        Route("/spaces/{space}", space),
        Route("/spaces/{space}/nat", nat),
        Route("/spaces/{space}/inbound-ruleset", ruleset),
        Route("/spaces/{space}/inbound-ruleset", replace, methods=["PUT"]),
    ]


def _ruleset(calls: Calls) -> dict[str, Any]:
    rules = [{"action": rule.action, "source": rule.source} for rule in calls.state.world.inbound]
    text = ",".join(f"{rule['action']} {rule['source']}" for rule in rules)
    return {
        "id": str(uuid.uuid5(uuid.UUID(_SPACE_ID), text)),
        "space": {"id": _SPACE_ID, "name": SPACE},
        "created_at": calls.state.first.created_at,
        "created_by": OWNER,
        "rules": rules,
    }


def _inbound(rules: object) -> tuple[InboundRecord, ...]:
    if not isinstance(rules, list):
        raise ApiRefusal(422, "invalid_params", "rules must be a list.")
    if len(rules) > _MOST_RANGES:
        raise ApiRefusal(422, "invalid_params", f"A space has at most {_MOST_RANGES} trusted ranges.")
    made = []
    for rule in rules:
        action, source = (rule.get("action"), rule.get("source")) if isinstance(rule, dict) else (None, None)
        if action not in ("allow", "deny") or not isinstance(source, str):
            raise ApiRefusal(422, "invalid_params", "A rule has an action, allow or deny, and a source.")
        made.append(InboundRecord(action=action, source=source))
    return tuple(made)
