"""The servers and clients of the tests are real, speak TLS, and refuse whom they should."""

from __future__ import annotations

import os
import select
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import psycopg
import pytest

from tests.services.clients import conninfo, find_stunnel, jdbc, libpq_command, node, program_major, psql
from tests.services.pki import PASSPHRASE, Pair, Pki
from tests.services.postgres import PostgresServer, Shutdown
from tests.services.settings import ServerOptions
from tests.services.template import PASSWORDS

WHOAMI = "select current_user, (select version from pg_stat_ssl where pid = pg_backend_pid())"


def test_psql_logs_in_with_certificate_and_scram(each_postgres: PostgresServer) -> None:
    done = psql(each_postgres.parameters(), WHOAMI)
    assert (done.stdout, done.stderr) == ("scram\tTLSv1.3\n", "")
    [[version]] = each_postgres.execute("show server_version_num")
    assert int(str(version)) // 10_000 == each_postgres.major


def test_psql_is_refused_without_a_certificate(each_postgres: PostgresServer) -> None:
    done = psql(each_postgres.parameters(anonymous=True), "select 1")
    assert done.returncode == 2
    assert "connection requires a valid client certificate" in done.stderr


def test_plain_text_is_refused(each_postgres: PostgresServer) -> None:
    done = psql(each_postgres.parameters(sslmode="disable"), "select 1")
    assert done.returncode == 2
    assert "no pg_hba.conf entry" in done.stderr


@pytest.mark.parametrize("user", PASSWORDS)
def test_every_way_to_authenticate(postgres: PostgresServer, user: str) -> None:
    assert psql(postgres.parameters(user), WHOAMI).stdout == f"{user}\tTLSv1.3\n"


@pytest.mark.parametrize("user", [user for user, password in PASSWORDS.items() if password])
def test_a_wrong_password_is_refused(postgres: PostgresServer, user: str) -> None:
    done = psql({**postgres.parameters(user), "password": "wrong"}, "select 1")
    assert "password authentication failed" in done.stderr


@pytest.mark.parametrize(
    ("identity", "complaint"),
    [
        ("client_expired", "certificate expired"),
        ("client_not_yet_valid", "bad certificate"),
        ("client_revoked", "certificate revoked"),
        ("client_stranger", "unknown ca"),
        ("server", "unknown ca"),
    ],
)
def test_a_bad_certificate_is_refused(postgres: PostgresServer, pki: Pki, identity: str, complaint: str) -> None:
    pair: Pair = getattr(pki, identity)
    # TLS 1.2: the alert is then part of the handshake, so that libpq always reports it.
    with pytest.raises(psycopg.OperationalError, match=complaint):
        psycopg.connect(conninfo(postgres.parameters(client=pair)), ssl_max_protocol_version="TLSv1.2")


def test_a_chained_certificate_and_a_locked_key_are_taken(postgres: PostgresServer, pki: Pki) -> None:
    assert psql(postgres.parameters(client=pki.client_chained), "select 1").stdout == "1\n"
    locked = postgres.parameters(client=pki.client_locked) | {"sslpassword": PASSPHRASE}
    with psycopg.connect(conninfo(locked)) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_it_listens_on_every_loopback_address(postgres: PostgresServer) -> None:
    for host in (*postgres.addresses, "localhost"):
        assert psql(postgres.parameters(host=host), "select 1").stdout == "1\n"


@pytest.mark.parametrize("major", [17, 18])
def test_direct_tls_with_alpn(make_postgres: Callable[..., PostgresServer], pki: Pki, major: int) -> None:
    server = make_postgres(major=major)
    context = ssl.create_default_context(cafile=pki.server_ca)
    context.load_cert_chain(pki.client.cert, pki.client.key)
    context.set_alpn_protocols(["postgresql"])
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        assert tls.selected_alpn_protocol() == "postgresql"
    direct = {**server.parameters(), "sslnegotiation": "direct"}
    with psycopg.connect(conninfo(direct)) as connection:  # its own libpq is newer than the system's may be
        assert connection.execute("select 1").fetchone() == (1,)
    assert node(direct, "select 1").stdout == "1\n"


@pytest.mark.parametrize("client", [jdbc, node], ids=["jdbc", "node"])
def test_other_drivers(postgres: PostgresServer, client: Callable[..., CompletedProcess[str]]) -> None:
    done = client(postgres.parameters(), WHOAMI)
    assert (done.stdout, done.stderr) == ("scram\tTLSv1.3\n", "")
    refused = client(postgres.parameters(anonymous=True), "select 1")
    assert refused.returncode == 1
    assert "28000" in refused.stderr


def test_pgbench_and_dump(dumpable_postgres: PostgresServer) -> None:
    filled = libpq_command("pgbench", dumpable_postgres.parameters(), "-i", "-s", "1", "-q").run()
    assert filled.returncode == 0, filled.stderr
    dumped = libpq_command("pg_dump", dumpable_postgres.parameters(), "--schema-only").run()
    assert "CREATE TABLE public.pgbench_accounts" in dumped.stdout, dumped.stderr
    assert program_major("pg_restore") == program_major("pg_dump")


def test_a_server_restarts_on_its_port_and_survives_a_kill(make_postgres: Callable[..., PostgresServer]) -> None:
    server = make_postgres(ServerOptions(max_connections=20, tls_max="TLSv1.2"))
    port, pid = server.port, server.pid
    assert psql(server.parameters(), WHOAMI).stdout == "scram\tTLSv1.2\n"
    server.execute("create table kept (id int)")
    server.restart(Shutdown.FAST)
    assert server.port == port
    assert server.pid != pid
    with psycopg.connect(conninfo(server.parameters())) as connection:
        server.kill()
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
    server.start()
    assert server.execute("select count(*) from kept") == [(0,)]
    [[connections]] = server.execute("show max_connections")
    assert connections == "20"


def test_a_closed_server_leaves_nothing(make_postgres: Callable[..., PostgresServer]) -> None:
    server = make_postgres()
    folder, port = server.folder, server.port
    server.close()
    assert not folder.exists()
    assert not server.running
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


_OWNER = """
import sys
from pathlib import Path
from tests.services.builds import postgres_build
from tests.services.pki import make_pki
from tests.services.postgres import PostgresServer

server = PostgresServer(postgres_build(18), make_pki(Path(sys.argv[1])))
server.start()
print(server.pid, server.guard_pid, server.folder, flush=True)
sys.stdin.read()
"""


def test_a_server_does_not_outlive_a_killed_owner(services: None, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, tmp_path],
        cwd=pytestconfig.rootpath,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        server, guard, folder = owner.stdout.readline().split()
        ends = [os.pidfd_open(int(server)), os.pidfd_open(int(guard))]
        owner.kill()
    try:
        for end in ends:
            assert select.select([end], [], [], 30) == ([end], [], []), "still running"
    finally:
        for end in ends:
            os.close(end)
    assert not Path(folder).exists()


def test_stunnel_is_told_by_its_path() -> None:
    found = find_stunnel()
    assert found is None or found.exists()
