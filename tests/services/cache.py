"""Where fetched things are kept, outside the tree, and how an entry is made once although several runs want it.

An entry is a folder that is filled under another name and then renamed: if it is there, it is whole. Whoever fills it
holds a lock on a file beside it, so a second run waits for the first instead of fetching too. A run that was killed
leaves a half-filled folder under the working name; the next holder of the lock sweeps it away.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from platformdirs import user_cache_path

from tests.services.errors import UnavailableError

VARIABLE = "MTLSKIT_TEST_CACHE"
NAME = "mtlskit-tests"


def cache_root() -> Path:
    """``$MTLSKIT_TEST_CACHE``, or the user's cache folder.

    For root it is ``/var/cache``: PostgreSQL is run as another user then, who may not enter root's home.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).resolve()
    if sys.platform != "win32" and os.geteuid() == 0:
        return Path("/var/cache") / NAME
    return user_cache_path(NAME, appauthor=False)


def present(name: str) -> Path | None:
    """The entry of this name, or None where it was never filled."""
    target = cache_root() / name
    return target if target.is_dir() else None


def entry(name: str, fill: Callable[[Path], None]) -> Path:
    """The entry of this name; `fill` is called with an empty folder where the entry is not there yet.

    Whatever `fill` raises passes through, and leaves nothing behind.
    """
    target = cache_root() / name
    if target.is_dir():
        return target
    with _locked(_writable_root() / f".{name}.lock"):
        if target.is_dir():
            return target
        for stale in target.parent.glob(f".{name}.work-*"):
            shutil.rmtree(stale, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}.work-", dir=target.parent))
        try:
            fill(work)
            make_readable(work)
            work.rename(target)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


def make_readable(top: Path) -> None:
    """Let everyone read the tree, whatever the umask was: root fills the cache and another user runs what is in it."""
    for folder, _, names in os.walk(top):
        Path(folder).chmod(0o755)
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | 0o044 | (0o011 if mode & 0o100 else 0))


def _writable_root() -> Path:
    root = cache_root()
    try:
        if not root.is_dir():
            root.mkdir(parents=True)
            root.chmod(0o755)
        with tempfile.TemporaryFile(dir=root):
            return root
    except OSError as exc:
        raise UnavailableError(
            f"the cache of the tests, {root}, cannot be written: {exc}",
            f"name a folder of your own: export {VARIABLE}=DIR",
        ) from exc


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock. Waiting has no deadline of its own: the holder's fetch has one."""
    import fcntl

    with path.open("a") as file:  # never unlinked: a second holder could lock the unlinked file beside a third
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
