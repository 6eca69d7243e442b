"""The demo's clients: psycopg as any program would use it, and a look at the first messages of a login."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from mtlskit.config.values import Endpoint, IdentityConfig, Negotiation, TcpAddress, TunnelKind, Verify
from mtlskit.errors import Code, SandboxError
from mtlskit.net.dial import Dialler
from mtlskit.net.identity import load_snapshot
from mtlskit.wire.postgres.login import ChannelBinding, MechanismsOffered, ServerLogin
from mtlskit.wire.postgres.messages import startup_message

if TYPE_CHECKING:
    import psycopg

    from mtlskit.sandbox.space import Space

__all__ = ["DemoClient", "WorkReport", "offered_by_gateway", "offered_by_tunnel", "require_psycopg", "unexpected"]

_PATIENCE = 10.0
"""Seconds for anything that the demo waits for: all of it is on this machine."""


def require_psycopg() -> None:
    """Raises SandboxError where psycopg or the libpq under it is absent."""
    try:
        import psycopg  # noqa: F401 - imported to see whether it can be
    except ImportError as exc:
        raise SandboxError(
            Code.SANDBOX_EXTRA_MISSING,
            f"the demo's client is not installed: {exc}",
            "pip install 'mtlskit[sandbox]'",
        ) from exc


def unexpected(what: str, seen: str) -> SandboxError:
    """The error of a step that shows something else than it should."""
    return SandboxError(
        Code.DEMO_STEP_FAILED,
        f"the demo did not show what it should: {what} ({seen})",
        "please report it, with the output above",
    )


@dataclass(frozen=True)
class WorkReport:
    """What a client did and saw."""

    version: str
    user: str
    total: int
    seconds: float


class DemoClient:
    """A plain client of one address. Every method opens a connection of its own, in a thread."""

    def __init__(
        self, address: TcpAddress, *, user: str, password: str, database: str, sslmode: str = "prefer"
    ) -> None:
        self._settings: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "user": user,
            "password": password,
            "dbname": database,
            "sslmode": sslmode,
            # The demo's client has no certificate, whatever the environment of its user says.
            "sslcert": "",
            "sslkey": "",
            "connect_timeout": int(_PATIENCE),
            "autocommit": True,
        }

    async def greet(self) -> None:
        """Log in and leave. Raises SandboxError."""
        await trio.to_thread.run_sync(self._greet, abandon_on_cancel=True)

    async def refusal(self, *, patience: int = int(_PATIENCE)) -> str:
        """Try to log in for so many seconds (at least 2), and return libpq's message.

        Raises SandboxError if the login succeeds.
        """
        return await trio.to_thread.run_sync(self._refusal, patience, abandon_on_cancel=True)

    async def ask(self) -> None:
        """Connect, ask the server something, and leave. Raises SandboxError."""
        await trio.to_thread.run_sync(self._ask, abandon_on_cancel=True)

    async def work(self, rows: int) -> WorkReport:
        """Create a table, COPY rows into it, and read them back. Raises SandboxError."""
        return await trio.to_thread.run_sync(self._work, rows, abandon_on_cancel=True)

    async def cancelled_query(self) -> tuple[float, str]:
        """Start a query of a minute and cancel it: the seconds it took, and the server's message."""
        return await trio.to_thread.run_sync(self._cancelled_query, abandon_on_cancel=True)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        try:
            return psycopg.connect(**self._settings)
        except psycopg.Error as exc:
            raise unexpected("a plain client could not log in", _message(exc)) from exc

    def _greet(self) -> None:
        self._connect().close()

    def _ask(self) -> None:
        import psycopg

        with self._connect() as connection:
            try:
                answer = connection.execute("select 6 * 7").fetchone()
            except psycopg.Error as exc:
                raise unexpected("a query failed", _message(exc)) from exc
        if answer != (42,):
            raise unexpected("a query was answered with something else", str(answer))

    def _refusal(self, patience: int) -> str:
        import psycopg

        try:
            psycopg.connect(**self._settings | {"connect_timeout": patience}).close()
        except psycopg.Error as exc:
            return _message(exc)
        raise unexpected("a client was let in that should have been refused", "no error")

    def _work(self, rows: int) -> WorkReport:
        with self._connect() as connection:
            began = time.monotonic()
            connection.execute("create temporary table demo (n bigint)")
            with connection.cursor() as cursor:
                with cursor.copy("copy demo from stdin") as copy:
                    for number in range(rows):
                        copy.write_row((number,))
                found = cursor.execute("select current_setting('server_version'), current_user, sum(n) from demo")
                version, user, total = found.fetchone() or ("", "", 0)
            return WorkReport(f"PostgreSQL {version}", user, int(total), time.monotonic() - began)

    def _cancelled_query(self) -> tuple[float, str]:
        import psycopg

        with self._connect() as connection:
            began = time.monotonic()
            timer = threading.Timer(0.5, connection.cancel_safe, kwargs={"timeout": _PATIENCE})
            timer.start()
            try:
                connection.execute("select pg_sleep(60)")
            except psycopg.errors.QueryCanceled as exc:
                return time.monotonic() - began, _message(exc)
            finally:
                timer.join()
        raise unexpected("a query was not cancelled", "it ran to its end")


def _message(exc: psycopg.Error) -> str:
    return str(exc).strip()


async def offered_by_gateway(space: Space, certificate: IdentityConfig) -> tuple[str, ...]:
    """The SASL mechanisms that a client with this certificate is offered. Raises UpstreamError, SandboxError."""
    identity = load_snapshot(certificate, verify=Verify())
    endpoint = Endpoint(space.gateway_address.host, space.gateway_address.port)
    dialler = Dialler(TunnelKind.POSTGRES, (endpoint,), Negotiation.SSLREQUEST, (), _PATIENCE)
    upstream = await dialler.dial(identity)
    try:
        await upstream.tls.send_all(_startup(space))
        return await _offer(upstream.tls.receive_some)
    finally:
        upstream.tls.close()


async def offered_by_tunnel(address: TcpAddress, space: Space) -> tuple[str, ...]:
    """The SASL mechanisms that a plain client of the tunnel is offered. Raises OSError, SandboxError."""
    async with await trio.open_tcp_stream(address.host, address.port) as stream:
        await stream.send_all(_startup(space))
        return await _offer(stream.receive_some)


def _startup(space: Space) -> bytes:
    return startup_message({"user": space.user, "database": space.database})


async def _offer(receive: Any) -> tuple[str, ...]:
    codec = ServerLogin(ChannelBinding.KEEP)
    with trio.move_on_after(_PATIENCE):
        while data := await receive():
            _, events = codec.receive(data)
            for event in events:
                if isinstance(event, MechanismsOffered):
                    return event.before
    raise unexpected("no SASL mechanisms were offered", "the connection ended")
