"""Where the page of a report goes: one file, whole or not at all, for its owner's eyes only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from mtlskit.doctor.diagnosis import Report
from mtlskit.doctor.report.page import page
from mtlskit.errors import Code, DoctorError, IdentityError
from mtlskit.store.files import write_file

__all__ = ["check_place", "write_page"]


def check_place(path: Path) -> None:
    """Raises `DoctorError` (DOCTOR_UNWRITABLE) where a page cannot be written: better before the look than after it."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as exc:  # ValueError: the path has a null character in it
        raise _unwritable(path, str(getattr(exc, "strerror", None) or exc)) from exc
    if mode is not None and not stat.S_ISREG(mode):
        # A device, a pipe or a link (/dev/stdout is one) would be replaced by the file, not written to.
        raise _unwritable(path, "a folder" if stat.S_ISDIR(mode) else "not an ordinary file")
    if not path.parent.is_dir():
        raise _unwritable(path, "there is no such folder")
    if not os.access(path.parent, os.W_OK):
        raise _unwritable(path, "nobody may write to its folder but its owner")


def write_page(path: Path, report: Report) -> None:
    """The report as a page with mode 0600, in place of what was there. Raises `DoctorError` (DOCTOR_UNWRITABLE)."""
    try:
        write_file(path, page(report).encode("utf-8", "backslashreplace"), replace=True)
    except IdentityError as exc:
        raise DoctorError(Code.DOCTOR_UNWRITABLE, exc.sentence, exc.hint) from exc


def _unwritable(path: Path, reason: str) -> DoctorError:
    return DoctorError(
        Code.DOCTOR_UNWRITABLE,
        f"{path}: the report cannot be written there: {reason}",
        "name a file in a folder of yours, such as --html ~/report.html",
    )
