"""Connections in advance before a real PostgreSQL: they are used, and those that it ends never hurt a client."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography import x509

from tests.services.clients import conninfo, psql
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer, Shutdown
from tests.services.settings import ServerOptions
from tests.support.proxy_process import MakePostgres, MakeProxy, ProxyProcess
from tests.support.until import until

CLOSE_WAIT = 8  # of Linux's TCP states: the other end has closed, and we have not noticed
SERIAL = "select client_serial from pg_stat_ssl where pid = pg_backend_pid()"


def asks(proxy: ProxyProcess, question: str = "select current_user") -> str:
    """The answer that a client with a password gets on a connection of its own."""
    with psycopg.connect(conninfo(proxy.parameters()), autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return str(row[0])


def asks_at_once(proxy: ProxyProcess, clients: int) -> None:
    """So many clients together; each must get its answer."""
    with ThreadPoolExecutor(clients) as pool:
        assert list(pool.map(lambda _: asks(proxy), range(clients))) == ["scram"] * clients


def openings(proxy: ProxyProcess, since: int = 0) -> list[bool]:
    return [bool(event["warm"]) for event in proxy.events("session_opened", since=since)]


def finds_one_ready(proxy: ProxyProcess, answer: str = "scram", question: str = "select current_user") -> bool:
    """Whether a client, who must be served in any case, has found a connection ready."""
    mark = proxy.mark
    assert asks(proxy, question) == answer
    proxy.wait_for("session_closed", since=mark)
    return openings(proxy, mark)[-1]


def stopped(proxy: ProxyProcess) -> dict[str, Any]:
    """Stop it, and return the counts that it tells in the end."""
    assert proxy.stop() == 0
    [counted] = proxy.events("warm_counted")
    return counted


def states(proxy: ProxyProcess, server: PostgresServer) -> list[int]:
    """The TCP states of the proxy's connections to the server."""
    inodes = {name.removeprefix("socket:[").rstrip("]") for name in proxy.descriptors() if name.startswith("socket:[")}
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{proxy.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[2].rpartition(":")[2], 16) == server.port and fields[9] in inodes:
                found.append(int(fields[3], 16))
    return found


def test_psql_and_drivers_log_in_on_connections_made_in_advance(
    make_proxy: MakeProxy, postgres: PostgresServer
) -> None:
    proxy = make_proxy(postgres, warm=2)
    until(lambda: finds_one_ready(proxy), "a client that finds a connection ready")

    def psql_does() -> bool:
        mark = proxy.mark
        assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"
        return openings(proxy, mark)[-1]

    until(psql_does, "a psql that finds a connection ready")
    for user in ("md5user", "trustuser", "certuser"):
        assert psql(proxy.parameters(user), "select current_user").stdout == f"{user}\n"
    used, clients = sum(openings(proxy)), len(openings(proxy))
    counted = stopped(proxy)
    assert (counted["hits"], counted["hits"] + counted["misses"]) == (used, clients)
    assert counted["replayed"] == counted["dead"] == counted["failed"] == 0


def test_what_the_server_ended_reaches_no_client(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    """An authentication_timeout far below the age limit, so that it is the server who ends every connection."""
    server = make_postgres(ServerOptions(settings={"authentication_timeout": "2s"}))
    proxy = make_proxy(server, warm=5)
    asks_at_once(proxy, 5)
    until(lambda: states(proxy, server) == [CLOSE_WAIT] * 5, "five connections that the server has ended")
    assert not finds_one_ready(proxy)  # all five are looked at, and none is used
    # And again, for longer than a timeout, so that some clients come just when the server ends what they are given.
    for _ in range(6):
        asks_at_once(proxy, 10)
    assert not proxy.events("session_failed", "login_refused", "session_crashed")
    counted = stopped(proxy)
    assert counted["dead"] >= 5
    assert counted["failed"] == 0


def test_the_server_does_not_complain_of_those_that_were_not_used(
    make_proxy: MakeProxy, make_postgres: MakePostgres
) -> None:
    server = make_postgres()
    proxy = make_proxy(server, warm=3)
    asks_at_once(proxy, 3)
    until(lambda: finds_one_ready(proxy), "a client that finds a connection ready")
    proxy.reload()
    until(lambda: finds_one_ready(proxy), "one made after the reload")
    stopped(proxy)
    server.stop()
    assert "could not receive data from client" not in server.log()


def serial_of(pair: Pair) -> str:
    return str(x509.load_pem_x509_certificates(pair.cert.read_bytes())[0].serial_number)


def test_a_reload_renews_them(make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, tmp_path: Path) -> None:
    cert, key = tmp_path / "identity.crt", tmp_path / "identity.key"

    def install(pair: Pair) -> str:
        shutil.copyfile(pair.cert, cert)
        shutil.copyfile(pair.key, key)
        key.chmod(0o600)
        return serial_of(pair)

    serial = install(pki.client)
    proxy = make_proxy(postgres, cert=cert, key=key, warm=4)
    asks_at_once(proxy, 4)
    for pair in (pki.client_chained, pki.client):
        until(lambda serial=serial: finds_one_ready(proxy, serial, SERIAL), "one with the identity of now")  # type: ignore[misc]  # mypy cannot infer it
        serial = install(pair)
        assert proxy.reload()["event"] == "identity_loaded"
        # From the very first client on, whether it finds one ready or not.
        assert asks(proxy, SERIAL) == serial
    until(lambda: finds_one_ready(proxy, serial, SERIAL), "one with the last identity")


def test_clients_after_a_restart_notice_nothing(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    server = make_postgres()
    proxy = make_proxy(server, warm=4)
    asks_at_once(proxy, 4)
    for how in (Shutdown.FAST, Shutdown.IMMEDIATE):
        until(lambda: finds_one_ready(proxy), "a client that finds a connection ready")
        server.restart(how)
        asks_at_once(proxy, 8)
    until(lambda: finds_one_ready(proxy), "one made after the restart")
    assert not proxy.events("session_failed", "login_refused")


def test_a_client_of_a_full_server_is_told_once(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    """Its login has begun twice, and it and the log hear of the second refusal only."""
    server = make_postgres(ServerOptions(max_connections=5, settings={"superuser_reserved_connections": "0"}))
    proxy = make_proxy(server, warm=1)
    parameters = conninfo(proxy.parameters())
    opened = [psycopg.connect(parameters) for _ in range(5)]

    def refused() -> bool:
        mark = proxy.mark
        with pytest.raises(psycopg.OperationalError, match="sorry, too many clients already"):
            psycopg.connect(parameters)
        proxy.wait_for("session_closed", since=mark)
        assert len(proxy.events("login_refused", since=mark)) == 1
        return openings(proxy, mark) == [True, False]

    until(refused, "a client that finds a connection ready and is refused on it")
    for connection in opened:
        connection.close()

    def has_room() -> bool:
        try:
            return not server.execute("select 1 from pg_stat_activity where usename = 'scram'")
        except psycopg.OperationalError:
            return False  # no room yet even for the one who asks

    until(has_room, "room for clients")
    assert asks(proxy) == "scram"
