"""A space that runs in a thread of its own, for tests that talk to it with blocking clients."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pg8000.native
import psycopg
import trio

from mtlskit.sandbox.credentials import ClientIdentity
from mtlskit.sandbox.events import AddressRefused
from mtlskit.sandbox.space import Space, SpaceOptions, run_space
from mtlskit.telemetry import Event
from mtlskit.wire.postgres.messages import SSL_REQUEST
from tests.support.plain_http import NO_CAS

ACCEPT = "application/vnd.heroku+json; version=3"
_DEADLINE = 60.0  # seconds; a safety net, nothing is measured by it


class EventLog:
    """An `Emit` that keeps everything, and lets a test wait for what must come."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition(threading.RLock())

    def __call__(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    @property
    def mark(self) -> int:
        """A position: `wait_for(…, since=mark)` looks at later events only."""
        with self._changed:
            return len(self._events)

    def wait_for(self, kind: type[Event], *, since: int = 0) -> Any:
        """The first event of `kind` after `since`, waiting for it if need be."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.of(kind, since=since), _DEADLINE), f"no {kind.__name__}"
            return self.of(kind, since=since)[0]

    def of(self, kind: type[Event], *, since: int = 0) -> list[Event]:
        """The events of `kind` after `since`, so far."""
        return [event for event in self._events[since:] if isinstance(event, kind)]


def until(condition: Callable[[], bool]) -> None:
    """Asks again and again; fails where it never becomes true. For what can only be asked of another process."""
    deadline = time.monotonic() + _DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it never became true"


@dataclass(frozen=True)
class RunningSpace:
    """A space and the thread that runs it."""

    space: Space
    events: EventLog
    token: trio.lowlevel.TrioToken

    def revoke(self, serial: int) -> None:
        trio.from_thread.run_sync(self.space.revoke, serial, trio_token=self.token)

    def parameters(self, identity: ClientIdentity | None = None, **changes: Any) -> dict[str, Any]:
        """Connection parameters of libpq for the gateway; a change to None takes a parameter away."""
        identity = identity or self.space.client
        parameters = {
            "host": "127.0.0.1",
            "port": self.space.gateway_address.port,
            "user": self.space.user,
            "password": self.space.password,
            "dbname": self.space.database,
            "sslmode": "verify-full",
            "sslrootcert": str(self.space.ca),
            "sslcert": str(identity.cert),
            "sslkey": str(identity.key),
            "connect_timeout": 30,
        }
        return {name: value for name, value in (parameters | changes).items() if value is not None}

    def connect(self, identity: ClientIdentity | None = None, **changes: Any) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(autocommit=True, **self.parameters(identity, **changes))

    def context(self, identity: ClientIdentity | None = None) -> ssl.SSLContext:
        """TLS as a client of the space."""
        identity = identity or self.space.client
        context = ssl.create_default_context(cafile=self.space.ca)
        context.load_cert_chain(identity.cert, identity.key)
        return context

    def select_from(self, source: str) -> int:
        """Asks the database for 42 over a connection from this address: libpq cannot choose one, pg8000 can."""
        connection = pg8000.native.Connection(
            self.space.user,
            host="127.0.0.1",
            port=self.space.gateway_address.port,
            database=self.space.database,
            password=self.space.password,
            source_address=(source, 0),
            timeout=_DEADLINE,
            ssl_context=self.context(),
        )
        with closing(connection):
            return int(connection.run("select 6 * 7")[0][0])

    def is_silent_to(self, source: str) -> bool:
        """Whether a client from this address that asks for TLS is told nothing, and why: an event says so."""
        mark = self.events.mark
        address = ("127.0.0.1", self.space.gateway_address.port)
        with socket.create_connection(address, _DEADLINE, (source, 0)) as client:
            client.sendall(SSL_REQUEST)
            refused = self.events.wait_for(AddressRefused, since=mark)
            client.setblocking(False)
            try:
                client.recv(1)
            except BlockingIOError:
                return bool(refused.answer == "silence" and refused.peer.startswith(f"{source}:"))
        return False

    def call(self, method: str, path: str, body: Any = None, *, status: int) -> Any:
        """What the API answers, which must be with this status."""
        headers = {"Authorization": f"Bearer {self.space.api_key}", "Accept": ACCEPT}
        with httpx.Client(
            base_url=self.space.api_url, headers=headers, timeout=_DEADLINE, trust_env=False, verify=NO_CAS
        ) as client:
            answer = client.request(method, path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def endpoint(self, rest: str = "") -> str:
        """The path of the add-on's mutual-TLS endpoint, or of something below it."""
        return f"/postgres/v0/databases/{self.space.addon}/tls-endpoint{rest}"

    def authorize(self, cidr: str) -> str:
        """Adds a rule, and waits until it acts. Returns its id."""
        body = {"cidr": cidr, "description": "of a test"}
        made = self.call("POST", self.endpoint("/ip-rules"), body, status=201)
        rule = self.endpoint(f"/ip-rules/{made['id']}")
        until(lambda: bool(self.call("GET", rule, status=200)["status"] == "Authorized"))
        return str(made["id"])


@contextmanager
def running_space(options: SpaceOptions) -> Iterator[RunningSpace]:
    """Runs a space until the block ends. What the space raises is raised here."""
    started = threading.Event()
    events = EventLog()
    found: dict[str, Any] = {}

    async def main() -> None:
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[Space]) -> None:
                await run_space(options, emit=events, task_status=task_status)

            found["scope"] = nursery.cancel_scope
            found["token"] = trio.lowlevel.current_trio_token()
            found["space"] = await nursery.start(run)
            started.set()

    def thread() -> None:
        try:
            trio.run(main)
        except BaseException as exc:  # noqa: BLE001 - handed to the test, which raises it
            found["error"] = exc
        finally:
            started.set()

    worker = threading.Thread(target=thread, name="space")
    worker.start()
    try:
        assert started.wait(_DEADLINE)
        if "space" in found:
            yield RunningSpace(found["space"], events, found["token"])
    finally:
        if "error" not in found:
            trio.from_thread.run_sync(found["scope"].cancel, trio_token=found["token"])
        worker.join(_DEADLINE)
    if "error" in found:
        raise found["error"]
