"""A running sandbox API without a space behind it: a CA of its own, no database, a clock that tests move."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import trio

from mtlskit.pki.authority import Authority
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.api.server import run_api
from mtlskit.sandbox.api.state import ApiState
from mtlskit.telemetry import Emit, silent
from tests.support.plain_http import NO_CAS

__all__ = ["ADDON", "COMMON", "KAFKA", "TOKEN", "FakeHooks", "RunningApi", "SetClock", "open_state", "running_api"]

ADDON = "postgresql-sandbox-12345"
KAFKA = "kafka-sandbox-12345"
COMMON = "postgresql-common-12345"
TOKEN = "a-token-of-tests"


@dataclass
class SetClock:
    """A clock that stands still until it is moved."""

    now: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


@dataclass
class FakeHooks:
    """`SpaceHooks`. `password` None: the database is somebody else's."""

    password: str | None = "secret"
    revoked: list[str] = field(default_factory=list)
    issued: list[str] = field(default_factory=list)
    ca: Authority = field(default_factory=lambda: Authority.create("CA of tests", now=datetime.now(UTC)))

    def issue(self, common_name: str) -> tuple[str, str, str]:
        made = self.ca.issue_client(common_name[:64], now=datetime.now(UTC))
        self.issued.append(f"{made.serial:x}")
        return self.issued[-1], made.key_pem.decode("ascii"), made.cert_pem.decode("ascii")

    def revoke(self, serial: str) -> None:
        self.revoked.append(serial)

    def authorities(self) -> str:
        return self.ca.cert_pem.decode("ascii")

    async def rotate_password(self, user: str) -> str | None:
        await trio.lowlevel.checkpoint()
        if self.password is not None:
            self.password += "x"
        return self.password

    def credential(self) -> tuple[str, int, str, str, str]:
        return "127.0.0.1", 5432, "app", "ann", self.password or "theirs"


def open_state(folder: Path, clock: SetClock, *, addons: int = 1, speed_up: float = 1) -> ApiState:
    """The state in `folder`, at Heroku's pace unless told otherwise."""
    return ApiState.open(folder / "api.json", addon=ADDON, addons=addons, speed_up=speed_up, clock=clock)


@dataclass
class RunningApi:
    """An API that serves. `url` is the base of both."""

    url: str
    state: ApiState
    hooks: FakeHooks
    clock: SetClock
    client: httpx.AsyncClient

    def endpoint(self, addon: str = ADDON) -> str:
        """The path of an add-on's endpoint."""
        return f"/postgres/v0/databases/{addon}/tls-endpoint"


@asynccontextmanager
async def running_api(
    folder: Path,
    *,
    options: ApiOptions | None = None,
    hooks: FakeHooks | None = None,
    emit: Emit = silent,
) -> AsyncIterator[RunningApi]:
    """Runs one until the block ends."""
    options, hooks, clock = options or ApiOptions(speed_up=1), hooks or FakeHooks(), SetClock()
    state = open_state(folder, clock, addons=options.addons, speed_up=options.speed_up)
    async with trio.open_nursery() as nursery:
        address = await nursery.start(partial(run_api, state, options, hooks, token=TOKEN, emit=emit))
        url = f"http://{address}"
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            base_url=url, headers=headers, trust_env=False, timeout=30, verify=NO_CAS
        ) as client:
            yield RunningApi(url, state, hooks, clock, client)
        nursery.cancel_scope.cancel()
