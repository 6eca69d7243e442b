"""A lock between processes that no process outlives: the kernel gives it back when its holder ends, however it ends.

The file stays where it is. Removing it would let two processes hold two locks of one name. What stands in it (the
holder's process id) is for people; the lock is the kernel's.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mtlskit.errors import Code, StoreError

__all__ = ["FileLock", "held"]

_TAKEN = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})
_PAUSE = 0.05  # seconds between two tries; nobody waits for a rotation at a terminal and notices


class FileLock:
    """An exclusive lock on a file of its own, between processes and between two of these in one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock, if nobody has it. Raises `StoreError` (STORE_UNUSABLE) where there can be none."""
        try:
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            descriptor = os.open(self.path, flags, 0o600)
            taken = False
            try:
                taken = _try_lock(descriptor)
            finally:
                if not taken:
                    os.close(descriptor)
            if not taken:
                return False
        except OSError as exc:
            raise StoreError(
                Code.STORE_UNUSABLE,
                f"{self.path}: cannot be locked: {exc.strerror or exc}",
                f"check that its folder is there and yours to write to; see `ls -ld {self.path.parent}`",
            ) from exc
        self._descriptor = descriptor
        with suppress(OSError):  # a full disk
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> str:
        """Who seems to have it, for a sentence."""
        with suppress(OSError, ValueError):
            return f"process {int(self.path.read_bytes()[:20])}"
        return "another process"

    def busy(self, waited: float) -> StoreError:
        """What to raise when it was not to be had in `waited` seconds."""
        return StoreError(
            Code.STORE_BUSY,
            f"{self.path.parent}: {self.holder()} is working on it, and was not done within {waited:g} s",
            "wait for it, or see what it is doing; nothing needs to be removed by hand",
        )


@contextmanager
def held(path: Path, *, wait: float) -> Iterator[None]:
    """Hold the lock of `path` while the block lasts; wait up to `wait` seconds for it.

    Raises `StoreError`: STORE_BUSY, STORE_UNUSABLE.
    """
    lock = FileLock(path)
    until = time.monotonic() + wait
    while not lock.acquire():
        if time.monotonic() >= until:
            raise lock.busy(wait)
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        lock.release()


def _try_lock(descriptor: int) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore] # Windows has it
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in _TAKEN:
            return False
        raise
    return True
