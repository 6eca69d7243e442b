"""The server restarts while clients work: they learn why, and the proxy needs no restart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.services.clients import conninfo, psql
from tests.services.postgres import PostgresServer, Shutdown
from tests.services.settings import ServerOptions
from tests.support.backends import wait_until_sleeping
from tests.support.proxy_process import MakePostgres, MakeProxy, ProxyProcess
from tests.support.raw_postgres import refusal_of

OF_A_KIND = 8
CLIENTS = 3 * OF_A_KIND

ADMIN_SHUTDOWN = "57P01"


class Client:
    """A connection, and the SQLSTATEs that it has heard.

    libpq takes an ErrorResponse that it reads between two queries for a notice: over a plain socket that happens to
    the server's last words whenever they come together with the end of a query, with a proxy or without one.
    """

    def __init__(self, parameters: str) -> None:
        self.heard: list[str | None] = []
        self.connection = psycopg.connect(parameters)
        self.connection.add_notice_handler(lambda notice: self.heard.append(notice.sqlstate))
        self.connection.execute("select 1")

    def work(self, action: Callable[[psycopg.Connection[tuple[object, ...]]], None]) -> None:
        """Do something until an error ends it."""
        with self.connection, pytest.raises(psycopg.OperationalError) as caught:
            action(self.connection)
        self.heard.append(caught.value.sqlstate)


def ask(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    connection.execute("select 1")


class Load:
    """Clients of three kinds: some query without a pause, some wait for one long query, some hold a transaction."""

    def __init__(self, proxy: ProxyProcess, pool: ThreadPoolExecutor) -> None:
        parameters = conninfo(proxy.parameters(application_name="load"))
        self._clients = [Client(parameters) for _ in range(CLIENTS)]
        self._idle = self._clients[:OF_A_KIND]
        under_way = threading.Barrier(OF_A_KIND + 1)

        def query(connection: psycopg.Connection[tuple[object, ...]]) -> None:
            under_way.wait()
            while True:
                connection.execute("select repeat('x', 10000) from generate_series(1, 10)").fetchall()

        def sleep(connection: psycopg.Connection[tuple[object, ...]]) -> None:
            connection.execute("select pg_sleep(600)")

        busy, sleeping = self._clients[OF_A_KIND : 2 * OF_A_KIND], self._clients[2 * OF_A_KIND :]
        self._working = [pool.submit(client.work, query) for client in busy]
        self._working += [pool.submit(client.work, sleep) for client in sleeping]
        under_way.wait()

    def end(self) -> list[list[str | None]]:
        """Wait until every client has met its error, and return what each has heard."""
        for client in self._idle:
            client.work(ask)
        for working in self._working:
            working.result(timeout=60)
        return [client.heard for client in self._clients]


@pytest.mark.parametrize("how", [Shutdown.FAST, Shutdown.IMMEDIATE], ids=["fast", "immediate"])
def test_a_restart_under_load(make_proxy: MakeProxy, make_postgres: MakePostgres, how: Shutdown) -> None:
    server: PostgresServer = make_postgres()
    proxy = make_proxy(server)
    for _ in range(2):  # the second time shows that the first has left nothing behind
        with ThreadPoolExecutor(CLIENTS) as pool:
            load = Load(proxy, pool)
            wait_until_sleeping(server, "load", OF_A_KIND)
            server.stop(how)
            heard = load.end()
        assert len(heard) == CLIENTS
        # In an immediate shutdown a backend may be interrupted in the midst of a message, and then says nothing more.
        certain = heard if how is Shutdown.FAST else [*heard[:OF_A_KIND], *heard[2 * OF_A_KIND :]]
        assert [one for one in certain if ADMIN_SHUTDOWN not in one] == []
        told = refusal_of(proxy.address)
        assert (told["C"], "refused the connection" in told["M"]) == ("08001", True)
        server.start()
        assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"


def test_a_server_that_loses_its_power(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    """It has no last words. The clients notice all the same, and after its recovery the proxy reaches it again."""
    server: PostgresServer = make_postgres()
    proxy = make_proxy(server)
    with ThreadPoolExecutor(CLIENTS) as pool:
        load = Load(proxy, pool)
        wait_until_sleeping(server, "load", OF_A_KIND)
        server.kill()
        assert len(load.end()) == CLIENTS
    server.start()
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"
    endings = {event["ending"] for event in proxy.events("session_closed")}
    assert endings <= {"upstream_closed", "upstream_lost", "client_closed"}


def test_a_server_that_is_full_says_so_itself(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    server = make_postgres(ServerOptions(max_connections=5, settings={"superuser_reserved_connections": "0"}))
    proxy = make_proxy(server)
    parameters = conninfo(proxy.parameters())
    opened = [psycopg.connect(parameters) for _ in range(5)]
    with pytest.raises(psycopg.OperationalError, match="sorry, too many clients already"):
        psycopg.connect(parameters)
    for connection in opened:
        connection.close()
    assert proxy.wait_for("login_refused")["sqlstate"] == "53300"
