"""A query is cancelled through the tunnel: over a connection of its own, at the server that owns the key."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from tests.services.clients import conninfo, psql_command
from tests.services.places import LOOPBACK_V4, free_port, loopbacks
from tests.services.postgres import PostgresServer
from tests.support.backends import wait_until_sleeping
from tests.support.proxy_process import MakePostgres, MakeProxy, ProxyProcess
from tests.support.raw_postgres import SSL_REQUEST, Message, RawClient, cancel_request, query_message
from tests.support.waypoint import Waypoint

CANCELLED = "57014"
_HANDSHAKE = b"\x16\x03"  # a TLS record with a ClientHello (RFC 8446 section 5.1)
_EXIT_TIMEOUT = 60


def test_control_c_in_psql(each_proxy: ProxyProcess, each_postgres: PostgresServer) -> None:
    parameters = each_proxy.parameters(application_name="interrupted")
    command = psql_command(parameters, "select pg_sleep(60)")
    with subprocess.Popen(
        command.argv,
        env=command.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            wait_until_sleeping(each_postgres, "interrupted")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=_EXIT_TIMEOUT)
        finally:
            process.kill()
    assert said == "Cancel request sent\nERROR:  canceling statement due to user request\n"
    assert process.returncode == 1


@pytest.mark.parametrize("version", ["3.0", "3.2"])
@pytest.mark.parametrize("cancel", [psycopg.Connection.cancel, psycopg.Connection.cancel_safe])
def test_psycopg(
    proxy: ProxyProcess,
    postgres: PostgresServer,
    cancel: Callable[[psycopg.Connection[tuple[object, ...]]], None],
    version: str,
) -> None:
    """Protocol 3.2 has longer keys."""
    mark = proxy.mark
    name = f"cancelled-{cancel.__name__}-{version}"
    parameters = conninfo(proxy.parameters(application_name=name))
    with (
        psycopg.connect(parameters, max_protocol_version=version, autocommit=True) as connection,
        ThreadPoolExecutor(1) as pool,
    ):
        query = pool.submit(connection.execute, "select pg_sleep(60)")
        wait_until_sleeping(postgres, name)
        cancel(connection)
        with pytest.raises(psycopg.errors.QueryCanceled):
            query.result()
        assert connection.execute("select 1").fetchone() == (1,)
    assert proxy.wait_for("cancel_forwarded", since=mark)["known"] is True


class Sleeper:
    """A session that sleeps, and its cancel key."""

    def __init__(self, proxy: ProxyProcess, name: str, version: tuple[int, int] = (3, 0)) -> None:
        self.client = RawClient.log_in(proxy.address, proxy.parameters("trustuser"), version)
        [key] = [message for message in self.client.until("Z") if message.kind == "K"]
        self.process_id, self.secret = int.from_bytes(key.body[:4]), key.body[4:]
        self.client.send(query_message(f"set application_name = '{name}'"))
        self.client.until("Z")
        self.client.send(query_message("select pg_sleep(60)"))

    def end(self) -> Message:
        """The message that ended the sleep."""
        return next(message for message in self.client.until("Z") if message.kind in "ED")


def send_cancel(proxy: ProxyProcess, process_id: int, secret: bytes) -> bytes:
    """Send a CancelRequest, and wait until the connection is closed, as libpq does."""
    with RawClient.connect(proxy.address) as client:
        client.send(cancel_request(process_id, secret))
        return client.rest()


@pytest.mark.parametrize(("version", "length"), [((3, 0), 4), ((3, 2), 32)])
def test_the_client_is_held_until_the_server_has_the_request(
    proxy: ProxyProcess, postgres: PostgresServer, version: tuple[int, int], length: int
) -> None:
    sleeper = Sleeper(proxy, "held", version)
    with sleeper.client:
        assert len(sleeper.secret) == length
        wait_until_sleeping(postgres, "held")
        assert send_cancel(proxy, sleeper.process_id, sleeper.secret) == b""
        assert sleeper.end().fields["C"] == CANCELLED


def test_it_travels_over_mutual_tls(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    with Waypoint((LOOPBACK_V4, postgres.port)) as way:
        proxy = make_proxy(postgres, upstream=str(way))
        sleeper = Sleeper(proxy, "over-tls")
        with sleeper.client:
            wait_until_sleeping(postgres, "over-tls")
            send_cancel(proxy, sleeper.process_id, sleeper.secret)
            assert sleeper.end().fields["C"] == CANCELLED
        session, request = way.passages
        for passage in (session, request):
            assert passage.sent.startswith(SSL_REQUEST + _HANDSHAKE)
        assert cancel_request(sleeper.process_id, sleeper.secret) not in request.sent


def names() -> list[str]:
    """`localhost`, where it is a name with several addresses."""
    found = {where[0] for *_, where in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    return ["localhost"] if found == set(loopbacks()) and len(found) > 1 else []


@pytest.fixture(params=["a list", *names()])
def two_ways(
    request: pytest.FixtureRequest, postgres: PostgresServer, make_postgres: MakePostgres
) -> Iterator[tuple[list[str], dict[PostgresServer, Waypoint]]]:
    """Two servers behind one upstream, a list of two or a name with two addresses; and the way to each."""
    servers = (postgres, make_postgres())
    hosts, port = (loopbacks(), free_port()) if request.param == "localhost" else ((LOOPBACK_V4, LOOPBACK_V4), 0)
    with ExitStack() as stack:
        ways = {
            server: stack.enter_context(Waypoint((LOOPBACK_V4, server.port), host=host, port=port))
            for server, host in zip(servers, hosts, strict=True)
        }
        yield [f"localhost:{port}"] if port else [str(way) for way in ways.values()], ways


def test_it_goes_to_the_server_that_owns_the_key(
    make_proxy: MakeProxy, two_ways: tuple[list[str], dict[PostgresServer, Waypoint]], postgres: PostgresServer
) -> None:
    """Two servers behind one tunnel, a session at each: whose query is not to be cancelled sees nothing of it."""
    upstream, ways = two_ways
    proxy = make_proxy(postgres, upstream=upstream)
    sleepers: dict[PostgresServer, Sleeper] = {}
    with ExitStack() as stack:
        for name in ("first", "second"):
            sleeper = Sleeper(proxy, name)
            stack.enter_context(sleeper.client)
            [owner] = [server for server, way in ways.items() if way.passages and server not in sleepers]
            wait_until_sleeping(owner, name)
            sleepers[owner] = sleeper
            ways[owner].shut()  # so that the next session goes to the other one
        for way in ways.values():
            way.open()
        for owner, sleeper in sleepers.items():
            before = {server: len(way.passages) for server, way in ways.items()}
            send_cancel(proxy, sleeper.process_id, sleeper.secret)
            assert sleeper.end().fields["C"] == CANCELLED
            assert {server: len(way.passages) for server, way in ways.items()} == before | {owner: before[owner] + 1}


def test_an_unknown_key_goes_to_every_address(
    make_proxy: MakeProxy, two_ways: tuple[list[str], dict[PostgresServer, Waypoint]], postgres: PostgresServer
) -> None:
    """Another proxy may have made the session. Nobody is disturbed by a key that nobody has."""
    upstream, ways = two_ways
    proxy = make_proxy(postgres, upstream=upstream)
    with psycopg.connect(conninfo(proxy.parameters())) as connection:
        before = {server: len(way.passages) for server, way in ways.items()}
        assert send_cancel(proxy, 1, b"\0\0\0\1") == b""
        assert {server: len(way.passages) for server, way in ways.items()} == {s: n + 1 for s, n in before.items()}
        assert proxy.wait_for("cancel_forwarded")["known"] is False
        assert connection.execute("select 1").fetchone() == (1,)


def test_the_key_of_another_proxy_works(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    one, other = make_proxy(postgres), make_proxy(postgres)
    sleeper = Sleeper(one, "elsewhere")
    with sleeper.client:
        wait_until_sleeping(postgres, "elsewhere")
        send_cancel(other, sleeper.process_id, sleeper.secret)
        assert sleeper.end().fields["C"] == CANCELLED


def test_unknown_keys_are_passed_on_at_a_limited_rate(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    """Each would cost a TLS handshake with every address; a known key is never held back by them."""
    proxy = make_proxy(postgres)
    for n in range(50):
        send_cancel(proxy, n + 1, b"\0\0\0\1")
    assert proxy.wait_for("cancel_failed")["code"] == "MTLS-PG-011"
    assert len(proxy.events("cancel_forwarded")) < 50
    sleeper = Sleeper(proxy, "not-held-back")
    with sleeper.client:
        wait_until_sleeping(postgres, "not-held-back")
        send_cancel(proxy, sleeper.process_id, sleeper.secret)
        assert sleeper.end().fields["C"] == CANCELLED


def test_a_full_tunnel_still_cancels(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(postgres, max_connections=1)
    sleeper = Sleeper(proxy, "full")
    with sleeper.client:
        wait_until_sleeping(postgres, "full")
        send_cancel(proxy, sleeper.process_id, sleeper.secret)
        assert sleeper.end().fields["C"] == CANCELLED
