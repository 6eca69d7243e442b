"""The server restarts while clients work: they learn why, and the proxy needs no restart."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
import pytest

from tests.services.clients import conninfo, psql
from tests.services.postgres import PostgresServer, Shutdown
from tests.support.backends import wait_until_sleeping
from tests.support.proxy_process import MakePostgres, MakeProxy, ProxyProcess
from tests.support.raw_postgres import refusal_of

BUSY, SLEEPING, IDLE = 8, 8, 8


class Load:
    """Clients of three kinds: some query without a pause, some wait for one long query, some hold a transaction."""

    def __init__(self, proxy: ProxyProcess, pool: ThreadPoolExecutor) -> None:
        parameters = conninfo(proxy.parameters(application_name="load"))
        self.idle = [psycopg.connect(parameters) for _ in range(IDLE)]
        for connection in self.idle:
            connection.execute("select 1")
        self._under_way = threading.Barrier(BUSY + 1)
        self.busy = [pool.submit(self._query, psycopg.connect(parameters)) for _ in range(BUSY)]
        self.sleeping = [pool.submit(self._sleep, psycopg.connect(parameters)) for _ in range(SLEEPING)]
        self._under_way.wait()

    def _query(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with connection:
            connection.execute("select 1")
            self._under_way.wait()
            while True:
                connection.execute("select repeat('x', 10000) from generate_series(1, 10)").fetchall()

    def _sleep(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        with connection:
            connection.execute("select pg_sleep(600)")

    def errors(self) -> list[psycopg.Error]:
        """What every client was told."""
        return [error_of(future) for future in (*self.busy, *self.sleeping)] + [asked(one) for one in self.idle]


def error_of(future: Future[None]) -> psycopg.Error:
    error = future.exception(timeout=60)
    assert isinstance(error, psycopg.Error)
    return error


def asked(connection: psycopg.Connection[tuple[object, ...]]) -> psycopg.Error:
    with connection, pytest.raises(psycopg.Error) as caught:
        connection.execute("select 1")
    return caught.value


@pytest.mark.parametrize(
    ("how", "state"), [(Shutdown.FAST, "57P01"), (Shutdown.IMMEDIATE, "57P01")], ids=["fast", "immediate"]
)
def test_a_restart_under_load(make_proxy: MakeProxy, make_postgres: MakePostgres, how: Shutdown, state: str) -> None:
    server: PostgresServer = make_postgres()
    proxy = make_proxy(server)
    for _ in range(2):  # the second time shows that the first has left nothing behind
        with ThreadPoolExecutor(BUSY + SLEEPING) as pool:
            load = Load(proxy, pool)
            wait_until_sleeping(server, "load", SLEEPING)
            server.stop(how)
            assert [error.sqlstate for error in load.errors()] == [state] * (BUSY + SLEEPING + IDLE)
        told = refusal_of(proxy.address)
        assert (told["C"], "refused the connection" in told["M"]) == ("08001", True)
        server.start()
        assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"


def test_a_server_that_loses_its_power(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    """It has no last words. The clients notice all the same, and after its recovery the proxy reaches it again."""
    server: PostgresServer = make_postgres()
    proxy = make_proxy(server)
    with ThreadPoolExecutor(BUSY + SLEEPING) as pool:
        load = Load(proxy, pool)
        wait_until_sleeping(server, "load", SLEEPING)
        server.kill()
        assert all(isinstance(error, psycopg.OperationalError) for error in load.errors())
    server.start()
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"
    assert proxy.wait_for("session_closed")["ending"].startswith("upstream")


def test_a_server_that_is_full_says_so_itself(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    from tests.services.settings import ServerOptions

    server = make_postgres(ServerOptions(max_connections=5, settings={"superuser_reserved_connections": "0"}))
    proxy = make_proxy(server)
    opened = []
    try:
        with pytest.raises(psycopg.OperationalError, match="sorry, too many clients already"):
            for _ in range(6):
                opened.append(psycopg.connect(conninfo(proxy.parameters())))
    finally:
        for connection in opened:
            connection.close()
    assert proxy.wait_for("login_refused")["sqlstate"] == "53300"
