"""Much data: every byte arrives, in both directions, and nothing is slowed down to a halt.

The amounts are those of `times`: ten-fold with ``--long``.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tests.services.clients import conninfo, libpq_command
from tests.services.postgres import PostgresServer
from tests.support.backends import backend_of
from tests.support.proxy_process import ProxyProcess
from tests.support.raw_postgres import RawClient, query_message
from tests.support.until import until

MEGABYTE = 1 << 20
_LINE = 256
_BENCH_TIMEOUT = 300  # seconds; a safety net, nothing is measured by it


def lines(megabytes: int) -> Iterator[bytes]:
    """COPY's text format: numbered lines that no two are alike, in blocks of one MiB."""
    filler = hashlib.shake_256(b"mtlskit").hexdigest(_LINE).encode()
    for block in range(megabytes):
        numbers = range(block * (MEGABYTE // _LINE), (block + 1) * (MEGABYTE // _LINE))
        yield b"".join(b"%010d\t%s\n" % (n, filler[n % 256 :][: _LINE - 12]) for n in numbers)


def test_copy_in_both_directions(proxy: ProxyProcess, times: int) -> None:
    """200 MiB up and down again, equal to the byte."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    with psycopg.connect(conninfo(proxy.parameters()), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("create temp table copied (n bigint, filler text)")
        with cursor.copy("copy copied from stdin") as copy:
            for block in lines(200 * times):
                sent.update(block)
                copy.write(block)
        assert cursor.rowcount == 200 * times * MEGABYTE // _LINE
        count = 0
        with cursor.copy("copy (select to_char(n, 'FM0000000000'), filler from copied) to stdout") as copy:
            for part in copy:
                received.update(part)
                count += len(part)
    assert count == 200 * times * MEGABYTE
    assert received.hexdigest() == sent.hexdigest()


def test_one_large_value(proxy: ProxyProcess) -> None:
    """A parameter of 100 MB goes up in one message and comes down in one row."""
    value = hashlib.shake_256(b"large").digest(MEGABYTE) * 100
    with psycopg.connect(conninfo(proxy.parameters())) as connection:
        row = connection.execute("select %b::bytea, md5(%b::bytea)", (value, value), binary=True).fetchone()
    assert row is not None
    assert row[0] == value
    assert row[1] == hashlib.md5(value, usedforsecurity=False).hexdigest()


def test_a_reader_that_stops_stops_the_server(proxy: ProxyProcess, postgres: PostgresServer) -> None:
    """What a client does not take stays with the server, and does not pile up in the proxy."""
    before = proxy.memory()
    with RawClient.log_in(proxy.address, proxy.parameters("trustuser")) as client:
        client.until("Z")
        client.send(query_message("select pg_backend_pid(), repeat('x', 1000000) from generate_series(1, 200)"))
        pid = int(client.until("D")[-1].columns[0])
        until(lambda: waits_for(postgres, pid) == "ClientWrite", "the server waits for its client")
        assert proxy.memory() - before < 20 * MEGABYTE
        assert sum(message.kind == "D" for message in client.until("Z")) == 199


def waits_for(server: PostgresServer, pid: int) -> str:
    backend = backend_of(server, pid)
    assert backend is not None
    return backend.waits_for


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
def test_pgbench(bench: ProxyProcess, times: int, protocol: str) -> None:
    """Eight clients, reading and writing, and not one transaction fails."""
    rounds = 100 * times
    for script, transactions in (("select-only", 10 * rounds), ("tpcb-like", rounds)):
        done = libpq_command(
            "pgbench",
            bench.parameters(),
            "-n",
            "-b",
            script,
            "-M",
            protocol,
            "-c",
            "8",
            "-j",
            "2",
            "-t",
            str(transactions),
        ).run(timeout=_BENCH_TIMEOUT)
        assert (done.returncode, done.stderr.count("error")) == (0, 0), done.stderr
        assert f"number of transactions actually processed: {8 * transactions}/{8 * transactions}" in done.stdout
        assert "number of failed transactions: 0 (0.000%)" in done.stdout


@pytest.fixture(scope="module")
def bench(dumpable_proxy: ProxyProcess) -> ProxyProcess:
    """A proxy before a server with pgbench's tables, filled through the proxy."""
    done = libpq_command("pgbench", dumpable_proxy.parameters(), "-i", "-s", "2", "-q").run(timeout=_BENCH_TIMEOUT)
    assert done.returncode == 0, done.stderr
    return dumpable_proxy


def test_dump_and_restore(bench: ProxyProcess, dumpable_postgres: PostgresServer) -> None:
    """`pg_dump | pg_restore`, both through the tunnel; the copy is the original."""
    dumpable_postgres.execute("create database restored owner scram")
    dump = libpq_command("pg_dump", bench.parameters(), "--format=custom", "--compress=0")
    restore = libpq_command("pg_restore", bench.parameters(), "--dbname=restored", "--exit-on-error", "--no-owner")
    with (
        subprocess.Popen(dump.argv, env=dump.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as source,
        subprocess.Popen(restore.argv, env=restore.environment, stdin=source.stdout, stderr=subprocess.PIPE) as sink,
    ):
        assert source.stdout is not None
        source.stdout.close()  # the sink's now: were it to end, the source would notice
        _, said = sink.communicate(timeout=_BENCH_TIMEOUT)
        assert source.stderr is not None
        complaint = source.stderr.read()
    assert (source.returncode, sink.returncode, said, complaint) == (0, 0, b"", b"")
    for table in ("pgbench_accounts", "pgbench_branches", "pgbench_history", "pgbench_tellers"):
        checksum = f"select count(*), sum(hashtextextended({table}::text, 0)) from {table}"  # noqa: S608 - a constant
        assert dumpable_postgres.execute(checksum) == dumpable_postgres.execute(checksum, database="restored")
    [[accounts]] = dumpable_postgres.execute("select count(*) from pgbench_accounts", database="restored")
    assert accounts == 200_000
    dumpable_postgres.execute("drop database restored")
