"""What goes on in an established session: notifications, idling, pipelines, many at once, and ends of every kind."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.services.clients import conninfo
from tests.services.postgres import PostgresServer
from tests.support.backends import backend_of, wait_until_sleeping
from tests.support.proxy_process import MakeProxy, ProxyProcess, tunnel_toml
from tests.support.raw_postgres import RawClient, query_message
from tests.support.sockets_of import keepalive_timers
from tests.support.until import until

AT_ONCE = 200


def connect(proxy: ProxyProcess, user: str = "scram") -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(conninfo(proxy.parameters(user)), autocommit=True)


def test_notifications(proxy: ProxyProcess) -> None:
    """They come without a question: the server speaks first."""
    with connect(proxy) as listener, connect(proxy) as speaker:
        listener.execute("listen news")
        for n in range(100):
            speaker.execute("select pg_notify('news', %s)", (f"{n} " + "x" * 7000,))
        heard = [notice.payload.split()[0] for notice in listener.notifies(timeout=30, stop_after=100)]
    assert heard == [str(n) for n in range(100)]


def test_an_idle_session_outlives_every_deadline(make_proxy: MakeProxy, postgres: PostgresServer, times: int) -> None:
    """The deadlines are for what is being set up or ended. This test waits because time is what it is about."""
    seconds = 3 * times
    limits = '{ startup = "1s", dial = "1s", login = "1s", linger = "1s", drain = "1s" }'
    proxy = make_proxy(toml=tunnel_toml(postgres, timeouts=limits))
    with connect(proxy) as idle, connect(proxy) as transaction:
        transaction.execute("begin")
        time.sleep(seconds)
        assert idle.execute("select 1").fetchone() == (1,)
        passed = transaction.execute("select extract(epoch from clock_timestamp() - now()) >= %s", (seconds,))
        assert passed.fetchone() == (True,)


def test_both_legs_of_an_idle_session_are_kept_alive(proxy: ProxyProcess, postgres: PostgresServer) -> None:
    """So that a peer which has vanished is noticed, and a NAT table on the way does not forget us."""
    with connect(proxy) as connection:
        with socket.socket(fileno=os.dup(connection.fileno())) as client:
            _, client_port = client.getsockname()
        timers = until(lambda: keepalive_timers(proxy.pid), "no bytes are in flight")
        assert timers[proxy.address[1], client_port]
        upstream = [kept for (_, remote), kept in timers.items() if remote == postgres.port]
        assert upstream
        assert all(upstream)


def test_a_pipeline(proxy: ProxyProcess) -> None:
    """Thousands of messages are under way at once, in both directions."""
    with connect(proxy) as connection, connection.pipeline() as pipeline:
        connection.execute("create temp table piped (n int, filler text)")
        cursors = [
            connection.execute("insert into piped values (%s, %s) returning n", (n, "x" * (n % 3000)))
            for n in range(2000)
        ]
        pipeline.sync()
        assert [cursor.fetchone() for cursor in cursors] == [(n,) for n in range(2000)]
        total = connection.execute("select count(*), sum(length(filler)) from piped").fetchone()
    assert total == (2000, sum(n % 3000 for n in range(2000)))


def test_an_error_in_a_pipeline_ends_it_and_nothing_else(proxy: ProxyProcess) -> None:
    def divide(connection: psycopg.Connection[tuple[object, ...]]) -> None:
        # The error may be raised by any statement after the one that it is about, or at the end.
        with connection.pipeline():
            for n in (1, 0, 2):
                connection.execute("select 1 / %s::int", (n,))

    with connect(proxy) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            divide(connection)
        assert connection.execute("select 3").fetchone() == (3,)


def test_cursors_of_the_server_and_many_rows(proxy: ProxyProcess) -> None:
    with connect(proxy) as connection, connection.transaction():
        with connection.cursor("rows") as cursor:
            cursor.itersize = 10_000
            cursor.execute("select n, repeat('x', n % 100) from generate_series(1, 300000) as n")
            found = [(n, len(str(text))) for n, text in cursor]
        assert found == [(n, n % 100) for n in range(1, 300_001)]
        with connection.cursor("scrolling", scrollable=True) as scrolling:
            scrolling.execute("select generate_series(1, 1000)")
            scrolling.scroll(990, mode="absolute")
            assert scrolling.fetchmany(2) == [(991,), (992,)]


def test_two_hundred_sessions_at_once(proxy: ProxyProcess) -> None:
    """All are open before the first one works, each has a backend of its own, and all work at the same time."""

    async def session(barrier: asyncio.Barrier) -> int:
        async with await psycopg.AsyncConnection.connect(conninfo(proxy.parameters())) as connection:
            await barrier.wait()
            cursor = await connection.execute("select pg_backend_pid(), sum(n) from generate_series(1, 1000) n")
            row = await cursor.fetchone()
            assert row is not None
            assert row[1] == 500_500
            await barrier.wait()
            return int(row[0])

    async def main() -> list[int]:
        barrier = asyncio.Barrier(AT_ONCE)
        return await asyncio.gather(*(session(barrier) for _ in range(AT_ONCE)))

    assert len(set(asyncio.run(main()))) == AT_ONCE


def test_sessions_that_come_and_go(proxy: ProxyProcess, times: int) -> None:
    """Short ones, from many threads, beside one that stays."""

    def once(n: int) -> int:
        with psycopg.connect(conninfo(proxy.parameters("trustuser"))) as connection:
            row = connection.execute("select %s::int", (n,)).fetchone()
            assert row is not None
            return int(row[0])

    with connect(proxy) as stays, ThreadPoolExecutor(8) as pool:
        assert list(pool.map(once, range(200 * times))) == list(range(200 * times))
        assert stays.execute("select 1").fetchone() == (1,)


def test_a_client_that_half_closes_gets_all_of_its_answer(proxy: ProxyProcess) -> None:
    """Ten MB come after the client's FIN, and then the server's end."""
    mark = proxy.mark
    with RawClient.log_in(proxy.address, proxy.parameters("trustuser")) as client:
        client.until("Z")
        client.send(query_message("select repeat('x', 100000) from generate_series(1, 100)"))
        client.sock.shutdown(socket.SHUT_WR)
        messages = list(client.messages())
    assert sum(len(message.columns[0]) for message in messages if message.kind == "D") == 10_000_000
    assert messages[-1].kind == "Z"
    assert proxy.wait_for("session_closed", since=mark)["ending"] == "client_closed"


def test_a_client_that_vanishes_ends_its_backend(proxy: ProxyProcess, postgres: PostgresServer) -> None:
    with RawClient.log_in(proxy.address, proxy.parameters("trustuser")) as client:
        client.until("Z")
        client.send(query_message("select pg_backend_pid()"))
        pid = int(client.until("Z")[1].columns[0])
    until(lambda: backend_of(postgres, pid) is None, "the backend ends")


def test_a_session_that_the_administrator_ends(proxy: ProxyProcess, postgres: PostgresServer) -> None:
    """The server's last words reach the client, in the midst of a query and between two."""
    with connect(proxy) as busy, connect(proxy) as idle:
        for connection in (busy, idle):
            connection.execute("set application_name = 'doomed'")
        with ThreadPoolExecutor(1) as pool:
            query = pool.submit(busy.execute, "select pg_sleep(60)")
            wait_until_sleeping(postgres, "doomed")
            postgres.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'doomed'")
            with pytest.raises(psycopg.errors.AdminShutdown):
                query.result()
        with pytest.raises(psycopg.errors.AdminShutdown):
            idle.execute("select 1")
