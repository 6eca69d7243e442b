"""`expiring_sessions = "drain"` before a real PostgreSQL: who is ended, who is not, and that nobody's work is lost.

The certificates end in minutes, and the proxy lets a session rest for two seconds before it ends it: these tests take
some seconds each because time is what they are about, and none measures any.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from cryptography import x509
from psycopg import pq

from tests.services.clients import conninfo, libpq_command
from tests.services.pki import Pair
from tests.services.postgres import PostgresServer
from tests.support.backends import backend_of
from tests.support.proxy_process import MakeProxy, ProxyProcess, tunnel_toml
from tests.support.until import until

Connection = psycopg.Connection[tuple[object, ...]]

SERIAL = "select client_serial from pg_stat_ssl where pid = pg_backend_pid()"


def serial_of(pair: Pair) -> int:
    return x509.load_pem_x509_certificates(pair.cert.read_bytes())[0].serial_number


class Draining:
    """A proxy whose tunnel drains, with the identity that it reads."""

    def __init__(self, make_proxy: MakeProxy, postgres: PostgresServer, folder: Path) -> None:
        self._folder = folder
        self._pki = postgres.pki
        self._paths = Pair(folder / "identity.crt", folder / "identity.key")
        self._copy(self._pki.client)
        files = {"cert": f'"{self._paths.cert}"', "key": f'"{self._paths.key}"'}
        self.proxy: ProxyProcess = make_proxy(toml=tunnel_toml(postgres, expiring_sessions='"drain"', **files))
        self.old = self._pki.client

    def use_one_that_ends_in(self, left: timedelta) -> None:
        """New sessions use a certificate that ends soon."""
        self.old = self._pki.ending_client(self._folder, datetime.now(UTC) + left)
        self._install(self.old)

    def renew(self) -> None:
        """New sessions use one that lives long; those of the other will be drained."""
        mark = self.proxy.mark
        self._install(self._pki.client)
        self.proxy.wait_for("sessions_expiring", since=mark, serial=f"{serial_of(self.old):x}")

    def _install(self, pair: Pair) -> None:
        mark = self.proxy.mark
        self._copy(pair)
        self.proxy.reload()
        self.proxy.wait_for("identity_loaded", since=mark, serial=f"{serial_of(pair):x}")

    def _copy(self, pair: Pair) -> None:
        shutil.copyfile(pair.cert, self._paths.cert)
        shutil.copyfile(pair.key, self._paths.key)
        self._paths.key.chmod(0o600)

    def connect(self, *, autocommit: bool = True) -> Connection:
        return psycopg.connect(conninfo(self.proxy.parameters()), autocommit=autocommit)

    def ended(self, count: int) -> list[dict[str, Any]]:
        """The sessions that were ended, once there are so many."""
        ended = self.proxy.events("session_expired")
        return ended if len(ended) >= count else []


@pytest.fixture
def draining(make_proxy: MakeProxy, postgres: PostgresServer, tmp_path: Path) -> Draining:
    return Draining(make_proxy, postgres, tmp_path)


@pytest.fixture
def table(postgres: PostgresServer) -> None:
    """The table `drained`, empty."""
    postgres.execute(
        "drop table if exists drained; create table drained (who text, n bigint); grant all on drained to public"
    )


def number(connection: Connection, sql: LiteralString) -> int:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return int(str(row[0]))


def told_to_reconnect(connection: Connection) -> None:
    """The next query is answered by the farewell that was waiting."""
    with pytest.raises(psycopg.errors.AdminShutdown) as caught:
        connection.execute("select 1")
    assert caught.value.sqlstate == "57P01"
    assert "client certificate" in str(caught.value)
    assert "connect again" in (caught.value.diag.message_hint or "")


def test_an_idle_session_is_ended_and_the_next_one_uses_the_new_certificate(
    draining: Draining, postgres: PostgresServer
) -> None:
    draining.use_one_that_ends_in(timedelta(minutes=4))
    with draining.connect() as idle:
        assert number(idle, SERIAL) == serial_of(draining.old)
        backend = number(idle, "select pg_backend_pid()")
        draining.proxy.wait_for("sessions_kept")
        draining.renew()
        until(lambda: backend_of(postgres, backend) is None, "the backend is gone")
        told_to_reconnect(idle)
    (ended,) = until(lambda: draining.ended(1), "it is told")
    assert (ended["user"], int(ended["serial"], 16)) == ("scram", serial_of(draining.old))
    with draining.connect() as again:
        assert number(again, SERIAL) != serial_of(draining.old)
    assert "unexpected EOF" not in "".join(line for line in postgres.log().splitlines() if f"[{backend}]" in line)


def _transaction(connection: Connection) -> Callable[[], None]:
    connection.execute("begin")
    connection.execute("insert into drained values ('transaction', 1)")

    def end() -> None:
        connection.execute("insert into drained values ('transaction', 2)")
        connection.execute("commit")

    return end


def _failed_transaction(connection: Connection) -> Callable[[], None]:
    connection.execute("begin")
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("select 1/0")

    def end() -> None:
        connection.execute("rollback")
        connection.execute("insert into drained values ('failed transaction', 3)")

    return end


def _copy(connection: Connection) -> Callable[[], None]:
    stack = ExitStack()
    copy = stack.enter_context(connection.cursor().copy("copy drained from stdin"))
    copy.write_row(("copy", 1))

    def end() -> None:
        copy.write_row(("copy", 2))
        stack.close()

    return end


def _copy_by_the_extended_protocol(connection: Connection) -> Callable[[], None]:
    raw = connection.pgconn
    assert raw.exec_params(b"copy drained from stdin", None).status == pq.ExecStatus.COPY_IN
    raw.put_copy_data(b"extended copy\t1\n")
    raw.flush()

    def end() -> None:
        raw.put_copy_data(b"extended copy\t2\n")
        raw.put_copy_end()
        while raw.flush():
            pass
        while result := raw.get_result():
            assert result.status == pq.ExecStatus.COMMAND_OK

    return end


def _pipeline(connection: Connection) -> Callable[[], None]:
    stack = ExitStack()
    pipeline = stack.enter_context(connection.pipeline())
    connection.execute("insert into drained values ('pipeline', 1)")
    pipeline.sync()
    connection.execute("insert into drained values ('pipeline', 2)")
    connection.pgconn.send_flush_request()
    while connection.pgconn.flush():
        pass
    return stack.close


def _query(connection: Connection) -> Callable[[], None]:
    failures: list[Exception] = []

    def slow() -> None:
        try:
            connection.execute("insert into drained select 'query', 3 from pg_sleep(4)")
        except psycopg.Error as exc:
            failures.append(exc)

    thread = threading.Thread(target=slow)
    thread.start()

    def end() -> None:
        thread.join()
        assert not failures

    return end


BUSY = [_transaction, _failed_transaction, _copy, _copy_by_the_extended_protocol, _pipeline, _query]


def test_who_is_busy_ends_in_peace_and_then_the_session_ends(
    draining: Draining, postgres: PostgresServer, table: None
) -> None:
    """Each kind has a session; an idle one shows that the draining goes on meanwhile."""
    draining.use_one_that_ends_in(timedelta(minutes=4))
    with draining.connect() as idle:
        connections = [draining.connect() for _ in BUSY]
        ends = [make(connection) for make, connection in zip(BUSY, connections, strict=True)]
        draining.renew()
        until(lambda: draining.ended(1), "the idle one has been ended")
        told_to_reconnect(idle)
        assert len(draining.ended(1)) == 1
        for end in ends:
            end()
    assert len(until(lambda: draining.ended(len(BUSY) + 1), "all have been ended")) == len(BUSY) + 1
    for connection in connections:
        told_to_reconnect(connection)
        connection.close()
    kinds = {str(who): str(total) for who, total in postgres.execute("select who, sum(n) from drained group by who")}
    assert kinds == dict.fromkeys(
        ["transaction", "failed transaction", "copy", "extended copy", "pipeline", "query"], "3"
    )


def test_pgbench_that_never_rests_is_not_disturbed_while_others_are_drained(draining: Draining) -> None:
    draining.use_one_that_ends_in(timedelta(minutes=4))
    connections = [draining.connect() for _ in range(2)]
    script = draining.proxy.folder / "ones.sql"
    script.write_text("select 1;\nbegin;\nselect 2;\ncommit;\n")
    done: list[Any] = []
    command = libpq_command(
        "pgbench", draining.proxy.parameters("trustuser"), "-n", "-c", "4", "-T", "8", "-f", str(script)
    )
    bench = threading.Thread(target=lambda: done.append(command.run()))
    bench.start()
    until(lambda: len(draining.proxy.events("session_opened")) >= 6, "pgbench is there")
    draining.renew()
    until(lambda: draining.ended(2), "the idle ones have been ended")
    assert bench.is_alive()
    bench.join()
    assert done[0].returncode == 0, done[0].stderr
    assert "number of failed transactions: 0 " in done[0].stdout
    for connection in connections:
        told_to_reconnect(connection)
        connection.close()


def test_one_that_never_rests_is_ended_between_two_queries_and_nothing_is_lost_or_done_twice(
    draining: Draining, postgres: PostgresServer, table: None
) -> None:
    draining.use_one_that_ends_in(timedelta(seconds=12))
    with draining.connect() as busy:
        busy.execute("select 1")
        draining.renew()
        done = 0
        try:
            while True:
                busy.execute("insert into drained values ('busy', %s)", (done,))
                done += 1
        except psycopg.errors.AdminShutdown as exc:
            assert "connect again" in (exc.diag.message_hint or "")  # noqa: PT017 - which of them meets it is not known
    assert done > 10
    ((count, different),) = postgres.execute("select count(*), count(distinct n) from drained")
    assert (count, different) == (done, done)
    assert until(lambda: draining.ended(1), "it is told")
