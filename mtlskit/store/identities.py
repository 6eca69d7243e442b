"""Identities on disk: numbered versions that never change, and one `current` that is switched in one step.

    STORE/                     0700
      audit.jsonl              who did what, see `mtlskit.store.audit`
      NAME/                    0700
        current                a link to versions/0007
        versions/0007/         client.crt · client.key · root.crt (where there is one) · version.json
        pending/ROTATION/      key and request of a rotation that is going on
        journal.jsonl          its steps, see `mtlskit.store.journal`
        lock

A version is written under another name, flushed, and given its number by one rename; so whatever has a number is whole.
`current` is a symbolic link that is replaced by a rename, so that psql or a JDBC URL can point at
`NAME/current/client.crt`; readers resolve it once and read both files of one version. Where links cannot be had
(Windows without the right to make them), `current` is a file with the same text, which only we can follow.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mtlskit.errors import Code, IdentityError, StoreError
from mtlskit.store.current import CURRENT, VERSIONS, point, read_pointer, resolve_current
from mtlskit.store.faults import unusable
from mtlskit.store.files import flush_folder
from mtlskit.store.versions import CERT, FACTS, KEY, ROOT, Material, Version, VersionFacts, read_facts, write_version

__all__ = [
    "CERT",
    "CURRENT",
    "KEY",
    "ROOT",
    "Material",
    "Store",
    "StoredIdentity",
    "Version",
    "VersionFacts",
    "resolve_current",
]

_UNFINISHED = ".new-"
_NUMBER = re.compile(r"[0-9]{4,9}")


class Store:
    """All identities below one folder. Nothing is made before something is written."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """The identities that are there, by name. Raises `StoreError` (STORE_UNUSABLE)."""
        try:
            return sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0] != ".")
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise unusable(self.root, "read", exc) from exc

    def identity(self, name: str) -> StoredIdentity:
        """The identity called `name`, whether it is there or not."""
        return StoredIdentity(name, self.root / name)


class StoredIdentity:
    """One identity of the store. Whoever writes holds its lock."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def prepare(self) -> None:
        """Make the folders, private from the start.

        Raises `StoreError` (STORE_UNUSABLE), also where others may write to them, or where they are another user's: if
        root wrote to them, whoever runs the proxy could then neither read the new key nor add to the journal.
        """
        self._refuse_guest()
        self._make((self.folder.parent, self.folder, self.folder / VERSIONS))
        self._refuse_others()

    @property
    def lock_path(self) -> Path:
        """What `mtlskit.store.lock` locks."""
        return self.folder / "lock"

    @property
    def journal_path(self) -> Path:
        """The file of `mtlskit.store.journal`."""
        return self.folder / "journal.jsonl"

    def pending(self, rotation: str) -> Path:
        """The folder of what a rotation has made and not yet used. It need not be there."""
        return self.folder / "pending" / rotation

    def make_pending(self, rotation: str) -> Path:
        """Make the folder of `pending`, private from the start. Raises `StoreError` (STORE_UNUSABLE)."""
        folder = self.pending(rotation)
        self._make((folder.parent, folder))
        return folder

    def current(self) -> Version | None:
        """The version in use; None where there is none yet.

        Raises `StoreError`: STORE_DAMAGED, STORE_UNUSABLE.
        """
        number = self._current_number()
        return None if number is None else self._version(number)

    def versions(self) -> tuple[Version, ...]:
        """Every version, oldest first. Raises as `current`."""
        return tuple(self._version(number) for number in self._numbers())

    def version_of(self, rotation: str) -> Version | None:
        """The version that a rotation made, if it came that far."""
        for number in reversed(self._numbers()):
            try:
                version = self._version(number)
            except StoreError as exc:
                if exc.code is not Code.STORE_DAMAGED:
                    raise
                continue  # one that is damaged must not keep the others from being replaced
            if version.facts.rotation == rotation:
                return version
        return None

    def stage(self, material: Material, facts: VersionFacts) -> Version:
        """Add a version; `current` stays what it is. The same rotation's version is found and not made twice.

        Raises `StoreError`: STORE_UNUSABLE.
        """
        if facts.rotation and (made := self.version_of(facts.rotation)) is not None:
            return made
        self.prepare()
        number = max(self._numbers(), default=0) + 1
        versions = self.folder / VERSIONS
        unfinished = versions / f"{_UNFINISHED}{secrets.token_hex(4)}"
        target = versions / f"{number:04d}"
        try:
            try:
                unfinished.mkdir(mode=0o700)
                write_version(unfinished, material, facts)
                unfinished.rename(target)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            flush_folder(versions)
        except IdentityError as exc:  # of write_file, which names the file
            raise StoreError(Code.STORE_UNUSABLE, exc.sentence, exc.hint) from exc
        except OSError as exc:
            raise unusable(target, "written", exc) from exc
        return Version(number, target, facts)

    def switch(self, version: Version) -> None:
        """Let `current` mean `version`, in one step. Raises `StoreError` (STORE_UNUSABLE); the old one stays then."""
        with suppress(StoreError):  # what cannot be followed is replaced
            if self._current_number() == version.number:
                return
        pointer = f"{VERSIONS}/{version.folder.name}"
        current = self.folder / CURRENT
        try:
            point(current, pointer)
            flush_folder(self.folder)
        except IdentityError as exc:
            raise StoreError(Code.STORE_UNUSABLE, exc.sentence, exc.hint) from exc
        except OSError as exc:
            raise unusable(current, "switched", exc) from exc

    def sweep(self, *, keep: int = 3, rotation: str = "") -> None:
        """Remove what killed processes left, and versions older than the newest `keep`; never `current`.

        `rotation` is the one that is going on, whose pending files stay. What cannot be removed stays: it is in
        nobody's way.
        """
        _remove_where(self.folder / VERSIONS, lambda name: name.startswith(_UNFINISHED))
        _remove_where(self.folder / "pending", lambda name: name != rotation)
        _remove_where(
            self.folder, lambda name: name.startswith(f".{CURRENT}.") or (name[0] == "." and name.endswith(".tmp"))
        )
        try:
            current, numbers = self._current_number(), self._numbers()
        except StoreError:
            return  # which of them is in use is not known
        for number in numbers[: max(0, len(numbers) - keep)]:
            if number != current:
                self.remove(number)

    def remove(self, number: int) -> None:
        """Remove a version that is not `current`; what cannot be removed stays."""
        folder = self.folder / VERSIONS / f"{number:04d}"
        doomed = folder.with_name(f"{_UNFINISHED}{secrets.token_hex(4)}")
        with suppress(OSError):
            folder.rename(doomed)  # in one step: nobody finds half a version under its number
            shutil.rmtree(doomed, ignore_errors=True)

    def discard_pending(self, rotation: str) -> None:
        """Remove what a rotation had made for itself."""
        shutil.rmtree(self.pending(rotation), ignore_errors=True)
        with suppress(OSError):
            self.pending(rotation).parent.rmdir()  # if it was the last

    def _make(self, folders: Sequence[Path]) -> None:
        """Those that are missing: a name that is not flushed would take what lies below it along in a power cut."""
        for folder in folders:
            try:
                if not folder.is_dir():
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    flush_folder(folder.parent)
            except OSError as exc:
                raise unusable(folder, "made", exc) from exc

    def _refuse_guest(self) -> None:
        """Root would make a store that belongs to root, in a folder of somebody else, who could not read it."""
        root = self.folder.parent
        if not hasattr(os, "geteuid") or os.geteuid() != 0 or root.exists():
            return
        above = next((folder for folder in root.absolute().parents if folder.exists()), None)
        if above is not None and (owner := above.stat().st_uid) != 0:
            raise StoreError(
                Code.STORE_UNUSABLE,
                f"{root}: would belong to root, in a folder of the user with the id {owner}",
                f"run it as that user: sudo -u '#{owner}' mtlskit …; or make the folder first, if root runs the proxy",
            )

    def _refuse_others(self) -> None:
        if not hasattr(os, "geteuid"):
            return
        try:
            above, found = self.folder.parent.stat(), self.folder.lstat()
        except OSError as exc:
            raise unusable(self.folder, "looked at", exc) from exc
        for folder, status in ((self.folder.parent, above), (self.folder, found)):
            if status.st_mode & 0o022 or not stat.S_ISDIR(status.st_mode):
                raise StoreError(
                    Code.STORE_UNUSABLE,
                    f"{folder}: others could change what lies in it (mode {stat.S_IMODE(status.st_mode):04o})",
                    f"make it a folder of your own: chmod 700 {folder}",
                )
        if (owner := found.st_uid) != os.geteuid():
            raise StoreError(
                Code.STORE_UNUSABLE,
                f"{self.folder}: belongs to the user with the id {owner}, who could not read what the one with the id"
                f" {os.geteuid()} adds to it",
                f"run it as that user: sudo -u '#{owner}' mtlskit …",
            )

    def _current_number(self) -> int | None:
        return read_pointer(self.folder / CURRENT)

    def _numbers(self) -> list[int]:
        try:
            names = [entry.name for entry in os.scandir(self.folder / VERSIONS)]
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise unusable(self.folder / VERSIONS, "read", exc) from exc
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

    def _version(self, number: int) -> Version:
        folder = self.folder / VERSIONS / f"{number:04d}"
        return Version(number, folder, read_facts(folder / FACTS))


def _remove_where(folder: Path, doomed: Callable[[str], bool]) -> None:
    """Remove what has a doomed name in a folder, as far as it can be removed."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            if not doomed(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                Path(entry.path).unlink()
