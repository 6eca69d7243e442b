"""`current`: which version is in use. A link, or where there are none, a file with the same text."""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from mtlskit.store.faults import damaged, unusable
from mtlskit.store.files import PUBLIC, write_file

__all__ = ["CURRENT", "VERSIONS", "point", "read_pointer", "resolve_current"]

CURRENT = "current"
VERSIONS = "versions"
_POINTER = re.compile(rb"versions/([0-9]{4,9})\n?")
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


def resolve_current(folder: Path) -> Path:
    """The folder that `folder` means now: where it is a link or a file that points, what it points to.

    Raises OSError as `Path.resolve(strict=True)` does, and RuntimeError for a loop of links before Python 3.13.
    """
    if folder.name == CURRENT and folder.is_file():
        with folder.open("rb") as file:
            pointed = _POINTER.fullmatch(file.read(64))
        if pointed:
            folder = folder.parent / VERSIONS / pointed[1].decode("ascii")
    return folder.resolve(strict=True)


def read_pointer(path: Path) -> int | None:
    """The number of the version that `path` means; None where there is no such file.

    Raises `StoreError`: STORE_DAMAGED, STORE_UNUSABLE.
    """
    try:
        try:
            text = os.fsencode(os.readlink(path))  # noqa: PTH115 - bytes are compared
        except OSError as exc:
            if exc.errno != errno.EINVAL and os.name != "nt":
                raise
            with path.open("rb") as file:  # no link: a file that points
                text = file.read(64)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise unusable(path, "read", exc) from exc
    pointed = _POINTER.fullmatch(text.replace(b"\\", b"/"))
    if not pointed:
        raise damaged(path, "does not point to a version", "mtlskit certs list shows what is there")
    return int(pointed[1])


def point(current: Path, pointer: str) -> None:
    """Let `current` mean `pointer` (``versions/0007``), in one step. Raises OSError and `IdentityError`."""
    temporary = current.with_name(f".{CURRENT}.{secrets.token_hex(4)}")
    try:
        temporary.symlink_to(pointer)
    except (NotImplementedError, OSError) as exc:
        if os.name != "nt" and isinstance(exc, OSError) and exc.errno not in _NO_LINKS:
            raise
        # Under the other name too: `current` itself may be a link, made where links could be had.
        write_file(temporary, f"{pointer}\n".encode("ascii"), mode=PUBLIC)
    try:
        temporary.replace(current)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
