"""An open client whose API is a function, or a real server on loopback; and what must never be seen of either."""

from __future__ import annotations

import json
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import httpx

from mtlskit.heroku.client import Heroku, Patience, Settings, TwoFactor, open_heroku
from mtlskit.heroku.token import Token
from mtlskit.telemetry import Emit, silent

__all__ = ["CANARY", "DATA", "PLATFORM", "TOKEN", "Answers", "addon_json", "assert_tells_no_secret", "fake_heroku"]

PLATFORM = "https://api.heroku.com"
DATA = "https://api.data.heroku.com"
TOKEN = "HRKU-canary-token-2f9d"
CANARY = "canary-secret-77aa"

PATIENCE = Patience(jitter=lambda most: most)

Answers: TypeAlias = Callable[[httpx.Request], httpx.Response]


def addon_json(name: str, plan: str = "heroku-postgresql:private-0", **more: object) -> dict[str, Any]:
    """An add-on as the platform API tells of it."""
    service = plan.partition(":")[0]
    return {
        "id": f"id-of-{name}",
        "name": name,
        "addon_service": {"id": "1", "name": service},
        "plan": {"id": "2", "name": plan},
        "app": {"id": "3", "name": "shop"},
        "state": "provisioned",
        "config_vars": ["DATABASE_URL"],
        **more,
    }


@asynccontextmanager
async def fake_heroku(
    answers: Answers | Mapping[str, object],
    *,
    emit: Emit = silent,
    two_factor: TwoFactor | None = None,
    patience: Patience = PATIENCE,
    limit: int = 8,
) -> AsyncIterator[Heroku]:
    """A client. `answers`: a function, or `"GET /path"` → a response, or its JSON; 404 for everything else."""
    if not callable(answers):
        answers = table(answers)
    settings = Settings(PLATFORM, DATA, Token(TOKEN, "HEROKU_API_KEY"))
    transport = httpx.MockTransport(answers)
    async with open_heroku(
        settings, two_factor=two_factor, emit=emit, patience=patience, transport=transport, limit=limit
    ) as heroku:
        yield heroku


def table(answers: Mapping[str, object]) -> Answers:
    """See `fake_heroku`."""

    def answer(request: httpx.Request) -> httpx.Response:
        found = answers.get(f"{request.method} {request.url.raw_path.decode('ascii')}")
        if isinstance(found, httpx.Response):
            return replace_stream(found)
        if found is None:
            return httpx.Response(404, json={"id": "not_found", "message": "Couldn't find that thing."})
        return httpx.Response(200, json=found, headers={"Request-Id": "req-1"})

    return answer


def replace_stream(response: httpx.Response) -> httpx.Response:
    """The same answer once more: the client closes each that it reads."""
    return httpx.Response(response.status_code, headers=response.headers, content=response.content)


def assert_tells_no_secret(error: BaseException, *more: str) -> None:
    """Nothing that anybody prints of an error, or of what it came from, holds the token or another secret."""
    told = ["".join(traceback.format_exception(error))]
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        told += [str(one), repr(one), repr(one.args), repr(vars(one))]
        waiting += [one.__cause__, one.__context__]
    basic = "OkhSS1UtY2FuYXJ5LXRva2VuLTJmOWQ="
    for secret in (TOKEN, basic, CANARY, *more):
        assert not [text for text in told if secret in text]


def in_json(value: object) -> bytes:
    """As a server sends it."""
    return json.dumps(value).encode("utf-8")


def patience(**changes: Any) -> Patience:
    """That of the tests (no chance in it), changed."""
    return replace(PATIENCE, **changes)
