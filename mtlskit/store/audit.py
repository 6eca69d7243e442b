"""The audit log: who did what to which certificates, and how it ended, as JSON lines in the store's folder.

Only additions are made to it. It holds serials, names and outcomes, and no secret.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mtlskit.store.lines import append_line, read_lines

__all__ = ["FILE_NAME", "read_audit", "write_audit"]

FILE_NAME = "audit.jsonl"


def write_audit(store: Path, action: str, identity: str, *, now: datetime, **facts: Any) -> None:
    """Add one line: `time`, `action`, `identity`, `user`, `uid`, `sudo_user`, `host`, `pid`, and `facts`.

    Raises `StoreError` (STORE_UNUSABLE).
    """
    record: dict[str, Any] = {
        "time": now.astimezone(UTC).isoformat(timespec="seconds"),
        "action": action,
        "identity": identity,
        **_who(os.environ),
        **facts,
    }
    append_line(store / FILE_NAME, record)


def read_audit(store: Path) -> list[dict[str, Any]]:
    """Every line, oldest first. Raises `StoreError`."""
    return read_lines(store / FILE_NAME)


def _who(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a uid without a name, as in containers
        user = ""
    found: dict[str, Any] = {"user": user, "host": socket.gethostname(), "pid": os.getpid()}
    if hasattr(os, "getuid"):
        found["uid"] = os.getuid()
    if behind := environ.get("SUDO_USER"):
        found["sudo_user"] = behind
    return found
