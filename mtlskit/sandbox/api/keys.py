"""The keys and chains that the API hands out, as files that only their owner can read."""

from __future__ import annotations

from pathlib import Path

from mtlskit.errors import Code, IdentityError
from mtlskit.store.files import write_file

__all__ = ["KeyFiles"]


class KeyFiles:
    """Those in `folder`, which is made where it is missing. Names are ids of ours, never a client's text."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, key: str, chain: str) -> None:
        """Keep a pair. Raises IdentityError."""
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise IdentityError(
                Code.FILE_UNWRITABLE,
                f"{self._folder}: cannot be made: {exc.strerror or exc}",
                f"see `ls -ld {self._folder.parent}`",
            ) from exc
        write_file(self._folder / f"{name}.crt", chain.encode(), replace=True)
        write_file(self._folder / f"{name}.key", key.encode(), replace=True)

    def read(self, name: str) -> tuple[str, str]:
        """Key and chain. Raises IdentityError (FILE_UNREADABLE)."""
        try:
            return (self._folder / f"{name}.key").read_text("ascii"), (self._folder / f"{name}.crt").read_text("ascii")
        except (OSError, ValueError) as exc:
            raise IdentityError(
                Code.FILE_UNREADABLE,
                f"{self._folder / name}.key or .crt, which the sandbox's API handed out, cannot be read",
                f"see `ls -l {self._folder}`; if it is gone, delete the certificate through the API",
            ) from exc
