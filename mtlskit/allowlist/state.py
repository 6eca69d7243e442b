"""The folder in which this host remembers something for its user: the id in its owner tags, and the locks of turns.

`$MTLSKIT_STATE`, else the folder for state that the platform gives each user. The id is 8 random hexadecimal digits,
made once. Two processes that need it for the first time at once agree, because it is made under a lock; a crash leaves
no id or a whole one. A file that holds something else is refused, not replaced: with another id, the rules that carry
the old one would belong to nobody.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mtlskit.errors import Code, IdentityError, StoreError
from mtlskit.store.files import write_file
from mtlskit.store.lock import held

__all__ = ["VARIABLE", "host_id", "prepare_state", "state_folder"]

VARIABLE: Final = "MTLSKIT_STATE"

_ID: Final = re.compile(r"[0-9a-f]{8}")
_FILE: Final = "owner"
_LOCK: Final = "owner.lock"
_PATIENCE: Final = 30.0  # seconds; each holds the lock for some milliseconds
_MOST: Final = 64  # bytes that are read of a file that should hold nine


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where state is kept. Nothing is made."""
    if named := environ.get(VARIABLE):
        return Path(named).absolute()
    import platformdirs  # here, because only a command that needs the folder has to pay for it

    return platformdirs.user_state_path("mtlskit", appauthor=False)


def prepare_state(folder: Path) -> None:
    """Make the folder (0700) where it is missing. Raises `StoreError` (STORE_UNUSABLE)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, ValueError) as exc:
        raise _unusable(folder, f"cannot be made: {_reason(exc)}") from exc
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unusable(folder, "is not yours to write to")


def host_id(folder: Path) -> str:
    """This host's id, made where it is missing. Raises `StoreError`: STORE_UNUSABLE, STORE_DAMAGED, STORE_BUSY."""
    path = folder / _FILE
    if (found := _read(path)) is not None:
        return found
    prepare_state(folder)
    with held(folder / _LOCK, wait=_PATIENCE):
        if (found := _read(path)) is not None:  # somebody else made it while we waited
            return found
        made = secrets.token_hex(4)
        try:
            write_file(path, f"{made}\n".encode("ascii"), replace=True)
        except IdentityError as exc:
            raise _unusable(folder, f"takes no file: {exc.sentence}") from exc
    return made


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise _unusable(path, f"cannot be read: {_reason(exc)}") from exc
    if not text:
        return None  # a file system without links, and a crash while the id was made
    if not _ID.fullmatch(text):
        raise StoreError(
            Code.STORE_DAMAGED,
            f"{path}: holds no owner id: it should be 8 hexadecimal digits",
            f"put back the id that your rules carry (mtlskit allowlist list shows them); if there are none: rm {path}",
        )
    return text


def _unusable(path: Path, what: str) -> StoreError:
    return StoreError(
        Code.STORE_UNUSABLE,
        f"{path}: the folder for this host's state {what}",
        f"set {VARIABLE} to a folder that you may write to",
    )


def _reason(exc: OSError | ValueError) -> str:
    return (exc.strerror if isinstance(exc, OSError) else None) or str(exc)
