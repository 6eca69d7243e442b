"""The lock between processes: one holder at a time, and free as soon as that one has ended."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mtlskit.errors import Code, StoreError
from mtlskit.store.lock import FileLock, held

_HOLD = """
import sys
from pathlib import Path
from mtlskit.store.lock import FileLock
lock = FileLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        try:
            yield process
        finally:
            process.kill()


def test_taken_and_given_back(path: Path) -> None:
    one, other = FileLock(path), FileLock(path)
    assert one.acquire()
    assert not other.acquire()
    assert other.holder() == f"process {os.getpid()}"
    one.release()
    assert other.acquire()
    assert not one.acquire()
    other.release()
    other.release()  # twice is no error
    assert path.exists()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_another_process_has_it_until_it_is_killed(path: Path) -> None:
    with holder(path) as process:
        lock = FileLock(path)
        assert not lock.acquire()
        assert lock.holder() == f"process {process.pid}"
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lock.acquire()
        assert lock.holder() == f"process {os.getpid()}"
        lock.release()


def test_who_waits_too_long_is_told_who_has_it(path: Path) -> None:
    with (
        holder(path) as process,
        pytest.raises(StoreError, match=f"process {process.pid} is working") as caught,
        held(path, wait=0.1),
    ):
        raise AssertionError("it was free")
    assert caught.value.code is Code.STORE_BUSY


def test_who_waits_gets_it(path: Path) -> None:
    with holder(path) as process:
        assert not FileLock(path).acquire()
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself, at some time
        with held(path, wait=60):
            assert FileLock(path).holder() == f"process {os.getpid()}"


def test_given_back_when_the_block_fails(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(path, wait=0):
        raise ZeroDivisionError
    with held(path, wait=0):
        assert not FileLock(path).acquire()


def test_a_program_that_the_holder_starts_does_not_keep_it(path: Path) -> None:
    with held(path, wait=0):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert child.poll() is None
        with held(path, wait=0):
            pass


def test_a_full_disk_is_no_reason_not_to_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", refuse)
    lock = FileLock(path)
    assert lock.acquire()
    assert lock.holder() == "another process"
    lock.release()


def test_where_there_can_be_none(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "lock"
    with pytest.raises(StoreError, match=str(path)) as caught:
        FileLock(path).acquire()
    assert caught.value.code is Code.STORE_UNUSABLE


def test_a_system_that_refuses_locks_keeps_no_descriptor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StoreError, match=str(path)) as caught:
        FileLock(path).acquire()
    assert caught.value.code is Code.STORE_UNUSABLE
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=str(path)):
        FileLock(path).acquire()
    assert not (tmp_path / "elsewhere").exists()
