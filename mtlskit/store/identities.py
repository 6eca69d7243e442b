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

import errno
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from mtlskit.errors import Code, IdentityError, StoreError
from mtlskit.store.files import PRIVATE, PUBLIC, flush_folder, write_file

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

CURRENT = "current"
CERT, KEY, ROOT = "client.crt", "client.key", "root.crt"
_FACTS = "version.json"
_VERSIONS = "versions"
_UNFINISHED = ".new-"
_NUMBER = re.compile(r"[0-9]{4,9}")
_POINTER = re.compile(rb"versions/([0-9]{4,9})\n?")
_LARGEST_FACTS = 64 * 1024
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})


@dataclass(frozen=True)
class Material:
    """What becomes a version: chain (leaf first) and key, PEM; and the server's CAs where they came along."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    root_pem: bytes | None = None


@dataclass(frozen=True)
class VersionFacts:
    """What is known of a version without reading its certificate. Times are ISO 8601, UTC."""

    issuer: str
    serial: str
    """Lower-case hexadecimal."""
    subject: str
    not_before: str
    not_after: str
    spki_sha256: str
    """Hexadecimal."""
    created_at: str
    rotation: str = ""
    """Which rotation made it: one that is repeated finds its own."""
    remote_id: str | None = None
    """What the issuer calls the certificate, where it has a name for it."""
    made_here: bool = False
    """We asked for it, and may revoke it."""
    origin: str = ""
    """Of which add-on, where that is the issuer."""


@dataclass(frozen=True)
class Version:
    """One version. The paths lead into its own folder, never through `current`."""

    number: int
    folder: Path
    facts: VersionFacts

    @property
    def cert(self) -> Path:
        """The certificate with its chain."""
        return self.folder / CERT

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / KEY

    @property
    def root(self) -> Path | None:
        """The server's CAs, where they belong to the version."""
        path = self.folder / ROOT
        return path if path.exists() else None


def resolve_current(folder: Path) -> Path:
    """The folder that `folder` means now: where it is a link or a file that points, what it points to.

    Raises OSError as `Path.resolve(strict=True)` does, and RuntimeError for a loop of links before Python 3.13.
    """
    if folder.name == CURRENT and folder.is_file():
        with folder.open("rb") as file:
            pointed = _POINTER.fullmatch(file.read(64))
        if pointed:
            folder = folder.parent / _VERSIONS / pointed[1].decode("ascii")
    return folder.resolve(strict=True)


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
            raise _unusable(self.root, "read", exc) from exc

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
        self._make((self.folder.parent, self.folder, self.folder / _VERSIONS))
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
        versions = self.folder / _VERSIONS
        unfinished = versions / f"{_UNFINISHED}{secrets.token_hex(4)}"
        target = versions / f"{number:04d}"
        try:
            try:
                unfinished.mkdir(mode=0o700)
                _fill(unfinished, material, facts)
                unfinished.rename(target)
            except BaseException:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise
            flush_folder(versions)
        except IdentityError as exc:  # of write_file, which names the file
            raise StoreError(Code.STORE_UNUSABLE, exc.sentence, exc.hint) from exc
        except OSError as exc:
            raise _unusable(target, "written", exc) from exc
        return Version(number, target, facts)

    def switch(self, version: Version) -> None:
        """Let `current` mean `version`, in one step. Raises `StoreError` (STORE_UNUSABLE); the old one stays then."""
        with suppress(StoreError):  # what cannot be followed is replaced
            if self._current_number() == version.number:
                return
        pointer = f"{_VERSIONS}/{version.folder.name}"
        current = self.folder / CURRENT
        try:
            _point(current, pointer)
            flush_folder(self.folder)
        except IdentityError as exc:
            raise StoreError(Code.STORE_UNUSABLE, exc.sentence, exc.hint) from exc
        except OSError as exc:
            raise _unusable(current, "switched", exc) from exc

    def sweep(self, *, keep: int = 3, rotation: str = "") -> None:
        """Remove what killed processes left, and versions older than the newest `keep`; never `current`.

        `rotation` is the one that is going on, whose pending files stay. What cannot be removed stays: it is in
        nobody's way.
        """
        _remove_where(self.folder / _VERSIONS, lambda name: name.startswith(_UNFINISHED))
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
        folder = self.folder / _VERSIONS / f"{number:04d}"
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
                raise _unusable(folder, "made", exc) from exc

    def _refuse_others(self) -> None:
        if not hasattr(os, "geteuid"):
            return
        try:
            above, found = self.folder.parent.stat(), self.folder.lstat()
        except OSError as exc:
            raise _unusable(self.folder, "looked at", exc) from exc
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
        path = self.folder / CURRENT
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
            raise _unusable(path, "read", exc) from exc
        pointed = _POINTER.fullmatch(text.replace(b"\\", b"/"))
        if not pointed:
            raise _damaged(path, "does not point to a version", "mtlskit certs list shows what is there")
        return int(pointed[1])

    def _numbers(self) -> list[int]:
        try:
            names = [entry.name for entry in os.scandir(self.folder / _VERSIONS)]
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _unusable(self.folder / _VERSIONS, "read", exc) from exc
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name))

    def _version(self, number: int) -> Version:
        folder = self.folder / _VERSIONS / f"{number:04d}"
        return Version(number, folder, _read_facts(folder / _FACTS))


def _fill(folder: Path, material: Material, facts: VersionFacts) -> None:
    write_file(folder / KEY, material.key_pem, mode=PRIVATE)
    write_file(folder / CERT, material.cert_pem, mode=PUBLIC)
    if material.root_pem is not None:
        write_file(folder / ROOT, material.root_pem, mode=PUBLIC)
    write_file(folder / _FACTS, (json.dumps(asdict(facts), indent=2) + "\n").encode("ascii"), mode=PUBLIC)


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


def _point(current: Path, pointer: str) -> None:
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


def _read_facts(path: Path) -> VersionFacts:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FACTS)
    except FileNotFoundError as exc:
        raise _damaged(path.parent, "is not there or not whole", _remedy(path)) from exc
    except OSError as exc:
        raise _unusable(path, "read", exc) from exc
    try:
        found = json.loads(content)
        known = {each.name for each in fields(VersionFacts)}
        facts = VersionFacts(**{name: value for name, value in found.items() if name in known})
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise _damaged(path, "is not what was written there", _remedy(path)) from exc
    texts = asdict(facts)
    remote_id, made_here = texts.pop("remote_id"), texts.pop("made_here")
    known_types = isinstance(remote_id, str | None) and isinstance(made_here, bool)
    if not known_types or not all(isinstance(text, str) for text in texts.values()):
        raise _damaged(path, "is not what was written there", _remedy(path))
    return facts


def _remedy(facts: Path) -> str:
    folder = facts.parent
    identity = folder.parent.parent
    return (
        f"restore it from a backup; or remove {folder}, and {identity / CURRENT} if it points there, then:"
        f" mtlskit certs rotate {identity.name}"
    )


def _damaged(path: Path, what: str, hint: str) -> StoreError:
    return StoreError(Code.STORE_DAMAGED, f"{path}: {what}", hint)


def _unusable(path: Path, what: str, exc: OSError) -> StoreError:
    return StoreError(
        Code.STORE_UNUSABLE,
        f"{path}: cannot be {what}: {exc.strerror or exc}",
        f"check that the disk has room and that the folder is yours; see `ls -ld {path.parent}`",
    )
