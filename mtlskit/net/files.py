"""Reading small files that somebody may be replacing: each is read once, whole, within a bound."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mtlskit.errors import Code, IdentityError

__all__ = ["MAX_FILE", "read_passphrase_file", "read_private", "read_public"]

MAX_FILE = 1 << 20
"""Bytes. A bundle of all of Mozilla's roots is about 220 KiB; a megabyte that is no bundle is a mistake."""


def read_public(path: Path, what: str) -> bytes:
    """The bytes of a certificate file. `what` names its part in the error, e.g. ``client certificate``.

    Raises IdentityError: missing, unreadable, not a plain file, too large.
    """
    return _read(path, what, private=False)


def read_private(path: Path, what: str) -> bytes:
    """The bytes of a file that holds a secret; refused when every user of the host may read it.

    Raises IdentityError, as `read_public`, and when the file is readable or writable by others.
    """
    return _read(path, what, private=True)


def read_passphrase_file(path: Path) -> bytes:
    """The first line of a file that holds a passphrase, as OpenSSL's ``file:`` reads it; it may be empty.

    Raises IdentityError, as `read_private`.
    """
    return read_private(path, "passphrase").split(b"\n", 1)[0].removesuffix(b"\r")


def _read(path: Path, what: str, *, private: bool) -> bytes:
    try:
        # Not blocking, because opening a pipe would wait for a writer that may never come.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            # The checks look at the opened file, not at the path, which may point elsewhere by now.
            _check(os.fstat(descriptor), path, what, private=private)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_FILE + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError as exc:
        raise IdentityError(
            Code.FILE_MISSING,
            f"{path}: the {what} does not exist",
            f"check the path, or create it; see `ls -l {path.parent}`",
        ) from exc
    except (OSError, ValueError) as exc:  # ValueError: the path has a null character in it
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
        raise IdentityError(
            Code.FILE_UNREADABLE,
            f"{path}: the {what} cannot be read: {reason}",
            f"give the user that runs mtlskit the right to read it; see `ls -l {path}`",
        ) from exc
    if len(data) > MAX_FILE:
        raise IdentityError(
            Code.PEM_TOO_LARGE,
            f"{path}: the {what} is larger than {MAX_FILE} bytes",
            "name a PEM file; this is something else",
        )
    return data


def _check(status: os.stat_result, path: Path, what: str, *, private: bool) -> None:
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "not a plain file"
        raise IdentityError(Code.FILE_UNREADABLE, f"{path}: the {what} is {found}", "name the PEM file itself")
    if private and os.name == "posix" and status.st_mode & 0o007:
        mode = stat.S_IMODE(status.st_mode)
        raise IdentityError(
            Code.KEY_EXPOSED,
            f"{path}: the {what} is open to every user of this host (mode {mode:04o})",
            f"chmod 600 {path} (or 640 with a group of its own)",
        )
