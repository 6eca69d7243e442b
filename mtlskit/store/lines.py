"""Files of JSON lines that only grow: journals, ledgers, the audit log.

A line counts when it is whole: a kill or a full disk can leave half of one at the end, which is passed over when the
file is read and cut off before the next line is added. A line is on the disk when `append_line` returns. Processes that
add to one file at the same time wait for each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtlskit.errors import Code, StoreError
from mtlskit.store.files import flush_folder

__all__ = ["MAX_LINES_FILE", "append_line", "read_lines"]

MAX_LINES_FILE = 16 * 1024 * 1024
"""Bytes. A rotation writes some 3 KiB, so this is five thousand of them."""

_BLOCK = 64 * 1024  # bytes; most lines are far shorter


def append_line(path: Path, record: Mapping[str, Any]) -> None:
    """Add one record to `path`, which is made (0600) if it is missing.

    Raises `StoreError` (STORE_UNUSABLE); no reader sees any of the record then.
    """
    line = json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
        try:
            _wait_for_turn(descriptor)
            end = _end_of_whole_lines(descriptor)
            os.ftruncate(descriptor, end)
            os.lseek(descriptor, end, os.SEEK_SET)
            _write_or_undo(descriptor, line, end)
        finally:
            os.close(descriptor)
        if end == 0:
            flush_folder(path.parent)
    except OSError as exc:
        raise StoreError(
            Code.STORE_UNUSABLE,
            f"{path}: cannot be written: {exc.strerror or exc}",
            f"check that the disk has room and that the folder is yours; see `ls -ld {path.parent}` and"
            f" `df {path.parent}`",
        ) from exc


def read_lines(path: Path, *, limit: int = MAX_LINES_FILE) -> list[dict[str, Any]]:
    """Every whole record, in order; none if there is no file. `limit`: bytes that are read at the most.

    Raises `StoreError`: STORE_UNUSABLE, and STORE_DAMAGED for a line that is whole and no JSON object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise StoreError(
            Code.STORE_UNUSABLE, f"{path}: cannot be read: {exc.strerror or exc}", f"see `ls -l {path}`"
        ) from exc
    if len(content) > limit:
        raise StoreError(
            Code.STORE_DAMAGED,
            f"{path}: larger than {limit} bytes",
            "move it away if its history is not needed; a rotation in progress in it is forgotten then",
        )
    return [_record(line, number, path) for number, line in enumerate(content.split(b"\n")[:-1], 1) if line]


def _record(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise StoreError(
            Code.STORE_DAMAGED,
            f"{path}:{number}: not a record: this line was changed by something else",
            "restore the file from a backup, or remove the line if you know what it was",
        )
    return record


def _wait_for_turn(descriptor: int) -> None:
    if os.name != "nt":
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)  # until the descriptor is closed, some milliseconds later


def _end_of_whole_lines(descriptor: int) -> int:
    start = os.lseek(descriptor, 0, os.SEEK_END)
    while start > 0:
        length = min(_BLOCK, start)
        start -= length
        os.lseek(descriptor, start, os.SEEK_SET)
        if (found := os.read(descriptor, length).rfind(b"\n")) >= 0:
            return start + found + 1
    return 0


def _write_or_undo(descriptor: int, line: bytes, end: int) -> None:
    view = memoryview(line)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)  # a line that may not be on the disk must not be read as if it were
    except OSError:
        with suppress(OSError):
            os.ftruncate(descriptor, end)
        raise
