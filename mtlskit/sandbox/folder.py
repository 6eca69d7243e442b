"""The sandbox's folder on disk: whose it is, who uses it now, and what it remembers between two runs.

A marker file makes a folder ours; it holds what must stay the same from run to run (passwords, the add-on's name), so
it is private. A folder with anything else in it is refused: the sandbox changes modes and removes files, and does that
nowhere but in its own. A lock keeps a second sandbox out; the kernel lets go of it when the process ends, however.

PostgreSQL's files belong to an ordinary user when root runs the sandbox. That user may pass through the folder (mode
0710 and its group) to its own part, `postgres/`, and sees nothing else. Where it cannot even reach the folder (below
/root, say), its part lies in a private folder elsewhere, and the marker remembers where.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Final

from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox.software import OrdinaryUser, ordinary_user, reachable

__all__ = ["SpaceFolder", "SpaceState", "open_folder", "write_private"]

MARKER: Final = ".mtlskit-sandbox.json"
LOCK: Final = ".lock"
_FORMAT: Final = 1
_PASSABLE: Final = 0o711
"""A folder that only its owner may write to or list, and others may pass through to what they know the name of."""


@dataclass(frozen=True)
class SpaceState:
    """What the sandbox remembers."""

    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    """Of the database's user. Hexadecimal, so that it needs no quoting anywhere."""
    next_password: str | None = field(default=None, repr=False)
    """The one that is about to take its place. A sandbox that was killed in the middle of a change finds it here at its
    next start, and does not depend on knowing how far the server came."""
    api_key: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    addon: str = field(default_factory=lambda: f"postgresql-sandbox-{secrets.randbelow(90_000) + 10_000}")
    home_elsewhere: str | None = None
    """Where PostgreSQL's files are, if not in the sandbox's folder."""
    format: int = _FORMAT


@dataclass
class SpaceFolder:
    """A folder that is ours, and locked."""

    path: Path
    state: SpaceState

    def postgres_home(self) -> Path:
        """The private folder of PostgreSQL's files, owned by the user who runs it. Made where it is missing."""
        user = ordinary_user()
        home = self.path / "postgres"
        if user is None:
            home.mkdir(mode=0o700, exist_ok=True)
            return home
        os.chown(self.path, -1, user.gid)
        self.path.chmod(0o710)
        if reachable(self.path, user, to_read=False):
            home.mkdir(mode=0o700, exist_ok=True)
            os.chown(home, user.uid, user.gid)
            return home
        return self._home_elsewhere(user)

    def _home_elsewhere(self, user: OrdinaryUser) -> Path:
        if self.state.home_elsewhere is not None:
            remembered = Path(self.state.home_elsewhere)
            if _is_ours(remembered) and (remembered / "postgres").is_dir():
                return remembered / "postgres"
        # /var/tmp comes first: it outlives a restart of the host.
        for parent in dict.fromkeys(Path(name) for name in ("/var/tmp", tempfile.gettempdir(), "/tmp")):  # noqa: S108 - mkdtemp makes it private
            if parent.is_dir() and reachable(parent, user, to_read=False):
                # Root's own, and passable: what lies beside `home` is no other user's to replace.
                base = Path(tempfile.mkdtemp(prefix="mtlskit-sandbox-", dir=parent))
                base.chmod(_PASSABLE)
                home = base / "postgres"
                home.mkdir(mode=0o700)
                os.chown(home, user.uid, user.gid)
                self.remember(replace(self.state, home_elsewhere=str(base)))
                return home
        raise SandboxError(
            Code.SANDBOX_DIR,
            f"{self.path}: the user {user.name}, who runs PostgreSQL for root, reaches neither this folder nor /tmp",
            "choose a folder that every user can reach: --dir /var/tmp/space",
        )

    def own_data(self) -> Path | None:
        """The data that PostgreSQL has left here at an earlier start, if there are any."""
        elsewhere = self.state.home_elsewhere
        places = (self.path, Path(elsewhere)) if elsewhere is not None else (self.path,)
        return next((data for place in places if (data := place / "postgres" / "data").is_dir()), None)

    def remember(self, state: SpaceState) -> None:
        """Writes the marker anew."""
        self.state = state
        write_private(self.path / MARKER, json.dumps(asdict(state), indent=2) + "\n")

    @property
    def password(self) -> str:
        """The one that holds once the server has been told: see `next_password`."""
        return self.state.next_password or self.state.password

    def announce_password(self, password: str) -> None:
        """Notes what the server is going to be told."""
        self.remember(replace(self.state, next_password=password))

    def settle_password(self) -> None:
        """Notes that the server knows."""
        if self.state.next_password is not None:
            self.remember(replace(self.state, password=self.password, next_password=None))

    def forget_home(self) -> None:
        """Removes PostgreSQL's files, wherever they are."""
        for place in (self.path / "postgres", *self.path.glob("software-*")):
            shutil.rmtree(place, ignore_errors=True)
        if self.state.home_elsewhere is not None:
            shutil.rmtree(self.state.home_elsewhere, ignore_errors=True)
            self.remember(replace(self.state, home_elsewhere=None))


def _is_ours(path: Path) -> bool:
    """Whether `path` is still the folder we made: anybody may have taken its name in /var/tmp since."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == _PASSABLE


@contextmanager
def open_folder(path: Path) -> Iterator[SpaceFolder]:
    """Takes the folder: makes it (0700) or takes it up again, and keeps others out until the end.

    Raises SandboxError: it is not ours, it is in use, it cannot be read or written.
    """
    path = path.absolute()
    try:
        if path.is_file():
            sentence = f"{path}: this is a file, not a folder"
            raise SandboxError(Code.SANDBOX_DIR, sentence, "name a new or empty folder: --dir DIR")
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_ours(path)
        path.chmod(0o700)
        lock = (path / LOCK).open("a")
    except OSError as exc:
        raise SandboxError(
            Code.SANDBOX_DIR,
            f"{path}: the sandbox's folder cannot be used: {exc.strerror or exc}",
            "choose a folder that you can write to: --dir DIR",
        ) from exc
    with lock:
        _take(lock, path)
        folder = SpaceFolder(path, _read_state(path / MARKER))
        folder.remember(folder.state)
        yield folder


def _check_ours(path: Path) -> None:
    holder = path.stat().st_uid
    if sys.platform != "win32" and holder != os.geteuid():
        # Its owner could replace what we write there by name: keys, and for root anything at all.
        raise SandboxError(
            Code.SANDBOX_DIR,
            f"{path}: this folder belongs to the user with id {holder}",
            "run it as that user, or name a folder of your own: --dir DIR",
        )
    marker = path / MARKER
    if not marker.exists():
        if any(entry.name != LOCK for entry in path.iterdir()):
            raise SandboxError(
                Code.SANDBOX_DIR,
                f"{path}: this folder holds files, and no sandbox made it",
                "name a new or empty folder: --dir DIR",
            )
        return
    owner = marker.stat().st_uid
    if sys.platform != "win32" and owner != os.geteuid():
        raise SandboxError(
            Code.SANDBOX_DIR,
            f"{path}: this sandbox belongs to the user with id {owner}",
            "run it as that user, or name another folder: --dir DIR",
        )


def _take(lock: IO[str], path: Path) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise SandboxError(
            Code.SANDBOX_DIR,
            f"{path}: another sandbox is running in this folder",
            "stop it first, or name another folder: --dir DIR",
        ) from exc


def _read_state(marker: Path) -> SpaceState:
    if not marker.exists():
        return SpaceState()
    try:
        state = SpaceState(**json.loads(marker.read_text("utf-8")))
        if state.format == _FORMAT:
            return state
    except (OSError, ValueError, TypeError) as exc:
        raise _damaged(marker) from exc
    raise _damaged(marker)


def _damaged(marker: Path) -> SandboxError:
    return SandboxError(
        Code.SANDBOX_DIR,
        f"{marker}: the sandbox's own notes are damaged, or of another version",
        f"remove the folder and start anew: rm -r {marker.parent}",
    )


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read; the old one stays whole until the new one is."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:  # noqa: PTH123 - a descriptor, not a path
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
