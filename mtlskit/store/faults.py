"""What can be wrong with the store's files, in one set of words."""

from __future__ import annotations

from pathlib import Path

from mtlskit.errors import Code, StoreError

__all__ = ["damaged", "unusable"]


def damaged(path: Path, what: str, hint: str) -> StoreError:
    """A file is not what was written there. `what` follows its name."""
    return StoreError(Code.STORE_DAMAGED, f"{path}: {what}", hint)


def unusable(path: Path, what: str, exc: OSError) -> StoreError:
    """The system refuses: the file "cannot be" `what`."""
    return StoreError(
        Code.STORE_UNUSABLE,
        f"{path}: cannot be {what}: {exc.strerror or exc}",
        f"check that the disk has room and that the folder is yours; see `ls -ld {path.parent}`",
    )
