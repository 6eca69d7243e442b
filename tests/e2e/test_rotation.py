"""Rotation beside traffic: certificates are replaced again and again, and nobody who works notices.

Fifty sessions are busy: pgbench with connections that stay and with one for each transaction, psycopg whose answers are
checked, and echoes through a TCP tunnel whose every byte is. Meanwhile `mtlskit certs rotate` runs in a row, 10 times,
or 100 with ``--long``.
"""

from __future__ import annotations

import hashlib
import os
import random
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.services.clients import conninfo, libpq_command
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions
from tests.support.own_ca import OwnCa, mtlskit
from tests.support.proxy_process import MakePostgres, ProxyProcess
from tests.support.tls_servers import echoing, listening

BENCHES, QUERIES, ECHOES = 30, 10, 10
MEMORY_ALLOWANCE = 6 * 1024 * 1024
"""Bytes. An SSLContext with its certificates takes some 100 KiB: a hundred that were kept would take 10 MiB."""


class World:
    """One CA of our own, a PostgreSQL and an echo server that trust it, and a proxy before both."""

    def __init__(self, ca: OwnCa, server: PostgresServer, proxy: ProxyProcess) -> None:
        self.ca = ca
        self.server = server
        self.proxy = proxy

    def parameters(self, user: str = "scram", **changes: str) -> dict[str, str]:
        return self.proxy.parameters(user, tunnel="reporting", **changes)

    def serial_in_use(self) -> str:
        """Of a new session, as the server sees it."""
        with psycopg.connect(conninfo(self.parameters()), autocommit=True) as connection:
            row = connection.execute("select client_serial from pg_stat_ssl where pid = pg_backend_pid()").fetchone()
        assert row is not None
        return f"{int(str(row[0])):x}"


@pytest.fixture
def world(make_postgres: MakePostgres, pki: Pki, tmp_path: Path) -> Iterator[World]:
    folder = tmp_path / "world"
    folder.mkdir()
    ca = OwnCa.make(folder, identity=["revoke_old = true"])
    server = make_postgres(ServerOptions(client_ca=ca.cert))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ca.cert))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pki.server.cert, pki.server.key)
    with ExitStack() as stack:
        echo = stack.enter_context(listening(echoing(context)))
        with (folder / "mtlskit.toml").open("a") as file:
            for name, kind, port in (("reporting", "postgres", server.port), ("echo", "tcp", echo)):
                file.write(
                    f'[tunnel.{name}]\nkind = "{kind}"\nlisten = "127.0.0.1:0"\nupstream = "localhost:{port}"\n'
                    f'identity = "reporting"\nca = "{pki.server_ca}"\n'
                )
        mtlskit("certs", "issue", "reporting", cwd=folder)
        proxy = ProxyProcess(["--config", "mtlskit.toml"], folder=folder, environment=dict(os.environ))
        yield World(ca, server, stack.enter_context(proxy))


def test_a_rotation_reaches_new_sessions_and_leaves_old_ones_alone(world: World) -> None:
    before = world.serial_in_use()
    with psycopg.connect(conninfo(world.parameters()), autocommit=True) as old:
        outcome = world.ca.rotate()
        assert outcome["result"] == "rotated"
        assert outcome["old_serial"] == before
        assert world.serial_in_use() == outcome["serial"] != before
        assert old.execute("select 1").fetchone() == (1,)
        # The old session still uses the old certificate, so that one is not revoked yet.
        assert any("not revoked yet" in note for note in outcome["notes"])
        assert before not in revoked(world)
    world.ca.rotate("--wait")
    assert before in revoked(world)


def test_a_certificate_that_the_server_refuses_is_not_used(world: World) -> None:
    before = world.serial_in_use()
    toml = world.ca.folder / "mtlskit.toml"
    mtlskit("ca", "init", "--dir", "other", "--subject", "CN=another ca", cwd=world.ca.folder)
    toml.write_text(toml.read_text().replace('ca_dir = "ca"', 'ca_dir = "other"'))
    outcome = world.ca.rotate(status=1)
    assert outcome["error"]["code"] == "MTLS-ROT-008"
    assert "MTLS-TLS-010" in outcome["error"]["reason"]
    assert world.serial_in_use() == before
    # Tried again with the same certificate, and given up for a fresh one.
    assert world.ca.rotate(status=1)["rotation"] == outcome["rotation"]
    toml.write_text(toml.read_text().replace('ca_dir = "other"', 'ca_dir = "ca"'))
    assert world.ca.rotate("--fresh")["serial"] == world.serial_in_use()


def test_nobody_notices_a_hundred_rotations(world: World, times: int, tmp_path: Path) -> None:
    proxy = world.proxy
    quiet = len(proxy.descriptors())
    with busy(world, tmp_path) as load:
        world.ca.rotate()
        world.ca.rotate()
        memory = proxy.memory()
        serials = [world.ca.rotate()["serial"] for _ in range(10 * times - 2)]
        assert len(set(serials)) == len(serials)
        grown = proxy.memory() - memory
    assert load.failures == []
    assert load.rounds > len(serials)
    assert world.serial_in_use() == serials[-1]
    assert not proxy.events("session_failed", "session_broken", "session_crashed", "session_cut", "identity_kept")
    assert grown < MEMORY_ALLOWANCE
    assert len(proxy.descriptors()) <= quiet


def revoked(world: World) -> str:
    """The serials on the CA's list, as openssl tells them, in lower case."""
    said = subprocess.run(
        ["openssl", "crl", "-in", world.ca.folder / "ca" / "ca.crl", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    )
    return said.stdout.lower()


class Load:
    """What the busy sessions have to tell."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failures: list[str] = []
        self.rounds = 0

    def keep(self, work: Callable[[], None]) -> threading.Thread:
        """A thread that repeats `work` until the end, or its first failure."""

        def run() -> None:
            try:
                while not self.stop.is_set():
                    work()
                    self.rounds += 1
            except Exception as exc:  # noqa: BLE001 - whatever it is, it is what the test is about
                self.failures.append(repr(exc))

        thread = threading.Thread(target=run)
        thread.start()
        return thread


@contextmanager
def busy(world: World, folder: Path) -> Iterator[Load]:
    """Fifty sessions at work until the block ends."""
    load = Load()
    with ExitStack() as stack:
        benches = [
            stack.enter_context(bench(world, folder / f"{name}.log", *options))
            for name, options in (("staying", ("-c", "25")), ("coming", ("-c", "5", "-C")))
        ]
        threads = [load.keep(query) for query in (querying(world, stack) for _ in range(QUERIES))]
        threads += [load.keep(echo) for echo in (echo_through(world, stack, seed) for seed in range(ECHOES))]
        try:
            yield load
        finally:
            load.stop.set()
            for thread in threads:
                thread.join()
            load.failures += [told for each in benches if (told := each())]


def querying(world: World, stack: ExitStack) -> Callable[[], None]:
    connection = stack.enter_context(psycopg.connect(conninfo(world.parameters()), autocommit=True))

    def query() -> None:
        text = os.urandom(2000).hex()
        assert connection.execute("select md5(%s)", [text]).fetchone() == (
            hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
        )

    return query


def echo_through(world: World, stack: ExitStack, seed: int) -> Callable[[], None]:
    sock = stack.enter_context(socket.create_connection(world.proxy.address_of("echo"), timeout=60))
    source = random.Random(seed)  # noqa: S311 - the same bytes in every run

    def echo() -> None:
        data = source.randbytes(source.randrange(1, 40_000))
        sock.sendall(data)
        back = bytearray()
        while len(back) < len(data):
            chunk = sock.recv(65536)
            assert chunk, "the echo was cut off"
            back += chunk
        assert back == data

    return echo


@contextmanager
def bench(world: World, log: Path, *options: str) -> Iterator[Callable[[], str]]:
    """pgbench until the block ends. What is handed over ends it and says what it complained of."""
    script = log.with_suffix(".sql")
    script.write_text("select count(*) from generate_series(1, 100);\n")
    command = libpq_command("pgbench", world.parameters("trustuser"), "-n", "-T", "600", "-f", str(script), *options)
    with log.open("w") as file:
        process = subprocess.Popen(
            command.argv, env=command.environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )

        def complaint() -> str:
            if process.poll() is None:
                process.terminate()
                process.wait()
                said = log.read_text()
                return said if "error" in said or "aborted" in said else ""
            return f"pgbench ended by itself: {log.read_text()}"

        try:
            yield complaint
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
