"""The sandbox's API in a thread, without a gateway or a database: as much of Heroku as issuers see.

Its clock stands an hour later each time that it is asked, so that nothing takes time. Faults are switched on from the
test's own thread.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from mtlskit.heroku.client import Heroku, Patience, open_heroku
from mtlskit.heroku.events import HerokuAnswered
from mtlskit.heroku.settings import Settings
from mtlskit.heroku.token import Token
from mtlskit.pki.authority import Authority
from mtlskit.sandbox.api.faults import parse_fault
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.api.server import run_api
from mtlskit.sandbox.api.state import ApiState
from mtlskit.telemetry import Event

__all__ = ["KAFKA", "POSTGRES", "TOKEN", "FarHeroku", "far_heroku"]

T = TypeVar("T")

POSTGRES, KAFKA = "postgresql-sandbox-12345", "kafka-sandbox-12345"
TOKEN = "secret-token-of-a-test"

QUICK = Patience(attempt=20.0, total=20.0, tries=2, base=0.0, most_pause=0.0, settle=0.0, jitter=lambda most: 0.0)
"""Tries a safe request twice, without a pause."""


@dataclass
class _Hooks:
    """What a space would do: its CA."""

    authority: Authority
    revoked: list[str] = field(default_factory=list)
    age: timedelta = timedelta()
    """Of the certificates that it issues; they live a year."""

    def issue(self, common_name: str) -> tuple[str, str, str]:
        issued = self.authority.issue_client(common_name, now=datetime.now(UTC) - self.age)
        return f"{issued.serial:x}", issued.key_pem.decode("ascii"), issued.cert_pem.decode("ascii")

    def revoke(self, serial: str) -> None:
        self.revoked.append(serial)

    def authorities(self) -> str:
        return self.authority.cert_pem.decode("ascii")

    async def rotate_password(self, user: str) -> str | None:
        return None

    def credential(self) -> tuple[str, int, str, str, str]:
        return "127.0.0.1", 5432, "app", "app", "none"


@dataclass
class FarHeroku:
    """A running API."""

    url: str
    state: ApiState
    hooks: _Hooks
    _token: trio.lowlevel.TrioToken
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every call that was answered to `opened`."""

    @property
    def environment(self) -> dict[str, str]:
        """As `sandbox.env` sets it."""
        return {"HEROKU_API_KEY": TOKEN, "HEROKU_HOST": self.url, "HEROKU_DATA_HOST": self.url}

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Heroku]:
        """An `OpenHeroku`."""
        settings = Settings(self.url, self.url, Token(TOKEN, "a test"))

        def emit(event: Event) -> None:
            if isinstance(event, HerokuAnswered):
                self.calls.append((event.method, event.path))

        async with open_heroku(settings, emit=emit, patience=QUICK, environ={}) as heroku:
            yield heroku

    def there(self, work: Callable[[], T]) -> T:
        """Done in the API's own thread. (Not by `trio.from_thread`, which a test that runs trio itself cannot use.)"""
        answer: Future[T] = Future()

        def do() -> None:
            try:
                answer.set_result(work())
            except Exception as exc:  # noqa: BLE001 - it is raised in the thread that wanted it
                answer.set_exception(exc)

        self._token.run_sync_soon(do)
        return answer.result()

    def fault(self, text: str) -> None:
        """Switch one on."""
        self.there(lambda: self.state.faults.add(parse_fault(text)))

    def mend(self) -> None:
        """Switch all of them off."""
        self.there(self.state.faults.clear)

    def struck(self) -> bool:
        """Whether the fault that is switched on has acted."""
        return self.there(lambda: self.state.faults._seen[0] > self.state.faults._on[0].skip)

    def alive(self) -> dict[str, str]:
        """The Postgres add-on's certificates that are not disabled: serial by id."""
        found = self.there(lambda: self.state.addon(POSTGRES).certificates)
        return {each.id: each.serial for each in found if each.gone_at is None}

    @property
    def credential(self) -> str:
        """The serial of the Kafka add-on's certificate."""
        return self.there(lambda: self.state.addon(KAFKA).kafka_serial)


@contextmanager
def far_heroku(folder: Path) -> Iterator[FarHeroku]:
    """Run one, with its state in `folder`."""
    started: list[FarHeroku] = []
    ready = threading.Event()
    stopping: list[trio.CancelScope] = []

    async def main() -> None:
        hours = iter(range(10**9))
        state = ApiState.open(
            folder / "api.json",
            addon=POSTGRES,
            clock=lambda: datetime.now(UTC) + timedelta(hours=next(hours)),
        )
        hooks = _Hooks(Authority.create("the space's CA", now=datetime.now(UTC) - timedelta(days=400)))
        async with trio.open_nursery() as nursery:
            stopping.append(nursery.cancel_scope)
            serve = partial(run_api, state, ApiOptions(), hooks, token=TOKEN)
            address = await nursery.start(serve)
            token = trio.lowlevel.current_trio_token()
            started.append(FarHeroku(f"http://{address}", state, hooks, token))
            ready.set()

    def run() -> None:
        try:
            trio.run(main)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    try:
        yield started[0]
    finally:
        if started:
            started[0].there(stopping[0].cancel)
        thread.join()
