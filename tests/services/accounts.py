"""Who runs the servers: ourselves, or an ordinary user where we are root, as which PostgreSQL refuses to run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from tests.services.errors import UnavailableError

# `postgres` first: it is there for this. `nobody` is on every Linux.
_CANDIDATES = ("postgres", "nobody")


class Credentials(TypedDict, total=False):
    """The arguments of `subprocess.Popen` that run a program as another user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True)
class Account:
    """Another user, whom we may become and give files to."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """The user to run servers as, or None for ourselves."""
    if os.geteuid() != 0:
        return None
    import pwd

    for name in _CANDIDATES:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, found.pw_uid, found.pw_gid)
    raise UnavailableError(
        "PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody' to run it as",
        "create one (useradd --system postgres) or run the tests as an ordinary user",
    )


def credentials(account: Account | None) -> Credentials:
    """What to give `subprocess.Popen` so that the program runs as this account."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def give(path: Path, account: Account | None) -> None:
    """Hand a file, or a folder with all that is in it, to the account."""
    if account is None:
        return
    os.chown(path, account.uid, account.gid)
    for folder, folders, names in os.walk(path):
        for name in (*folders, *names):
            os.chown(Path(folder, name), account.uid, account.gid, follow_symlinks=False)


def may_enter(path: Path) -> bool:
    """Whether any user may reach what stands, or will stand, at this path: every folder above it lets others pass."""
    return all(parent.stat().st_mode & 0o001 for parent in path.resolve().parents if parent.exists())
