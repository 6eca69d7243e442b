"""Where control sockets lie: one folder for each user, and in it `PID.sock` for each running proxy.

The folder is what keeps others out, together with the mode of the socket (0600): whoever could put a socket of their
own in it could pose as a proxy, and whoever could remove one could hide it. So a folder is used only if it is ours and
nobody else may write to it. One that the operator names may belong to root, and be open to a group: that is a choice.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mtlskit.errors import Code, ConfigError

__all__ = [
    "NOT_SUPPORTED",
    "VARIABLE",
    "Place",
    "check_folder",
    "control_place",
    "pid_of",
    "prepare_folder",
    "supported",
]

VARIABLE: Final = "MTLSKIT_CONTROL"

NOT_SUPPORTED: Final = "there are no control sockets here: Python has no unix sockets on this platform"

_NAME: Final = re.compile(r"([1-9][0-9]{0,9})\.sock")


@dataclass(frozen=True)
class Place:
    """A folder of control sockets; `explicit` when somebody has named it."""

    folder: Path
    explicit: bool = False

    def socket_of(self, pid: int) -> Path:
        """The socket of the proxy with this process id."""
        return self.folder / f"{pid}.sock"


def supported() -> bool:
    """Whether this platform has unix sockets (Python on Windows does not)."""
    return hasattr(socket, "AF_UNIX") and hasattr(os, "getuid")


def pid_of(path: Path) -> int | None:
    """The process id in the name of a control socket, or None for any other file."""
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else None


def control_place(named: Path | None, environ: Mapping[str, str]) -> Place:
    """The folder to use: `named` (--control, its variable, or `control` of the file), else the user's own.

    That is systemd's `RuntimeDirectory` ($RUNTIME_DIRECTORY, the first of them) for a service, else `mtlskit` in
    $XDG_RUNTIME_DIR where that folder is ours, else `mtlskit-UID` in the folder for temporary files.
    """
    if named is not None:
        return Place(named.absolute(), explicit=True)
    first = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if first:
        return Place(Path(os.path.realpath(first)))  # with DynamicUser= it is a link that systemd has made
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    if runtime.is_absolute() and _is_ours(runtime):
        return Place(runtime / "mtlskit")
    return Place(Path(tempfile.gettempdir()) / f"mtlskit-{_uid()}")


def prepare_folder(place: Place) -> None:
    """Make the folder (0700) where it is missing, and check it. Raises ConfigError (CTL_FOLDER)."""
    try:
        place.folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        pass  # something else of this name: told below
    except OSError as exc:
        raise ConfigError(
            Code.CTL_FOLDER,
            f"{place.folder}: the folder for the control socket cannot be made: {exc.strerror or exc}",
            f"make it, or name another one with --control DIR or {VARIABLE}",
        ) from exc
    check_folder(place)


def check_folder(place: Place) -> None:
    """Refuse a folder in which somebody else could put sockets. One that is not there is nobody's.

    Raises ConfigError (CTL_FOLDER).
    """
    try:
        # What the operator names may be a link; a folder in /tmp must not be.
        found = place.folder.stat() if place.explicit else place.folder.lstat()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise _refused(place, f"cannot be looked at: {exc.strerror or exc}") from exc
    if not stat.S_ISDIR(found.st_mode):
        raise _refused(place, "is not a folder")
    owners = {_uid(), 0} if place.explicit else {_uid()}
    if found.st_uid not in owners and not (place.explicit and _uid() == 0):
        raise _refused(place, f"belongs to another user (user id {found.st_uid})")
    if found.st_mode & (stat.S_IWOTH if place.explicit else stat.S_IWOTH | stat.S_IWGRP):
        raise _refused(place, f"can be written to by others (mode {stat.S_IMODE(found.st_mode):04o})")


def _refused(place: Place, why: str) -> ConfigError:
    return ConfigError(
        Code.CTL_FOLDER,
        f"{place.folder}: no folder for control sockets: it {why}",
        f"see `ls -ld {place.folder}`; name a folder that only you may write to with --control DIR or {VARIABLE}",
    )


def _is_ours(folder: Path) -> bool:
    try:
        found = folder.stat()
    except (OSError, ValueError):  # ValueError: a path with a NUL
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == _uid()


def _uid() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else -1
