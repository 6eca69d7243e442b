"""The gateway as real clients meet it: libpq, with the real PostgreSQL behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mtlskit.pki.authority import Authority
from mtlskit.sandbox.credentials import ClientIdentity
from mtlskit.sandbox.events import (
    CancelForwarded,
    ChannelBindingVerified,
    ClientAdmitted,
    ClientRefused,
)
from tests.support.space import RunningSpace, until


def stranger(folder: Path) -> ClientIdentity:
    """A client certificate of another CA, with the name of a good one."""
    now = datetime.now(UTC)
    issued = Authority.create("mtlskit sandbox CA", now=now).issue_client("sandbox-client", now=now)
    cert, key = folder / "stranger.crt", folder / "stranger.key"
    cert.write_bytes(issued.cert_pem)
    key.touch(mode=0o600)
    key.write_bytes(issued.key_pem)
    return ClientIdentity(cert, key, issued.serial)


def test_scram_with_channel_binding_is_truly_used(live: RunningSpace) -> None:
    mark = live.events.mark
    with live.connect(channel_binding="require") as connection:
        assert connection.execute("select current_user, current_database()").fetchone() == ("sandbox", "sandbox")
    assert live.events.wait_for(ChannelBindingVerified, since=mark).user == "sandbox"
    admitted = live.events.wait_for(ClientAdmitted, since=mark)
    assert admitted.serial == f"{live.space.client.serial:x}"
    assert admitted.subject == "CN=sandbox-client"


@pytest.mark.parametrize("changes", [{"sslmode": "require"}, {"sslmode": "prefer"}, {"sslnegotiation": "direct"}])
def test_other_ways_to_begin_tls(live: RunningSpace, changes: dict[str, Any]) -> None:
    with live.connect(**changes) as connection:
        assert connection.execute("select 1").fetchone() == (1,)


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_both_tls_versions(live: RunningSpace, version: str) -> None:
    limits: dict[str, Any] = {"ssl_min_protocol_version": version, "ssl_max_protocol_version": version}
    mark = live.events.mark
    with live.connect(**limits, channel_binding="require") as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    assert live.events.wait_for(ClientAdmitted, since=mark).tls == version


def test_a_client_that_cannot_bind_uses_plain_scram(live: RunningSpace) -> None:
    mark = live.events.mark
    with live.connect(channel_binding="disable") as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    live.events.wait_for(ClientAdmitted, since=mark)
    assert live.events.of(ChannelBindingVerified, since=mark) == []


@pytest.mark.parametrize("version", ["3.0", "3.2"])
def test_both_protocol_versions(live: RunningSpace, version: str) -> None:
    with live.connect(min_protocol_version=version, max_protocol_version=version) as connection:
        assert connection.pgconn.full_protocol_version == {"3.0": 30000, "3.2": 30002}[version]
        assert connection.execute("select 1").fetchone() == (1,)


def test_no_certificate_is_refused(live: RunningSpace) -> None:
    mark = live.events.mark
    with pytest.raises(psycopg.OperationalError, match="certificate required"):
        live.connect(sslcert="/nonexistent", sslkey="/nonexistent")
    assert live.events.wait_for(ClientRefused, since=mark).reason == "it has no client certificate"


def test_a_certificate_of_another_ca_is_refused(live: RunningSpace, tmp_path: Path) -> None:
    mark = live.events.mark
    with pytest.raises(psycopg.OperationalError, match=r"unknown ca|decrypt error"):
        live.connect(stranger(tmp_path))
    assert "certificate was not accepted" in live.events.wait_for(ClientRefused, since=mark).reason


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_revoked_certificate_is_refused_with_the_alert(live: RunningSpace, version: str) -> None:
    identity = live.space.new_client_identity("to be revoked")
    limits: dict[str, Any] = {"ssl_min_protocol_version": version, "ssl_max_protocol_version": version}
    with live.connect(identity, **limits) as connection:
        live.revoke(identity.serial)
        mark = live.events.mark
        with pytest.raises(psycopg.OperationalError, match="certificate revoked"):
            live.connect(identity, **limits)
        assert "revoked" in live.events.wait_for(ClientRefused, since=mark).reason
        # An established session goes on, as in PostgreSQL.
        assert connection.execute("select 1").fetchone() == (1,)
    with live.connect() as connection:
        assert connection.execute("select 1").fetchone() == (1,)


def test_plain_text_is_refused_as_pg_hba_would(live: RunningSpace) -> None:
    with pytest.raises(psycopg.OperationalError) as caught:
        live.connect(sslmode="disable")
    expected = 'no pg_hba.conf entry for host "127.0.0.1", user "sandbox", database "sandbox", no encryption'
    assert expected in str(caught.value)


@pytest.mark.parametrize("binding", ["require", "disable"])
def test_a_wrong_password_is_refused(live: RunningSpace, binding: str) -> None:
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "sandbox"'):
        live.connect(password="wrong", channel_binding=binding)


def test_an_unknown_user_is_refused_by_the_server(live: RunningSpace) -> None:
    with pytest.raises(psycopg.OperationalError, match='password authentication failed for user "nobody"'):
        live.connect(user="nobody")


def test_the_user_that_is_handed_out_is_no_superuser(live: RunningSpace) -> None:
    with live.connect() as connection:
        assert connection.execute("select rolsuper from pg_roles where rolname = current_user").fetchone() == (False,)


def test_an_unknown_database_is_told_by_the_server(live: RunningSpace) -> None:
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        live.connect(dbname="nowhere")


def test_a_query_is_cancelled_over_tls(live: RunningSpace) -> None:
    mark = live.events.mark
    with live.connect() as connection:
        failure: list[Exception] = []

        def work() -> None:
            try:
                connection.execute("select pg_sleep(600)")
            except psycopg.Error as exc:
                failure.append(exc)

        worker = threading.Thread(target=work)
        worker.start()
        with live.connect() as watcher:
            query = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
            until(lambda: watcher.execute(query).fetchone() == (1,))
        connection.cancel_safe()
        worker.join()
        assert [type(exc) for exc in failure] == [psycopg.errors.QueryCanceled]
    live.events.wait_for(CancelForwarded, since=mark)


def test_much_data_both_ways(live: RunningSpace) -> None:
    with live.connect() as connection:
        connection.execute("create temporary table t (n int, body text)")
        with connection.cursor().copy("copy t from stdin") as copy:
            for number in range(20_000):
                copy.write_row((number, "x" * 500))
        row = connection.execute("select count(*), sum(n), sum(length(body)) from t").fetchone()
        assert row == (20_000, 199_990_000, 10_000_000)
        with connection.cursor().copy("copy t to stdout") as out:
            total = sum(len(block) for block in out)
        assert total == 10_000_000 + sum(len(str(number)) + 2 for number in range(20_000))


def test_many_clients_at_once(live: RunningSpace) -> None:
    connections = [live.connect() for _ in range(40)]
    assert [connection.execute("select %s", [n]).fetchone() for n, connection in enumerate(connections)] == [
        (n,) for n in range(40)
    ]
    for connection in connections:
        connection.close()


def test_a_session_that_the_server_ends(live: RunningSpace) -> None:
    with live.connect() as victim, live.connect() as killer:
        killer.execute("select pg_terminate_backend(%s)", [victim.info.backend_pid])
        with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
            victim.execute("select 1")


def test_a_client_that_dies_leaves_no_session(live: RunningSpace) -> None:
    code = (
        "import os, sys, psycopg; c = psycopg.connect(sys.argv[1]); print(c.info.backend_pid, flush=True); os._exit(1)"
    )
    conninfo = psycopg.conninfo.make_conninfo(**live.parameters(application_name="doomed"))
    done = subprocess.run([sys.executable, "-c", code, conninfo], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert int(done.stdout) > 0
    with live.connect() as watcher:
        query = "select count(*) from pg_stat_activity where pid = %s"
        until(lambda: watcher.execute(query, [int(done.stdout)]).fetchone() == (0,))
