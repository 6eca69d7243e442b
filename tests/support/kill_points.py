"""Every call with which a process changes the disk or something far away, as a point at which it can be ended.

`Points.install` puts itself in the place of the functions of `os` through which Python changes files, and of `open`,
whose buffered writes would go past them. Each call that has succeeded is a point; points are numbered from 1 on. A plan
says what happens at one of them:

    count      nothing: the points are written down
    kill       SIGKILL, right after the point
    tear       a write that is the point is done by half, and SIGKILL follows
    full       from here on the disk is full: whatever would take room ends with ENOSPC
    read-only  from here on every change ends with EROFS
    break      the call that would be the point ends with EIO, and the next ones succeed
    lose       what is far away has done it, and the answer is lost

fsync(2) is counted, so that it can fail, and not done: SIGKILL leaves the page cache alone, and waiting for the disk is
most of what a rotation does. `Point.changes` is false for it, and for what changes nothing this time, such as a file
that is opened for writing and was there: a kill after these finds what a kill before them has found. Pipes, sockets and
memory files are no points.

That nothing goes past is checked against the kernel's own account, by hand when Python or the store changes: see
`tests.support.kill_run`.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

__all__ = ["Mode", "Plan", "Point", "Points"]

_NAMES = ("replace", "rename", "link", "symlink", "mkdir", "unlink", "remove", "rmdir", "chmod", "truncate")
_DESCRIPTORS = ("write", "pwrite", "fchmod", "ftruncate", "fsync", "fdatasync")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_GROWS = frozenset({"write", "pwrite", "mkdir", "symlink", "link"})


class Mode(StrEnum):
    """What a plan does at its point; see the module."""

    COUNT = "count"
    KILL = "kill"
    TEAR = "tear"
    FULL = "full"
    READ_ONLY = "read-only"
    BREAK = "break"
    LOSE = "lose"


@dataclass(frozen=True)
class Plan:
    """What is to happen, and at which point."""

    mode: Mode = Mode.COUNT
    number: int = 0


@dataclass(frozen=True)
class Point:
    """One call that was done. `what`: the path, or what was done far away."""

    name: str
    what: str
    changes: bool = True
    """Whether a kill right after it can find something else than one right before it."""

    @property
    def remote(self) -> bool:
        """Whether something far away was changed, or asked."""
        return self.name == "remote"


class Points:
    """The points of this process, once `install` was called. To be used in a process that ends soon."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.done: list[Point] = []
        self._write = os.write
        self._lock = threading.RLock()  # a CA's files are written in a thread
        self._quiet = threading.local()

    def install(self) -> None:
        """Be in the place of what changes files."""
        for name in _NAMES:
            setattr(os, name, self._wrapped(name, lambda args, kwargs: _path(args, kwargs)))
        for name in _DESCRIPTORS:
            setattr(os, name, self._wrapped(name, lambda args, _: _regular(args[0])))
        opened = os.open
        os.open = self._wrapped("open", lambda args, kwargs: _path(args, kwargs) if _to_write(args, kwargs) else None)
        self._replace_open(opened)

    @contextmanager
    def not_counted(self) -> Iterator[None]:
        """What the block changes is not the process's own doing."""
        self._quiet.on = True
        try:
            yield
        finally:
            self._quiet.on = False

    def far_away(self, what: str, lost: Callable[[], Exception]) -> None:
        """Something far away has been changed, or asked; raises `lost()` where the answer is to be lost."""
        with self._lock:
            self.done.append(Point("remote", what))
            if self._is_now(Mode.LOSE):
                raise lost()
            self._perhaps_die()

    def _wrapped(self, name: str, changed: Callable[[tuple[Any, ...], dict[str, Any]], str | None]) -> Any:
        """The function of `os`; `changed` says which path a call changes, None for a call that is no point."""
        real = getattr(os, name)
        does_nothing = name in {"fsync", "fdatasync"}

        def call(*args: Any, **kwargs: Any) -> Any:
            what = None if getattr(self._quiet, "on", False) else changed(args, kwargs)
            if what is None:
                return real(*args, **kwargs)
            with self._lock:
                self._perhaps_fail(name, what)
                if name == "write" and self.plan.mode is Mode.TEAR and self._comes_next:
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                changes = not does_nothing and _changes(name, what, args)
                result = None if does_nothing else real(*args, **kwargs)
                self.done.append(Point(name, what, changes))
                self._perhaps_die()
                return result

        return call

    def _replace_open(self, opened: Callable[..., int]) -> None:
        """So that files opened by `open` write through `os.write`, and are made by `os.open`."""
        plain = io.open

        def counted_open(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            closefd: bool = True,
            opener: Callable[[str, int], int] | None = None,
        ) -> IO[Any]:
            if not set(mode) & set("wax+"):
                return plain(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = _Raw(file, mode.replace("b", "").replace("t", ""), closefd, opener=opener or _open_to_write)
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        io.open = builtins.open = counted_open  # type: ignore[assignment]  # of fewer overloads

    @property
    def _comes_next(self) -> bool:
        return len(self.done) + 1 == self.plan.number

    def _is_now(self, mode: Mode) -> bool:
        return self.plan.mode is mode and len(self.done) == self.plan.number

    def _perhaps_die(self) -> None:
        if self._is_now(Mode.KILL):
            os.kill(os.getpid(), signal.SIGKILL)

    def _perhaps_fail(self, name: str, what: str) -> None:
        if self.plan.mode is Mode.BREAK and self._comes_next:
            self.done.append(Point(name, what))  # one alone
            raise OSError(errno.EIO, os.strerror(errno.EIO), what)
        if len(self.done) + 1 < self.plan.number:
            return
        makes = name in _GROWS or (name == "open" and not os.path.lexists(what))
        number = {Mode.FULL: errno.ENOSPC if makes else 0, Mode.READ_ONLY: errno.EROFS}.get(self.plan.mode, 0)
        if number:
            raise OSError(number, os.strerror(number), what)


class _Raw(io.FileIO):
    """A file whose writes are calls of `os.write`."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


def _open_to_write(path: str, flags: int) -> int:
    return os.open(path, flags, 0o666)


def _to_write(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    flags = args[1] if len(args) > 1 else kwargs["flags"]
    return bool(flags & _WRITES)


def _changes(name: str, what: str, args: tuple[Any, ...]) -> bool:
    """Whether a call that is about to be done will change anything."""
    if name == "open":
        return not os.path.lexists(what) or bool(args[1] & os.O_TRUNC)
    if name == "ftruncate":
        return bool(os.fstat(args[0]).st_size != args[1])
    return True


def _path(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """The path that a call changes: the new name, where there are two. None for a memory file's."""
    path = args[1] if len(args) > 1 and isinstance(args[1], str | bytes | os.PathLike) else args[0]
    if isinstance(path, int):
        return _regular(path)
    text = os.fsdecode(path)
    folder = kwargs.get("dir_fd")
    return f"{_of(folder)}/{text}" if folder is not None else text


def _regular(descriptor: int) -> str | None:
    """The path of an open file or folder; None for what is neither, or has none."""
    mode = os.fstat(descriptor).st_mode
    path = _of(descriptor)
    return path if (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) and not path.startswith("/memfd:") else None


def _of(descriptor: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        return f"descriptor {descriptor}"
