"""The file of a unix socket that we listen on: ours alone from its first instant, and never somebody else's removed.

Theory of operation. A unix socket's name is a file, and `bind` fails while a file has that name, also when whoever
made it died long ago. So a file in the way is examined before it is replaced:

* not a socket: never touched;
* a socket that takes a connection: somebody lives there;
* a socket that refuses (ECONNREFUSED): its owner is gone, the file goes.

Between that look and our `bind` another process may do the same. Two of ours are kept apart by a lock (flock(2)) on
the folder, which leaves no file behind. It is not a defence: whoever may write to the folder can replace the socket.

Mode 0600 decides who may connect. `bind` creates the file with the mode of the socket's own inode less the umask
(Linux), so that is set first; elsewhere the file is changed after `bind` and before `listen`, and until `listen` a
connection is refused. The umask is left alone: it belongs to the whole process.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mtlskit.config.values import UnixAddress
from mtlskit.errors import Code, ListenError

__all__ = ["SocketFile", "bind_unix", "remove_dead"]

MODE: Final = 0o600

MAX_PATH: Final = 107 if sys.platform == "linux" else 103
"""Bytes. `sun_path` holds 108 (Linux) or 104 (BSD, macOS) with the zero at its end (unix(7))."""

LOCK_ATTEMPTS: Final = 50
LOCK_PAUSE: Final = 0.01
"""Seconds. Another process of ours holds the folder for microseconds; half a second in all, then it goes on without."""


@dataclass(frozen=True)
class SocketFile:
    """The file that `bind` made, known by device and inode."""

    path: Path
    device: int
    inode: int

    def remove(self) -> None:
        """Remove the file if it is still this one. Call it while the socket is open: later, inodes are reused."""
        with contextlib.suppress(OSError):  # gone already, or the folder is no longer ours to write
            found = self.path.lstat()
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                self.path.unlink()


def bind_unix(address: UnixAddress, backlog: int) -> tuple[socket.socket, SocketFile]:
    """A listening unix socket at `address` that its owner alone can connect to. Raises ListenError."""
    path = address.path
    if not hasattr(socket, "AF_UNIX"):
        raise ListenError(
            Code.CONFIG_NOT_SUPPORTED, f"{address}: Python has no unix sockets here", "listen on 127.0.0.1:PORT instead"
        )
    _check_path(address)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):  # not every system lets a socket have a mode
            os.fchmod(sock.fileno(), MODE)
        with _folder_locked(path.parent):
            _clear_the_way(address)
            sock.bind(os.fspath(path))
            return sock, _listen(sock, path, backlog)
    except OSError as exc:
        sock.close()
        raise _explained(address, exc) from exc
    except ListenError:
        sock.close()
        raise


def remove_dead(folder: Path, ours: Callable[[Path], bool]) -> None:
    """Remove the sockets of `folder` for which `ours` is true and on which nobody listens. Never raises OSError."""
    with contextlib.suppress(OSError), _folder_locked(folder) as locked:
        # Without the lock, one that has just been bound and does not listen yet would look dead.
        for path in folder.iterdir() if locked else ():
            with contextlib.suppress(OSError):  # gone meanwhile, or not for us to know
                if ours(path) and stat.S_ISSOCK(path.lstat().st_mode) and not _is_alive(path):
                    path.unlink(missing_ok=True)


def _listen(sock: socket.socket, path: Path, backlog: int) -> SocketFile:
    """Make sure of the mode, then listen. Leaves no file behind where that fails. Raises OSError."""
    made = path.lstat()
    file = SocketFile(path, made.st_dev, made.st_ino)
    try:
        if stat.S_IMODE(made.st_mode) != MODE:
            path.chmod(MODE)
        sock.listen(backlog)
    except OSError:
        file.remove()
        raise
    return file


def _check_path(address: UnixAddress) -> None:
    raw = os.fsencode(address.path)
    if b"\0" in raw:
        raise ListenError(Code.LISTEN_UNIX_PATH, f"unix:{address.path!s:.20}… has a zero byte in its path")
    if len(raw) > MAX_PATH:
        raise ListenError(
            Code.LISTEN_UNIX_PATH,
            f"{address} is {len(raw)} bytes long, and a unix socket's path may have {MAX_PATH}",
            "choose a shorter folder, such as /run/mtlskit",
        )
    if not address.path.parent.is_dir():
        raise ListenError(
            Code.LISTEN_UNIX_PATH,
            f"{address}: there is no folder {address.path.parent}",
            f"make it with `mkdir -p -m 700 {address.path.parent}`",
        )


def _clear_the_way(address: UnixAddress) -> None:
    """Remove a dead socket file. Raises ListenError if something that is not one stands there, OSError if unclear."""
    try:
        found = address.path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenError(
            Code.LISTEN_UNIX_PATH,
            f"{address} exists and is not a socket",
            "nothing was touched: choose another path, or move that file away",
        )
    if _is_alive(address.path):
        raise ListenError(
            Code.LISTEN_PORT_IN_USE,
            f"{address} is already in use",
            f"see who listens with `ss -lxp src '{address.path}'`, or choose another path",
        )
    address.path.unlink(missing_ok=True)


def _is_alive(path: Path) -> bool:
    """Whether somebody listens there. Raises OSError where that cannot be known (EACCES: another user's)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a full queue would block; EAGAIN then says that somebody is there
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except BlockingIOError:
            return True
        except OSError as exc:
            if exc.errno == errno.EPROTOTYPE:  # a datagram socket, such as syslog's: not ours to remove
                return True
            raise
    return True


@contextlib.contextmanager
def _folder_locked(folder: Path) -> Iterator[bool]:
    """Hold the folder against another process of ours. Goes on without where it cannot be locked, and says so."""
    import fcntl  # Unix only, as is everybody who comes here

    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a folder that we may write but not list
        yield False
        return
    locked = False
    try:
        for _ in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locked = True
                break
            except BlockingIOError:
                time.sleep(LOCK_PAUSE)
            except OSError:  # a file system without locks
                break
        yield locked
    finally:
        os.close(handle)


def _explained(address: UnixAddress, exc: OSError) -> ListenError:
    """The error for people, by errno."""
    reason = exc.strerror or str(exc)
    if exc.errno == errno.EADDRINUSE:
        return ListenError(
            Code.LISTEN_PORT_IN_USE, f"{address} is already in use", "another process has just opened it: try again"
        )
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ListenError(
            Code.LISTEN_DENIED,
            f"{address} may not be opened by this user: {reason}",
            f"see who owns it with `ls -ld {address.path.parent} {address.path}`",
        )
    if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return ListenError(Code.LISTEN_UNIX_PATH, f"{address} cannot be made: {reason}")
    return ListenError(Code.LISTEN_FAILED, f"{address} cannot be opened: {reason}")
