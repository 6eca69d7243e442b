"""Files are written whole or not at all, with their mode, and never over another one unasked."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mtlskit.errors import Code, IdentityError
from mtlskit.store.files import PUBLIC, write_file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["links", "no links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with hard links, and one without."""
    if request.param == "no links":

        def refuse(*arguments: Any, **options: Any) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)


@pytest.mark.usefixtures("links")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("wanted", [0o600, PUBLIC])
def test_the_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, umask: int, wanted: int) -> None:
    before = os.umask(umask)
    try:
        write_file(tmp_path / "f", b"data", mode=wanted)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "f"), (tmp_path / "f").read_bytes()) == (wanted, b"data")
    assert only(tmp_path) == ["f"]


@pytest.mark.usefixtures("links")
def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "client.key"
    path.write_bytes(b"old")
    with pytest.raises(IdentityError) as caught:
        write_file(path, b"new")
    assert caught.value.code is Code.FILE_EXISTS
    assert str(path) in caught.value.sentence
    assert (path.read_bytes(), only(tmp_path)) == (b"old", ["client.key"])
    write_file(path, b"new", replace=True)
    assert (path.read_bytes(), mode(path), only(tmp_path)) == (b"new", 0o600, ["client.key"])


@pytest.mark.parametrize("leads", ["somewhere", "nowhere"])
def test_a_link_is_not_followed(tmp_path: Path, leads: str) -> None:
    target = tmp_path / "target"
    if leads == "somewhere":
        target.write_bytes(b"old")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(IdentityError) as caught:
        write_file(tmp_path / "link", b"new")
    assert caught.value.code is Code.FILE_EXISTS
    write_file(tmp_path / "link", b"new", replace=True)
    assert not (tmp_path / "link").is_symlink()
    assert target.exists() == (leads == "somewhere")
    if leads == "somewhere":
        assert target.read_bytes() == b"old"


@pytest.mark.parametrize("step", ["write", "fsync", "fchmod", "replace", "link"])
def test_a_failure_at_any_step_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "f"
    if step != "link":
        path.write_bytes(b"old")

    def full(*arguments: Any, **options: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step == "replace":
        monkeypatch.setattr(Path, "replace", full)
    elif step == "write":
        monkeypatch.setattr(os, "fdopen", full)
    else:
        monkeypatch.setattr(os, step, full)
    with pytest.raises(IdentityError) as caught:
        write_file(path, b"new", replace=step != "link")
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert "No space left on device" in caught.value.sentence
    assert only(tmp_path) == ([] if step == "link" else ["f"])
    assert step == "link" or path.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing/f", "No such file or directory"), ("folder", "Is a directory"), ("nul\0", "null")],
)
@pytest.mark.parametrize("replace", [False, True])
def test_a_place_that_is_none(tmp_path: Path, name: str, reason: str, replace: bool) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(IdentityError) as caught:
        write_file(tmp_path / name, b"data", replace=replace)
    assert caught.value.code is Code.FILE_UNWRITABLE
    assert reason in caught.value.sentence
    assert only(tmp_path) == ["folder"]
