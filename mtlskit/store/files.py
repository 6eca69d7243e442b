"""Writing one file whole or not at all, with its mode from the first byte on.

A file is written beside its place under another name, flushed to the disk, and then given its name in one step. Without
`replace` that step fails where the name is taken, also by somebody who took it a moment ago. A crash leaves the old
file, or the new one, and at worst a hidden `.NAME.XXXX.tmp` beside it.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

from mtlskit.errors import Code, IdentityError

__all__ = ["PRIVATE", "PUBLIC", "flush_folder", "write_file"]

PRIVATE = 0o600
PUBLIC = 0o644

_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What a file system without hard links (FAT, some network ones) answers to link(2)."""


def write_file(path: Path, data: bytes, *, mode: int = PRIVATE, replace: bool = False) -> None:
    """Write `data` to `path`, all or nothing, with exactly `mode` (on Windows: whatever the folder says).

    Raises `IdentityError`: FILE_EXISTS (without `replace`), FILE_UNWRITABLE.
    """
    if not replace and path.is_symlink():
        raise _taken(path)  # also one that leads nowhere: whoever made it wants another file written
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            _write(temporary, data, mode)
            _give_name(temporary, path, replace=replace)
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()
        flush_folder(path.parent)
    except FileExistsError as exc:
        raise _taken(path) from exc
    except (OSError, ValueError) as exc:  # ValueError: the path has a null character in it
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise IdentityError(
            Code.FILE_UNWRITABLE,
            f"{path}: cannot be written: {reason}",
            f"check that the folder is there, has room, and is yours to write to; see `ls -ld {path.parent}`",
        ) from exc


def _write(temporary: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, mode & PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        if hasattr(os, "fchmod"):
            os.fchmod(descriptor, mode)  # the umask may have taken some away, and more than 0600 only now
        os.fsync(descriptor)


def _give_name(temporary: Path, path: Path, *, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    if os.name == "nt":
        temporary.rename(path)  # where a name that is taken is an error
        return
    try:
        os.link(temporary, path, follow_symlinks=False)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        # The empty file takes the name, so that nobody else can; then ours replaces it.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE))
        temporary.replace(path)


def flush_folder(folder: Path) -> None:
    """So that the name survives a power cut too. Not every system can open a folder, nor flush it."""
    if os.name == "nt":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _taken(path: Path) -> IdentityError:
    return IdentityError(
        Code.FILE_EXISTS,
        f"{path} exists already, and nothing was written",
        "name another file, or say --force to replace this one",
    )
