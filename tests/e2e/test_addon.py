"""A tunnel whose upstream an add-on's credential tells: psql and psycopg without a password, before a real server.

The proxy runs in the test's own loop, so that Heroku can be a fake that a test changes; but for the last test, which
has the command and an API that is asked over HTTP.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import psycopg
import pytest
import trio

from mtlskit.config.values import Endpoint, IdentityConfig, Login, TcpAddress, TunnelConfig, TunnelKind
from mtlskit.proxy.events import AddonChanged, AddonKept, AddonRecovered, LoginRefused, SessionOpened
from tests.services.clients import conninfo, libpq_command, psql_command
from tests.services.postgres import PostgresServer
from tests.services.template import DATABASE, PASSWORDS
from tests.support.addons import ADDON, FakeLookup, credential_at
from tests.support.backends import wait_until_sleeping
from tests.support.proxy_process import MakeProxy, tunnel_toml
from tests.support.tunnels import LOOPBACK, Running, running_proxy

WHOAMI = "select current_user, current_database(), current_setting('application_name')"


@pytest.fixture
def rotating_user(postgres: PostgresServer) -> Iterator[str]:
    """A role of the test's own, whose password it may change."""
    postgres.execute("SET password_encryption = 'scram-sha-256'")
    postgres.execute("CREATE ROLE rotating LOGIN PASSWORD 'first'")
    yield "rotating"
    postgres.execute("DROP ROLE rotating")


def lookup_of(server: PostgresServer, user: str = "scram", password: str | None = None) -> FakeLookup:
    here = Endpoint("localhost", server.port)
    return FakeLookup(credential_at(here, user=user, password=PASSWORDS[user] if password is None else password))


def tunnel_to(server: PostgresServer, **settings: Any) -> TunnelConfig:
    pki = server.pki
    identity = IdentityConfig("client", pki.client.cert, pki.client.key, ca=pki.server_ca)
    chosen: dict[str, Any] = {"addon": ADDON, "login": Login.HEROKU} | settings
    return TunnelConfig("reporting", TunnelKind.POSTGRES, LOOPBACK, (), identity, **chosen)


@asynccontextmanager
async def proxied(
    server: PostgresServer, lookup: FakeLookup, **settings: Any
) -> AsyncIterator[tuple[Running, dict[str, str]]]:
    """The proxy, and libpq's parameters for it: no password, and a user that is nobody in the database."""
    async with running_proxy(tunnel_to(server, **settings), lookup=lookup) as running:
        address = running.address()
        assert isinstance(address, TcpAddress)
        yield running, {"host": address.host, "port": str(address.port), "user": "nobody", "application_name": "bi"}


async def psql(parameters: dict[str, str], sql: str = WHOAMI) -> subprocess.CompletedProcess[str]:
    command = psql_command(parameters, sql)
    return await trio.to_thread.run_sync(command.run)


def connect(parameters: dict[str, str], **more: str) -> psycopg.Connection:
    """In a thread: the proxy runs in this one."""
    return psycopg.connect(conninfo(parameters | more), autocommit=True)


def one(connection: psycopg.Connection, sql: str = "select 1") -> object:
    return connection.execute(sql.encode()).fetchone()


async def whoami(parameters: dict[str, str]) -> str:
    done = await psql(parameters)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("user", ["scram", "trustuser", "certuser"])
async def test_psql_needs_no_password(postgres: PostgresServer, user: str) -> None:
    async with proxied(postgres, lookup_of(postgres, user)) as (_, parameters):
        assert await whoami(parameters) == f"{user}\t{DATABASE}\tbi\n"


async def test_every_major(each_postgres: PostgresServer) -> None:
    async with proxied(each_postgres, lookup_of(each_postgres)) as (_, parameters):
        assert await whoami(parameters) == f"scram\t{DATABASE}\tbi\n"


async def test_the_database_that_a_client_names_is_its_own_choice(postgres: PostgresServer) -> None:
    async with proxied(postgres, lookup_of(postgres)) as (_, parameters):
        assert await whoami(parameters | {"dbname": "postgres"}) == "scram\tpostgres\tbi\n"
        refused = await psql(parameters | {"dbname": "absent"})
        assert refused.stderr.endswith('FATAL:  database "absent" does not exist\n')


async def test_a_password_of_the_clients_own_is_not_looked_at(postgres: PostgresServer) -> None:
    async with proxied(postgres, lookup_of(postgres)) as (_, parameters):
        assert await whoami(parameters | {"password": "whatever"}) == f"scram\t{DATABASE}\tbi\n"


@pytest.mark.parametrize(("user", "wants"), [("md5user", "the password as an MD5 hash"), ("plain", "clear text")])
async def test_weaker_ways_to_authenticate_are_refused(postgres: PostgresServer, user: str, wants: str) -> None:
    async with proxied(postgres, lookup_of(postgres, user)) as (_, parameters):
        refused = await psql(parameters)
        assert (refused.returncode, wants in refused.stderr, "[MTLS-PG-012]" in refused.stderr) == (2, True, True)


async def test_the_clients_parameters_reach_the_server(postgres: PostgresServer) -> None:
    def ask(parameters: dict[str, str]) -> tuple[object, str]:
        with connect(parameters, options="-c work_mem=3MB", client_encoding="latin1") as connection:
            return connection.execute("show work_mem").fetchone(), connection.info.encoding

    async with proxied(postgres, lookup_of(postgres)) as (_, parameters):
        assert await trio.to_thread.run_sync(ask, parameters) == (("3MB",), "iso8859-1")


async def test_a_query_can_be_cancelled(postgres: PostgresServer) -> None:
    def sleep(connection: psycopg.Connection) -> None:
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(600)")

    async with proxied(postgres, lookup_of(postgres)) as (_, parameters):
        named = parameters | {"application_name": "sleeper"}
        with await trio.to_thread.run_sync(connect, named) as connection:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, sleep, connection)
                await trio.to_thread.run_sync(wait_until_sleeping, postgres, "sleeper")
                await trio.to_thread.run_sync(
                    connection.cancel_safe
                )  # `cancel` would keep Python, and so the proxy, still


async def test_a_rotated_password_is_no_failure_to_a_client(postgres: PostgresServer, rotating_user: str) -> None:
    lookup = lookup_of(postgres, rotating_user, "first")
    async with proxied(postgres, lookup) as (running, parameters):
        first = await trio.to_thread.run_sync(connect, parameters)
        with first:
            postgres.execute("ALTER ROLE rotating PASSWORD 'second'")
            lookup.change(password="second")
            assert (await whoami(parameters)).startswith("rotating\t")
            assert running.events.of(AddonChanged)[0].changed == ("password",)
            assert not running.events.of(LoginRefused)
            assert await trio.to_thread.run_sync(one, first) == (1,)
        assert (await whoami(parameters)).startswith("rotating\t")
        assert len(lookup.asked) == 2


async def test_a_password_that_heroku_does_not_know_of_is_refused_in_the_servers_words(
    postgres: PostgresServer, rotating_user: str
) -> None:
    lookup = lookup_of(postgres, rotating_user, "wrong")
    async with proxied(postgres, lookup) as (running, parameters):
        for _ in range(2):
            refused = await psql(parameters)
            assert refused.stderr.endswith('FATAL:  password authentication failed for user "rotating"\n')
        assert len(lookup.asked) == 2  # at the start, and for the first refusal; the second came too soon
        assert [event.sqlstate for event in running.events.of(LoginRefused)] == ["28P01", "28P01"]


async def test_who_sent_no_password_hears_why_it_is_refused(postgres: PostgresServer, rotating_user: str) -> None:
    """The password was rotated, and the proxy's token has expired: no word about a password would help."""
    lookup = lookup_of(postgres, rotating_user, "wrong")
    async with proxied(postgres, lookup) as (_, parameters):
        lookup.fail()
        refused = await psql(parameters)
        assert "refuses the credential of" in refused.stderr
        assert "api.data.heroku.com cannot be reached" in refused.stderr
        assert "HINT:  check the network" in refused.stderr


async def test_a_database_that_moves_is_followed(
    postgres: PostgresServer, make_postgres: Any, rotating_user: str
) -> None:
    other: PostgresServer = make_postgres()
    other.execute("CREATE ROLE moved LOGIN PASSWORD 'there'")
    lookup = lookup_of(postgres, rotating_user, "first")
    async with proxied(postgres, lookup) as (running, parameters):
        first = await trio.to_thread.run_sync(connect, parameters)
        with first:
            lookup.credential = replace(lookup.credential, port=other.port, user="moved", password="there")
            await running.proxy.reload()
            assert (await whoami(parameters)).startswith("moved\t")
            assert await trio.to_thread.run_sync(one, first, "select current_user") == ("rotating",)
        assert {event.upstream.rpartition(":")[2] for event in running.events.of(AddonChanged)} == {str(other.port)}
        lookup.change(port=postgres.port, user=rotating_user, password="first")
        other.stop()
        running.proxy.tunnels[0].follower._not_before = 0  # type: ignore[union-attr]  # some seconds have passed
        assert (await whoami(parameters)).startswith("rotating\t")


async def test_an_outage_of_the_api_changes_nothing(postgres: PostgresServer) -> None:
    lookup = lookup_of(postgres)
    async with proxied(postgres, lookup) as (running, parameters):
        lookup.fail()
        for _ in range(2):
            await running.proxy.reload()
        assert await whoami(parameters) == f"scram\t{DATABASE}\tbi\n"
        lookup.outage = None
        await running.proxy.reload()
        assert (len(running.events.of(AddonKept)), len(running.events.of(AddonRecovered))) == (1, 1)


async def test_a_connection_made_in_advance_is_logged_in_as_well(postgres: PostgresServer, rotating_user: str) -> None:
    lookup = lookup_of(postgres, rotating_user, "first")
    async with proxied(postgres, lookup, warm=2) as (running, parameters):
        for password in ("first", "second"):
            postgres.execute(f"ALTER ROLE rotating PASSWORD '{password}'")
            lookup.change(password=password)
            with trio.fail_after(30):
                while not running.events.of(SessionOpened) or not running.events.of(SessionOpened)[-1].warm:
                    assert (await whoami(parameters)).startswith("rotating\t")
            assert (await whoami(parameters)).startswith("rotating\t")


async def test_a_client_keeps_its_own_login_where_only_the_place_is_herokus(postgres: PostgresServer) -> None:
    async with proxied(postgres, lookup_of(postgres), login=Login.CLIENT) as (_, parameters):
        own = parameters | {"user": "scram", "dbname": DATABASE, "password": PASSWORDS["scram"]}
        assert await whoami(own) == f"scram\t{DATABASE}\tbi\n"
        assert (await psql(own | {"password": "wrong"})).returncode == 2


async def test_pgbench(postgres: PostgresServer) -> None:
    async with proxied(postgres, lookup_of(postgres), warm=4) as (_, parameters):
        target = parameters | {"dbname": DATABASE}
        arguments = ["--no-vacuum", "--connect", "--client=4", "--transactions=10", "--file=-"]
        command = libpq_command("pgbench", target, *arguments, stdin="select 1;\n")
        done = await trio.to_thread.run_sync(command.run)
        assert done.returncode == 0, done.stderr
        assert "number of transactions actually processed: 40/40" in done.stdout


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.9"])
async def test_the_server_sees_the_source_address(postgres: PostgresServer, source: str) -> None:
    async with proxied(postgres, lookup_of(postgres), source=source) as (_, parameters):
        done = await psql(parameters, "select host(inet_client_addr())")
        assert done.stdout == f"{source}\n"


class _Api(BaseHTTPRequestHandler):
    """The one call that counts. `credential` is what it tells."""

    credential: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        found = self.path == f"/postgres/v0/databases/{ADDON}/credentials/default"
        allowed = self.headers["Authorization"] == "Bearer token-of-the-test"
        body = json.dumps(self.credential if found and allowed else {"id": "not_found", "message": "no"}).encode()
        self.send_response(200 if found and allowed else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Not here."""


def test_the_command_asks_heroku_and_follows(
    make_proxy: MakeProxy, postgres: PostgresServer, rotating_user: str
) -> None:
    def tell(password: str) -> None:
        _Api.credential = {
            "uuid": "1",
            "name": "default",
            "state": "active",
            "database": DATABASE,
            "host": "localhost",
            "port": postgres.port,
            "credentials": [{"user": rotating_user, "password": password, "state": "active"}],
        }

    tell("first")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as api:
        Thread(target=api.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{api.server_port}"
        hosts = {"HEROKU_HOST": url, "HEROKU_DATA_HOST": url, "HEROKU_API_KEY": "token-of-the-test"}
        toml = tunnel_toml(postgres, upstream=f'"heroku:{ADDON}"', login='"heroku"', allow_clients='["127.0.0.1"]')
        proxy = make_proxy(toml=toml, environment=hosts)
        host, port = proxy.address[:2]
        parameters = {"host": host, "port": str(port), "user": "nobody"}
        assert psql_command(parameters, "select current_user").run().stdout == "rotating\n"
        assert "without a password" in proxy.wait_for("tunnel_warned")["warning"]
        postgres.execute("ALTER ROLE rotating PASSWORD 'second'")
        tell("second")
        assert psql_command(parameters, "select current_user").run().stdout == "rotating\n"
        assert proxy.wait_for("addon_changed")["changed"] == ["password"]
        assert not {"first", "second", "token-of-the-test"} & set(re.findall(r"[\w-]+", proxy.log()))
        api.shutdown()
