"""A PostgreSQL server of the sandbox's own: made, started, watched and stopped; it never outlives us.

Theory of operation
-------------------
The server listens on a unix socket only. `initdb` makes its files in a folder beside the final one, which takes the
final name when it is complete, so an interrupted first start leaves nothing that a second one would trip over. The
database and its user are made in single-user mode, from SQL on standard input that carries a SCRAM verifier in place
of a password: no password is ever in an argument list, an environment or a log.

`postgres` runs as our child in the foreground. Three things see to its end:

- **We are cancelled**: SIGINT (fast shutdown), after a deadline SIGQUIT (immediate), after another SIGKILL.
- **We are killed**: on Linux the kernel sends the server SIGQUIT when the *thread* that forked it ends
  (`PR_SET_PDEATHSIG`). That thread must therefore be the one that runs trio, and not a worker, which trio lets go
  after some idle seconds. The setting does not survive a change of user, so it is made after that change, in the
  child.
- **It ends by itself**: the server and all its children hold the write end of a pipe that nobody writes to. The read
  end becomes readable when the last of them is gone, which is also how we know that nothing is left.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox.events import PostgresStarted, PostgresStopped
from mtlskit.sandbox.software import OrdinaryUser, find_software, ordinary_user, place_software
from mtlskit.telemetry import Emit, silent
from mtlskit.wire.postgres.scram import ScramKeys

__all__ = ["SUPERUSER", "PostgresAccount", "PostgresServer", "run_postgres"]

SUPERUSER: Final = "postgres"
PORT: Final = 5432
"""Only part of the socket's name here."""

_MAX_SOCKET_PATH: Final = 103
"""Bytes, NUL excluded: Linux has 107 in sockaddr_un, macOS 103."""
_INITDB_DEADLINE: Final = 60.0
_START_DEADLINE: Final = 30.0
_FAST_SHUTDOWN: Final = 5.0
_IMMEDIATE_SHUTDOWN: Final = 5.0  # PostgreSQL itself kills its children after five seconds of it
_PREDECESSOR: Final = 5.0
_POLL: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1

_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "300",
    "password_encryption": "scram-sha-256",
    # Who creates a role may also give it a database (CREATE DATABASE … OWNER), which PostgreSQL 16 keeps apart.
    "createrole_self_grant": "set, inherit",
    # The data are worth nothing beyond the sandbox: speed before safety against a power failure.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


@dataclass(frozen=True)
class PostgresAccount:
    """The database and the user that the sandbox hands out. `user` and `database` are plain lower-case names."""

    user: str
    password: str = field(repr=False)
    database: str
    anew: bool = False
    """The user may have another password in data that are taken up again: it is given this one."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server."""

    socket_folder: Path
    port: int
    software_bin: Path
    version: str
    process_id: int

    @property
    def socket_path(self) -> Path:
        """The unix socket itself."""
        return self.socket_folder / f".s.PGSQL.{self.port}"


async def run_postgres(
    home: Path,
    account: PostgresAccount,
    *,
    log: Path,
    emit: Emit = silent,
    task_status: trio.TaskStatus[PostgresServer] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a server whose files are in `home` until cancelled; made on the first start, taken up again later.

    `home` must exist, be private (0700), and belong to the user who runs the server (`ordinary_user`, or ourselves);
    its parent must be ours alone to write to.
    Call it from the thread that runs trio. Raises SandboxError: the wheel is missing, the server cannot be made or
    started, or it ended by itself.
    """
    if sys.platform == "win32":
        raise SandboxError(
            Code.SANDBOX_POSTGRES,
            "the sandbox's own PostgreSQL needs unix sockets, which it does not have on Windows",
            "bring your own server: mtlskit sandbox --postgres URL",
        )
    user = ordinary_user()
    # Beside `home` and not in it: what root writes by name into a folder of that user may be led elsewhere by a link.
    software = await trio.to_thread.run_sync(place_software, find_software(), user, home.parent)
    programs = _Programs(software.bin, user, home, log)
    await trio.to_thread.run_sync(programs.clear_log)
    await _make(programs, account)
    with _socket_folder(home, user) as socket_folder:
        await _until_predecessor_is_gone(programs)
        if account.anew:
            await _give_password(programs, account)
        options = {"unix_socket_directories": f'"{socket_folder}"', **_SETTINGS}
        process = programs.start("postgres", "-D", str(programs.data), *_as_options(options))
        try:
            await _until_ready(process, programs)
            server = PostgresServer(socket_folder, PORT, software.bin, software.version, process.popen.pid)
            emit(PostgresStarted(process_id=process.popen.pid, socket=str(server.socket_path)))
            task_status.started(server)
            await process.ended()
            raise programs.failure(f"PostgreSQL ended by itself with status {process.popen.wait()}")
        finally:
            with trio.CancelScope(shield=True):
                await _stop(process)
            emit(PostgresStopped(process_id=process.popen.pid))


@dataclass(frozen=True)
class _Process:
    """A server process, and the read end of the pipe that ends with the last process of the server."""

    popen: subprocess.Popen[bytes]
    pipe: int

    async def ended(self) -> None:
        await trio.lowlevel.wait_readable(self.pipe)

    def close(self) -> None:
        os.close(self.pipe)


@dataclass(frozen=True)
class _Programs:
    """How PostgreSQL's programs are run: from where, as whom, and where their output goes."""

    bin: Path
    user: OrdinaryUser | None
    home: Path
    log: Path

    @property
    def data(self) -> Path:
        return self.home / "data"

    def clear_log(self) -> None:
        """Begins the log anew: what it holds after a failure belongs to that failure."""
        self.log.unlink(missing_ok=True)
        self.log.touch(mode=0o600)

    async def run(self, program: str, *arguments: str, stdin: bytes = b"") -> None:
        """Runs a program to its end. Raises SandboxError when it fails or takes too long."""
        with trio.move_on_after(_INITDB_DEADLINE), self.log.open("ab") as log:
            command = [str(self.bin / program), *arguments]
            try:
                done = await trio.run_process(command, stdin=stdin, stdout=log, stderr=log, check=False, **self._how())
            except OSError as exc:
                raise self.failure(f"{command[0]} cannot be started: {exc.strerror or exc}") from exc
            if done.returncode != 0:
                raise self.failure(f"{program} failed with status {done.returncode}")
            return
        raise self.failure(f"{program} did not end within {_INITDB_DEADLINE:.0f} s")

    async def run_sql(self, data: Path, *statements: str) -> None:
        """Runs statements in single-user mode on files that no server uses. Raises SandboxError."""
        await self.run(
            *("postgres", "--single", "-j", "-D", str(data), *_as_options({"exit_on_error": "on", "fsync": "off"})),
            "postgres",
            stdin="".join(f"{statement};\n\n" for statement in statements).encode(),
        )

    def start(self, program: str, *arguments: str) -> _Process:
        """Starts a long-running program, from this very thread (see the top of the module)."""
        reading, writing = os.pipe()
        try:
            with self.log.open("ab") as log:
                popen = subprocess.Popen(  # noqa: S603 - a list, no shell, and our own program
                    [str(self.bin / program), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[writing],
                    preexec_fn=_die_with_parent(signal.SIGQUIT),
                    **self._how(),
                )
        except OSError as exc:
            os.close(reading)
            raise self.failure(f"{self.bin / program} cannot be started: {exc.strerror or exc}") from exc
        finally:
            os.close(writing)
        return _Process(popen, reading)

    def _how(self) -> dict[str, Any]:
        how: dict[str, Any] = {
            "cwd": self.home,
            "env": {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},  # none of the caller's PG… variables
            "umask": 0o077,
            "start_new_session": True,  # Ctrl-C in our terminal is for us: we stop the server in our own order
        }
        if self.user is not None:
            how |= {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}
        return how

    def failure(self, sentence: str) -> SandboxError:
        """An error that shows the end of the log."""
        lines = _lines(self.log)
        told = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line]
        reason = (told or lines or ["it said nothing"])[-1].strip()
        tail = "\n".join(f"  {line}" for line in lines[-8:])
        return SandboxError(Code.SANDBOX_POSTGRES, f"{sentence}: {reason}", f"the end of {self.log}:\n{tail}")


async def _make(programs: _Programs, account: PostgresAccount) -> None:
    """Makes the server's files, the database and its user, unless they are there."""
    if programs.data.exists():
        return
    partial = programs.home / "data.partial"
    await trio.to_thread.run_sync(lambda: shutil.rmtree(partial, ignore_errors=True))
    with _password_file(programs) as password_file:
        await programs.run(
            *("initdb", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"),
            *(f"--username={SUPERUSER}", f"--pwfile={password_file}", f"--pgdata={partial}"),
        )
    verifier = ScramKeys.derive(account.password).verifier()
    await programs.run_sql(
        partial,
        # To be played with like a database of one's own, in which there are other users and databases.
        f"CREATE ROLE {account.user} LOGIN CREATEDB CREATEROLE PASSWORD '{verifier}'",
        f"CREATE DATABASE {account.database} OWNER {account.user}",
    )
    partial.rename(programs.data)


async def _give_password(programs: _Programs, account: PostgresAccount) -> None:
    verifier = ScramKeys.derive(account.password).verifier()
    await programs.run_sql(programs.data, f"ALTER ROLE {account.user} PASSWORD '{verifier}'")


@contextmanager
def _password_file(programs: _Programs) -> Iterator[Path]:
    """The superuser's password, for initdb's eyes. It is random and thrown away: nobody logs in as superuser."""
    path = programs.home / "initdb-password"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(secrets.token_hex(32))
            if programs.user is not None:
                os.fchown(file.fileno(), programs.user.uid, programs.user.gid)
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _socket_folder(home: Path, user: OrdinaryUser | None) -> Iterator[Path]:
    """`home/run`, or where that would be too long for a socket's address (or odd), a short-lived folder elsewhere."""
    folder = home / "run"
    name = str(folder)
    if len(os.fsencode(folder / f".s.PGSQL.{PORT}")) <= _MAX_SOCKET_PATH and not set(name) & set('",\\'):
        shutil.rmtree(folder, ignore_errors=True)
        temporary = False
        folder.mkdir(mode=0o700)
    else:
        temporary = True
        folder = Path(tempfile.mkdtemp(prefix="mtlskit-", dir=_short_parent()))
    try:
        if user is not None:
            _give_folder(folder, user)
        yield folder
    finally:
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)


def _give_folder(folder: Path, user: OrdinaryUser) -> None:
    """Give away the folder itself, never what a link in its place points to: the name may be that user's to change."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(descriptor, user.uid, user.gid)
    finally:
        os.close(descriptor)


def _short_parent() -> str | None:
    return "/tmp" if Path("/tmp").is_dir() else None  # noqa: S108 - the folder in it is made by mkdtemp, mode 0700


async def _until_predecessor_is_gone(programs: _Programs) -> None:
    """Waits a little for the server of a sandbox that was killed a moment ago: it is on its way out.

    If it stays, our own server will say that the folder is in use, and that ends in the log and in the error.
    """
    pid_file = programs.data / "postmaster.pid"
    with trio.move_on_after(_PREDECESSOR):
        while True:
            lines = _lines(pid_file)
            if not lines or not lines[0].isdigit() or not _is_alive(int(lines[0])):
                return
            await trio.sleep(_POLL)


def _lines(path: Path) -> list[str]:
    """The lines of a file that its owner may remove at any moment."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return []


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it lives, and is somebody else's
        return True
    return True


async def _until_ready(process: _Process, programs: _Programs) -> None:
    """Waits for the line `ready` that the server writes into its postmaster.pid, as pg_ctl does."""
    pid_file = programs.data / "postmaster.pid"
    with trio.move_on_after(_START_DEADLINE):
        while process.popen.poll() is None:
            lines = _lines(pid_file)
            # Line 1 is the process id, line 8 the status; a file left by another process is not ours to read.
            if len(lines) >= 8 and lines[0] == str(process.popen.pid) and lines[7].strip() == "ready":
                return
            await trio.sleep(_POLL)
        raise programs.failure("PostgreSQL did not start")
    raise programs.failure(f"PostgreSQL was not ready within {_START_DEADLINE:.0f} s")


async def _stop(process: _Process) -> None:
    """Ends the server and everything it started; returns when all of it is gone."""
    try:
        for number, patience in ((signal.SIGINT, _FAST_SHUTDOWN), (signal.SIGQUIT, _IMMEDIATE_SHUTDOWN)):
            if process.popen.poll() is None:
                process.popen.send_signal(number)
            with trio.move_on_after(patience):
                await process.ended()
                break
        if process.popen.poll() is None:
            process.popen.kill()
            with trio.move_on_after(_IMMEDIATE_SHUTDOWN):  # its children notice the death of their parent
                await process.ended()
        await trio.to_thread.run_sync(process.popen.wait)
    finally:
        process.close()


def _as_options(settings: dict[str, str]) -> Sequence[str]:
    return [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]


def _die_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """What the child does between fork and exec: ask the kernel for `number` when its parent is gone. Linux only.

    Everything is looked up before the fork: in the child of a threaded program only calls that take no lock are safe.
    """
    if sys.platform != "linux":
        return None
    prctl, getppid, leave, parent = ctypes.CDLL(None).prctl, os.getppid, os._exit, os.getpid()
    signal_number = int(number)

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if getppid() != parent:  # it died before we asked
            leave(1)

    return ask
