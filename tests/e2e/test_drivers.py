"""Drivers other than psql, each with its own idea of the protocol, through one plain port."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from subprocess import CompletedProcess

import pg8000.dbapi
import pg8000.exceptions
import psycopg
import pytest

from tests.services.clients import conninfo, jdbc, node
from tests.services.fleet import Fleet
from tests.services.template import PASSWORDS
from tests.support.proxy_process import MakeProxy, ProxyProcess

WHOAMI = "select current_user, (select version from pg_stat_ssl where pid = pg_backend_pid())"


def bare(proxy: ProxyProcess, user: str, **changes: str) -> dict[str, str]:
    """Parameters without libpq's own: the way these drivers are used with a plain local port."""
    parameters = proxy.parameters(user, **changes)
    return {name: parameters[name] for name in ("host", "port", "dbname", "user", "password")}


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
def test_pgjdbc(each_proxy: ProxyProcess, sslmode: str) -> None:
    done = jdbc({**bare(each_proxy, "scram"), "sslmode": sslmode}, WHOAMI)
    assert (done.stdout, done.stderr) == ("scram\tTLSv1.3\n", "")


@pytest.mark.parametrize("user", PASSWORDS)
def test_node_postgres(proxy: ProxyProcess, user: str) -> None:
    done = node(bare(proxy, user), WHOAMI)
    assert (done.stdout, done.stderr) == (f"{user}\tTLSv1.3\n", "")


@pytest.mark.parametrize(("client", "state"), [(jdbc, "28P01"), (node, "28P01")], ids=["jdbc", "node"])
def test_a_wrong_password_keeps_its_sqlstate(
    proxy: ProxyProcess, client: Callable[..., CompletedProcess[str]], state: str
) -> None:
    done = client(bare(proxy, "scram", password="wrong"), WHOAMI)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{state} ")
    assert 'password authentication failed for user "scram"' in done.stderr


@pytest.mark.parametrize("user", PASSWORDS)
def test_pg8000(proxy: ProxyProcess, user: str) -> None:
    """Pure Python: its SCRAM is its own."""
    host, port = proxy.address
    with pg8000.dbapi.connect(
        user, host=host, port=port, database="app", password=PASSWORDS[user] or None, ssl_context=False
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("select current_user::text, %s::int + 1", (41,))
        assert [list(row) for row in cursor.fetchall()] == [[user, 42]]


def test_pg8000_is_told_about_a_wrong_password(proxy: ProxyProcess) -> None:
    host, port = proxy.address
    with pytest.raises(pg8000.exceptions.DatabaseError) as caught:
        pg8000.dbapi.connect("scram", host=host, port=port, database="app", password="wrong")
    assert caught.value.args[0]["C"] == "28P01"


@pytest.mark.parametrize("user", PASSWORDS)
def test_psycopg(each_proxy: ProxyProcess, user: str) -> None:
    with psycopg.connect(conninfo(each_proxy.parameters(user))) as connection:
        assert connection.execute(WHOAMI).fetchone() == (user, "TLSv1.3")
        connection.execute("create temp table facts (id int primary key, fact jsonb)")
        with connection.cursor() as cursor:
            cursor.executemany("insert into facts values (%s, %s)", [(n, f'{{"n": {n}}}') for n in range(1000)])
        total = connection.execute("select sum((fact->>'n')::int), count(*) from facts", prepare=True).fetchone()
        assert total == (499500, 1000)
        with pytest.raises(psycopg.errors.UniqueViolation), connection.transaction():
            connection.execute("insert into facts values (1, '{}')")
        assert connection.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("version", ["3.0", "3.2"])
def test_psycopg_with_either_protocol_version(proxy: ProxyProcess, version: str) -> None:
    with psycopg.connect(
        conninfo(proxy.parameters()), min_protocol_version=version, max_protocol_version=version
    ) as connection:
        assert connection.pgconn.full_protocol_version == {"3.0": 30000, "3.2": 30002}[version]
        assert connection.execute(WHOAMI).fetchone() == ("scram", "TLSv1.3")


def test_psycopg_asks_for_a_version_that_an_older_server_lowers(make_proxy: MakeProxy, postgres_fleet: Fleet) -> None:
    """NegotiateProtocolVersion comes before the authentication, and passes."""
    proxy = make_proxy(postgres_fleet.of(17))
    with psycopg.connect(conninfo(proxy.parameters()), max_protocol_version="latest") as connection:
        assert connection.pgconn.full_protocol_version == 30000
        assert connection.execute(WHOAMI).fetchone() == ("scram", "TLSv1.3")


def test_psycopg_async(proxy: ProxyProcess) -> None:
    async def main() -> list[tuple[object, ...] | None]:
        async with await psycopg.AsyncConnection.connect(conninfo(proxy.parameters())) as connection:
            cursor = await connection.execute(WHOAMI)
            first = await cursor.fetchone()
            async with connection.cursor() as rows:
                found = [row async for row in rows.stream("select generate_series(1, 1000)")]
            return [first, (sum(n for (n,) in found),)]

    assert asyncio.run(main()) == [("scram", "TLSv1.3"), (500500,)]
