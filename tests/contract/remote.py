"""One side of the contract, asked in plain HTTP: neither our client nor our server has a say in what is right."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

__all__ = ["Remote", "moment"]

_LOOKS = 90
"""At most, for something to happen: half an hour at Heroku, where rules take 10 to 15 minutes."""


@dataclass(frozen=True)
class Remote:
    """The two APIs (with the token in place), the data API without it, and what to ask about."""

    data: httpx.AsyncClient
    platform: httpx.AsyncClient
    bare: httpx.AsyncClient
    token: str = field(repr=False)
    addon: str
    kafka: str
    app: str
    pass_time: Callable[[], Awaitable[None]]

    @property
    def endpoint(self) -> str:
        """The path of the add-on's endpoint."""
        return f"/postgres/v0/databases/{self.addon}/tls-endpoint"

    @property
    def cluster(self) -> str:
        """The path of the Kafka add-on's cluster."""
        return f"/data/kafka/v0/clusters/{self.kafka}"

    @property
    def authorizations(self) -> tuple[str, str]:
        """Both forms."""
        basic = base64.b64encode(f":{self.token}".encode()).decode()
        return f"Bearer {self.token}", f"Basic {basic}"

    async def get(self, path: str) -> Any:
        """What a GET answers. A 500 happens, and is asked again."""
        for _ in range(5):
            answer = await self.data.get(path)
            if answer.status_code < 500:
                break
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        return answer.json()

    async def until(self, path: str, statuses: Collection[str]) -> Any:
        """Look until the status is one of these."""
        for _ in range(_LOOKS):
            found = await self.get(path)
            if found["status"] in statuses:
                return found
            await self.pass_time()
        raise AssertionError(f"{path} is still {found['status']}")

    async def until_gone(self, path: str) -> None:
        """Look until it is not there."""
        for _ in range(_LOOKS):
            if (await self.data.get(path)).status_code == 404:
                return
            await self.pass_time()
        raise AssertionError(f"{path} is still there")


def moment(text: str) -> datetime:
    """Either form of a time. Raises ValueError for any other."""
    found = datetime.fromisoformat(text) if "T" in text else datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z")
    if found.tzinfo is None:
        raise ValueError(f"{text} has no zone")
    return found
