"""Signals that stop the proxy: the first lets the sessions finish, the second ends them."""

from __future__ import annotations

import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.services.clients import conninfo
from tests.services.postgres import PostgresServer
from tests.support.backends import backends, wait_until_sleeping
from tests.support.proxy_process import MakeProxy, ProxyProcess, tunnel_toml
from tests.support.until import until

STOPPING = [signal.SIGTERM, signal.SIGINT]


def connect(proxy: ProxyProcess, name: str = "") -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(conninfo(proxy.parameters(application_name=name)), autocommit=True)


@pytest.mark.parametrize("number", STOPPING, ids=[number.name for number in STOPPING])
def test_without_sessions_it_ends_at_once(
    make_proxy: MakeProxy, postgres: PostgresServer, number: signal.Signals
) -> None:
    proxy = make_proxy(postgres)
    proxy.signal(number)
    assert proxy.wait() == 0
    assert proxy.events("drain_finished")[0]["cut"] == 0
    assert not proxy.ready_file.exists()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(proxy.address)


@pytest.mark.parametrize("number", STOPPING, ids=[number.name for number in STOPPING])
def test_open_sessions_may_finish(make_proxy: MakeProxy, postgres: PostgresServer, number: signal.Signals) -> None:
    proxy = make_proxy(postgres)
    with connect(proxy, "finishing") as busy, connect(proxy) as idle, ThreadPoolExecutor(1) as pool:
        query = pool.submit(busy.execute, "select pg_sleep(1), 42")
        wait_until_sleeping(postgres, "finishing")
        proxy.signal(number)
        assert proxy.wait_for("drain_started")["sessions"] == 2
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(proxy.address)
        assert idle.execute("select sum(n) from generate_series(1, 1000) n").fetchone() == (500500,)
        assert query.result().fetchone() == ("", 42)
        assert proxy.running
    assert proxy.wait() == 0
    assert proxy.events("drain_finished")[0]["cut"] == 0


@pytest.mark.parametrize("number", STOPPING, ids=[number.name for number in STOPPING])
def test_a_second_signal_ends_the_sessions(
    make_proxy: MakeProxy, postgres: PostgresServer, number: signal.Signals
) -> None:
    proxy = make_proxy(postgres)
    name = f"cut-off-{number.name}"
    with connect(proxy, name) as busy, ThreadPoolExecutor(1) as pool:
        query = pool.submit(busy.execute, "select pg_sleep(600)")
        wait_until_sleeping(postgres, name)
        proxy.signal(signal.SIGTERM)
        proxy.wait_for("drain_started")
        proxy.signal(number)
        assert proxy.wait() == 0
        with pytest.raises(psycopg.OperationalError):
            query.result()
    assert proxy.events("drain_finished")[0]["cut"] == 1
    assert not proxy.ready_file.exists()
    # The server is not left with a query that nobody waits for: it notices with its next write, or is told to end.
    postgres.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'cut-off-%'")
    until(lambda: all(one.application != name for one in backends(postgres)), "the backend ends")


def test_a_drain_has_its_deadline(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(toml=tunnel_toml(postgres, timeouts='{ drain = "1s" }'))
    with connect(proxy) as idle:
        assert proxy.stop() == 0
        with pytest.raises(psycopg.OperationalError):
            idle.execute("select 1")
    assert proxy.events("drain_finished")[0]["cut"] == 1


def test_a_client_that_has_only_connected_does_not_hold_it_up(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(toml=tunnel_toml(postgres, timeouts='{ startup = "1s" }'))
    with socket.create_connection(proxy.address):
        assert proxy.stop() == 0


def test_a_unix_socket_is_private_and_removed(
    make_proxy: MakeProxy, postgres: PostgresServer, short_folder: Path
) -> None:
    path = short_folder / ".s.PGSQL.6432"
    proxy = make_proxy(postgres, listen=f"unix:{path}")
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    assert proxy.stop() == 0
    assert list(short_folder.iterdir()) == []


def test_a_unix_socket_of_a_killed_proxy_is_taken_over(
    make_proxy: MakeProxy, postgres: PostgresServer, short_folder: Path
) -> None:
    path = short_folder / ".s.PGSQL.6432"
    killed = make_proxy(postgres, listen=f"unix:{path}")
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert path.is_socket()
    proxy = make_proxy(postgres, listen=f"unix:{path}")
    with connect(proxy) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
