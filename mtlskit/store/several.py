"""Writing several files that belong together: all of them, or as it was before.

There is no one step that gives several files their names, so a kill between two of them can leave one without the
other; what goes wrong while we run is undone. The files with secrets come first: a certificate whose key is not there
yet is of no use to a reader, and neither is a key without a certificate, but only the first is known to the public.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mtlskit.errors import Code, IdentityError
from mtlskit.store.files import PRIVATE, PUBLIC, write_file

__all__ = ["NewFile", "write_together"]


@dataclass(frozen=True)
class NewFile:
    """A file to write. `secret`: only its owner may read it."""

    path: Path
    data: bytes = field(repr=False)
    secret: bool = False

    @property
    def mode(self) -> int:
        return PRIVATE if self.secret else PUBLIC


def write_together(files: Sequence[NewFile], *, replace: bool = False) -> None:
    """Write all of `files`, the secret ones first; what was written is undone when one of them fails.

    All targets are looked at before the first is written. Raises `IdentityError`: FILE_EXISTS (without `replace`),
    FILE_UNWRITABLE.
    """
    ordered = sorted(files, key=lambda file: not file.secret)
    for file in ordered:
        _check_target(file.path, replace=replace)
    before = {file.path: _content(file.path) for file in ordered}
    done: list[NewFile] = []
    try:
        for file in ordered:
            write_file(file.path, file.data, mode=file.mode, replace=replace)
            done.append(file)
    except BaseException:  # a signal as well: what half stands there fits nothing
        for file in reversed(done):
            _undo(file, before[file.path])
        raise


def _check_target(path: Path, *, replace: bool) -> None:
    if not replace and (path.is_symlink() or path.exists()):
        raise IdentityError(
            Code.FILE_EXISTS,
            f"{path} exists already, and nothing was written",
            "name another place, or say --force to replace what is there",
        )


def _content(path: Path) -> bytes | None:
    """What stood there, to put it back. Of what cannot be read, nothing can be put back."""
    try:
        return path.read_bytes()
    except OSError:
        return None


def _undo(file: NewFile, before: bytes | None) -> None:
    with suppress(IdentityError, OSError):
        if before is None:
            file.path.unlink()
        else:
            write_file(file.path, before, mode=PRIVATE if file.secret else PUBLIC, replace=True)
