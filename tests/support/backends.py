"""What a server says of the sessions it has, to be asked from outside the tunnel."""

from __future__ import annotations

from dataclasses import dataclass

from tests.services.postgres import PostgresServer
from tests.support.until import until


@dataclass(frozen=True)
class Backend:
    """A line of pg_stat_activity, and of pg_stat_ssl."""

    pid: int
    application: str
    state: str
    waits_for: str
    certificate: str
    """The serial of the client certificate, decimal; empty without one."""


def backends(server: PostgresServer) -> list[Backend]:
    """The sessions of clients."""
    rows = server.execute(
        "select a.pid, application_name, coalesce(state, ''), coalesce(wait_event, ''),"
        " coalesce(client_serial::text, '')"
        " from pg_stat_activity a join pg_stat_ssl using (pid) where backend_type = 'client backend'"
    )
    return [Backend(int(str(pid)), *map(str, rest)) for pid, *rest in rows]


def backend_of(server: PostgresServer, pid: int) -> Backend | None:
    """The session with this process id, if it is there."""
    return next((backend for backend in backends(server) if backend.pid == pid), None)


def wait_until_sleeping(server: PostgresServer, application: str, count: int = 1) -> list[Backend]:
    """Wait until so many sessions of this application_name are within `pg_sleep`."""

    def sleeping() -> list[Backend]:
        found = [one for one in backends(server) if (one.application, one.waits_for) == (application, "PgSleep")]
        return found if len(found) >= count else []

    return until(sleeping, f"{count} sessions of {application} sleep")
