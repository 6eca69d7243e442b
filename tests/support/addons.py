"""A Heroku that knows one credential, or one Kafka, which a test changes; it fails when a test says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import trio

from mtlskit.config.values import Endpoint
from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import Credential, KafkaBrokers

ADDON = "postgresql-curved-12345"


def credential_at(endpoint: Endpoint, *, user: str, password: str, database: str = "app") -> Credential:
    return Credential("default", "active", endpoint.host, endpoint.port, database, user, password)


class FakeLookup:
    """An `AddonLookup`. `change` is a rotation; with `outage` set, every look-up raises it."""

    def __init__(self, credential: Credential, brokers: KafkaBrokers | None = None) -> None:
        self.credential = credential
        self.brokers = brokers or KafkaBrokers((Endpoint(credential.host, credential.port),))
        self.outage: HerokuError | None = None
        self.asked: list[tuple[str, str]] = []
        self.hold: trio.Event | None = None
        """Where set, an answer waits for it."""

    async def postgres(self, addon: str, credential: str) -> Credential:
        await self._answer(addon, credential)
        return self.credential

    async def kafka(self, addon: str) -> KafkaBrokers:
        await self._answer(addon, "")
        return self.brokers

    async def _answer(self, addon: str, credential: str) -> None:
        self.asked.append((addon, credential))
        await trio.lowlevel.checkpoint()
        if self.hold is not None:
            await self.hold.wait()
        if self.outage is not None:
            raise self.outage

    def change(self, **fields: Any) -> None:
        self.credential = replace(self.credential, **fields)

    def fail(self, code: Code = Code.API_UNREACHABLE) -> None:
        self.outage = HerokuError(code, "api.data.heroku.com cannot be reached", "check the network")
