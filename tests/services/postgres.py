"""A real PostgreSQL with TLS and client certificates, for one test or for the session.

A server lives in one folder of its own: a copy of the data template, the TLS files, the socket's folder and the log.
It listens on every loopback address and on a unix socket, all with the same port. `start` returns when it accepts;
`close` ends it and removes the folder; and if this process dies first, a guard does both.
"""

from __future__ import annotations

import enum
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.accounts import credentials, give, server_account
from tests.services.builds import PostgresBuild
from tests.services.errors import ServerError
from tests.services.pki import Pair, Pki
from tests.services.places import LOOPBACK_V4, free_port, loopbacks, make_scratch
from tests.services.processes import Guard, kill_with_children, remove_shared_memory
from tests.services.settings import ServerOptions, configuration
from tests.services.template import DATABASE, PASSWORDS, SUPERUSER, copy_data, data_template

# Seconds. A start takes well below one; a machine that is busy with everything else gets half a minute.
START_TIMEOUT = 30
STOP_TIMEOUT = 15
_PORT_ATTEMPTS = 10
_LOG_SHOWN = 6000


class Shutdown(enum.Enum):
    """How a server is told to stop (PostgreSQL docs, "Shutting Down the Server")."""

    SMART = signal.SIGTERM  # waits for its clients to leave
    FAST = signal.SIGINT  # ends each session with 57P01
    IMMEDIATE = signal.SIGQUIT  # ends each session with 57P02, and recovers at the next start


class PostgresServer:
    """One PostgreSQL. A context manager: started on entry, gone on exit."""

    def __init__(self, build: PostgresBuild, pki: Pki, options: ServerOptions | None = None) -> None:
        """Nothing happens before `start`."""
        self.build = build
        self.pki = pki
        self.options = options or ServerOptions()
        self.addresses = loopbacks()
        self._account = server_account()
        self._folder: Path | None = None
        self._port: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None

    def __repr__(self) -> str:
        return f"<PostgreSQL {self.major} on port {self._port}, {'running' if self.running else 'stopped'}>"

    @property
    def major(self) -> int:
        """The major version."""
        return self.build.major

    @property
    def port(self) -> int:
        """The port of every listener; the same after a restart."""
        if self._port is None:
            raise ServerError("the server was not started")
        return self._port

    @property
    def folder(self) -> Path:
        """The folder with all that is the server's own."""
        if self._folder is None:
            raise ServerError("the server was not started")
        return self._folder

    @property
    def sockets(self) -> Path:
        """The folder of the unix socket: libpq's ``host``. Only this user and the server's may enter."""
        return self.folder / "s"

    @property
    def running(self) -> bool:
        """Whether the postmaster is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    @property
    def guard_pid(self) -> int:
        """The process id of the guard that ends the server if we die."""
        if self._guard is None:
            raise ServerError("the server is not running")
        return self._guard.pid

    def log(self) -> str:
        """All that the server has logged."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def parameters(
        self,
        user: str = "scram",
        *,
        client: Pair | None = None,
        host: str = LOOPBACK_V4,
        database: str = DATABASE,
        sslmode: str = "verify-full",
        anonymous: bool = False,
    ) -> dict[str, str]:
        """libpq's parameters for a direct connection: what psycopg's `connect` and `tests.services.clients` take.

        `client` is the identity to present (default: `Pki.client`); `anonymous` presents none. The user's password
        is included. A copy is the caller's: ``{**server.parameters(), "port": "6432"}``.
        """
        pair = client or self.pki.client
        return {
            "host": host,
            "port": str(self.port),
            "dbname": database,
            "user": user,
            "password": PASSWORDS.get(user, ""),
            "sslmode": sslmode,
            "sslrootcert": str(self.pki.server_ca),
            "sslcert": str(self.pki.absent if anonymous else pair.cert),
            "sslkey": str(self.pki.absent if anonymous else pair.key),
        }

    def execute(self, statement: str, *, database: str = DATABASE) -> list[tuple[object, ...]]:
        """Run one statement as superuser over the unix socket, in autocommit, and return its rows (none: empty)."""
        import psycopg

        with psycopg.connect(
            host=str(self.sockets), port=self.port, user=SUPERUSER, dbname=database, autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        """Start and wait until it accepts. Raises `ServerError`, with the log, where it does not."""
        if self.running:
            raise ServerError("the server is running already")
        fresh = self._folder is None
        try:
            if fresh:
                self._make_folder()
            self._start_on_some_port()
        except BaseException:
            if fresh:
                self.close()
            raise

    def stop(self, how: Shutdown = Shutdown.FAST) -> None:
        """Stop and wait for the end. A server that has ended by itself is an error."""
        process = self._process
        if process is None:
            return
        ended_before = process.poll() is not None
        if not ended_before:
            process.send_signal(how.value)
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired as exc:
                self.kill()
                raise ServerError(self._with_log(f"PostgreSQL did not stop within {STOP_TIMEOUT} s")) from exc
        self._forget_process()
        if ended_before:
            raise ServerError(self._with_log(f"PostgreSQL had ended by itself, status {process.returncode}"))

    def kill(self) -> None:
        """SIGKILL the postmaster and every backend: the machine lost its power. It can be started again."""
        if self._process is None:
            return
        if self._process.poll() is None:
            segment = self._pid_file(7).split()
            kill_with_children(self._process)
            if segment:
                remove_shared_memory(segment[-1])
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        self._forget_process()

    def restart(self, how: Shutdown = Shutdown.FAST) -> None:
        """Stop and start again, on the same port."""
        self.stop(how)
        self.start()

    def close(self) -> None:
        """End it, whatever state it is in, and remove its folder."""
        try:
            self.stop(Shutdown.IMMEDIATE)
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder)
                self._folder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _make_folder(self) -> None:
        template = data_template(self.build, self._account)
        self._folder = make_scratch("mtlskit-pg-", self._account)
        copy_data(template, self._folder / "data", self._account)
        self.sockets.mkdir()
        tls = self._folder / "tls"
        tls.mkdir()
        certificate = self.options.certificate or self.pki.server
        shutil.copyfile(certificate.cert, tls / "server.crt")
        shutil.copyfile(certificate.key, tls / "server.key")
        (tls / "server.key").chmod(0o600)
        shutil.copyfile(self.options.client_ca or self.pki.client_ca, tls / "client-ca.crt")
        shutil.copyfile(self.pki.client_crl, tls / "client-ca.crl")
        give(tls, self._account)
        give(self.sockets, self._account)
        (self._folder / "data" / "pg_hba.conf").write_text("\n".join(self.options.hba) + "\n")
        (self._folder / "data" / "pg_ident.conf").write_text("\n".join(self.options.ident) + "\n")

    def _start_on_some_port(self) -> None:
        """The first start may choose anew where somebody was quicker; a restart has to have its old port."""
        if self._port is not None:
            if not self._start_on(self._port):
                raise ServerError(self._with_log(f"port {self._port} was taken while PostgreSQL was stopped"))
            return
        for _ in range(_PORT_ATTEMPTS):
            port = free_port()
            if self._start_on(port):
                self._port = port
                return
        raise ServerError(self._with_log(f"{_PORT_ATTEMPTS} free ports were taken before PostgreSQL had them"))

    def _start_on(self, port: int) -> bool:
        """Start on this port; False where another process has it on any address."""
        folder = self.folder
        (folder / "data" / "postgresql.conf").write_text(
            configuration(self.options, addresses=self.addresses, port=port, sockets=self.sockets, tls=folder / "tls")
        )
        with (folder / "server.log").open("ab") as log:
            before = log.tell()
            self._process = subprocess.Popen(
                [self.build.bin / "postgres", "-D", folder / "data"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we stop it
                **credentials(self._account),
            )
        self._guard = Guard(self._process.pid, folder)
        ready = self._wait_ready()
        if "could not bind" in self.log()[before:]:
            if ready:
                self.stop(Shutdown.IMMEDIATE)
            return False
        if not ready:
            raise ServerError(self._with_log("PostgreSQL did not start"))
        return True

    def _wait_ready(self) -> bool:
        """Whether it came to accept connections: it writes that into postmaster.pid, and can say it in no other way."""
        process = self._process
        deadline = time.monotonic() + START_TIMEOUT
        while process is not None and process.poll() is None:
            if self._pid_file(1) == str(process.pid) and self._pid_file(8) == "ready":
                return True
            if time.monotonic() > deadline:
                self.kill()
                return False
            time.sleep(0.01)
        self._forget_process()
        return False

    def _pid_file(self, line: int) -> str:
        try:
            lines = (self.folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[line - 1].strip() if len(lines) >= line else ""

    def _forget_process(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
        self._guard = None
        self._process = None

    def _with_log(self, sentence: str) -> str:
        return f"{sentence}\n--- end of its log\n{self.log()[-_LOG_SHOWN:]}"
