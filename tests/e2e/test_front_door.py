"""Who may come in: addresses, local users, and how many; all told in the protocol, and in the log."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

import psycopg
import pytest

from tests.services.clients import conninfo, psql
from tests.services.places import loopbacks
from tests.services.postgres import PostgresServer
from tests.support.local_users import available_uids, running_as
from tests.support.proxy_process import MakeProxy, ProxyProcess, run_proxy, tunnel_flags
from tests.support.raw_postgres import RawClient, refusal_of, startup_message
from tests.support.until import until

# Sends a StartupMessage (argument, hexadecimal), and prints what comes until the connection ends or is ready.
_CLIENT = """
kind, where, startup = sys.argv[2:5]
if kind == "unix":
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(where)
else:
    host, _, port = where.rpartition(":")
    sock = socket.create_connection((host, int(port)))
sock.sendall(bytes.fromhex(startup))
got = b""
while b"Z\\0\\0\\0\\5" not in got and (data := sock.recv(65536)):
    got += data
sys.stdout.buffer.write(got)
"""
_READY = b"Z\0\0\0\5I"


def answer_for(uid: int, kind: str, where: str) -> bytes:
    """What a client of this local user gets to read."""
    startup = startup_message(user="trustuser", database="app").hex()
    with running_as(uid, _CLIENT, kind, where, startup) as child:
        out, said = child.communicate(timeout=60)
    assert (said, child.returncode) == (b"", 0)
    return out


@pytest.mark.parametrize("host", loopbacks())
def test_local_users_on_tcp(make_proxy: MakeProxy, postgres: PostgresServer, host: str) -> None:
    """The kernel's socket tables name the owner of the other end."""
    allowed, *others = available_uids()
    listen = f"[{host}]:0" if ":" in host else f"{host}:0"
    proxy = make_proxy(postgres, listen=listen, allow_user=pwd.getpwuid(allowed).pw_name)
    where = "{}:{}".format(*proxy.address)
    assert answer_for(allowed, "tcp", where).endswith(_READY)
    for uid in others:
        answer = answer_for(uid, "tcp", where)
        assert b"\0C28000\0" in answer
        assert b"not in allow_users" in answer
        assert proxy.wait_for("client_refused")["code"] == "MTLS-DOOR-002"


@pytest.mark.parametrize("listener", ["tcp", "unix"])
def test_we_are_refused_where_we_are_not_named(
    make_proxy: MakeProxy, postgres: PostgresServer, short_folder: Path, listener: str
) -> None:
    listen = "127.0.0.1:0" if listener == "tcp" else f"unix:{short_folder}/.s.PGSQL.6432"
    proxy = make_proxy(postgres, listen=listen, allow_user=str(os.getuid() + 4321))
    done = psql(proxy.parameters(), "select 1")
    assert done.returncode == 2
    assert f"user id {os.getuid()} may not use this tunnel: it is not in allow_users" in done.stderr
    assert "HINT:  " in done.stderr


def test_we_are_admitted_to_a_unix_socket_by_name(
    make_proxy: MakeProxy, postgres: PostgresServer, short_folder: Path
) -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    proxy = make_proxy(postgres, listen=f"unix:{short_folder}/.s.PGSQL.6432", allow_user=name)
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"


def test_networks(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(postgres, listen="0.0.0.0:0", allow_client=["127.0.0.1", "127.8.0.0/16"])
    address = ("127.0.0.1", proxy.address[1])
    for source in ("127.0.0.1", "127.8.9.10"):
        with RawClient.connect(address, source=source) as client:
            client.send(startup_message(user="trustuser", database="app"))
            assert client.until("Z")
    fields = refusal_of(address, source="127.0.0.2")
    assert (fields["S"], fields["C"]) == ("FATAL", "28000")
    assert "127.0.0.2 may not use this tunnel" in fields["M"]
    assert '"127.0.0.2/32"' in fields["H"]
    assert proxy.wait_for("client_refused")["code"] == "MTLS-DOOR-001"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_a_bind_beyond_loopback_must_say_for_whom(postgres: PostgresServer, tmp_path: Path, listen: str) -> None:
    done = run_proxy(tunnel_flags(postgres, listen=listen), cwd=tmp_path)
    assert done.returncode == 2
    assert "open to other machines" in done.stderr
    assert "--allow-client" in done.stderr
    assert "Traceback" not in done.stderr


def test_too_many_connections(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(postgres, max_connections=2)
    parameters = conninfo(proxy.parameters())
    with psycopg.connect(parameters), psycopg.connect(parameters) as leaving:
        fields = refusal_of(proxy.address)
        assert (fields["S"], fields["C"]) == ("FATAL", "53300")
        assert "its 2 connections" in fields["M"]
        assert "max_connections" in fields["H"]
        done = psql(proxy.parameters(), "select 1")
        assert f"FATAL:  {fields['M']}" in done.stderr
        leaving.close()
        until(lambda: psql(proxy.parameters(), "select 1").returncode == 0, "a place is free again")


def test_a_flood_beyond_the_limit_leaves_the_sessions_alone(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    """Clients who say nothing take no place from those who work, and do not wait for ever."""
    proxy: ProxyProcess = make_proxy(postgres, max_connections=5)
    with psycopg.connect(conninfo(proxy.parameters())) as connection:
        silent = [socket.create_connection(proxy.address) for _ in range(200)]
        try:
            assert connection.execute("select 1").fetchone() == (1,)
        finally:
            for sock in silent:
                sock.close()
        assert connection.execute("select 1").fetchone() == (1,)
        until(lambda: psql(proxy.parameters(), "select 1").returncode == 0, "the door is free again")
