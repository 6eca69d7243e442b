"""The sandbox's folder: taken up again, refused where it is not ours, and never used twice at once."""

from __future__ import annotations

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox import folder as module
from mtlskit.sandbox.folder import LOCK, MARKER, write_private
from mtlskit.sandbox.folder import open_folder as take
from mtlskit.sandbox.software import OrdinaryUser

US = OrdinaryUser("us", os.getuid(), os.getgid())
"""In the place of the user whom root lends PostgreSQL to: one that anybody who runs the tests may give files to."""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(path: Path) -> SandboxError:
    with pytest.raises(SandboxError) as caught, take(path):
        pass
    assert caught.value.code is Code.SANDBOX_DIR
    assert str(path) in caught.value.sentence
    return caught.value


def test_a_new_folder_is_private_and_remembers(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "space"
    with take(path) as folder:
        state = folder.state
        assert (mode(path), mode(path / MARKER)) == (0o700, 0o600)
    with take(path) as folder:
        assert folder.state == state
    assert state.password not in repr(state)
    assert state.api_key not in repr(state)


def test_an_empty_folder_becomes_ours(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with take(tmp_path):
        assert mode(tmp_path) == 0o700


def test_a_start_that_was_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    with take(tmp_path) as folder:
        assert folder.state.addon.startswith("postgresql-sandbox-")


def test_a_folder_of_others_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    tmp_path.chmod(0o755)
    assert "no sandbox made it" in refusal(tmp_path).sentence
    assert mode(tmp_path) == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file").sentence.endswith("this is a file, not a folder")
    refusal(tmp_path / "file" / "below")


def test_two_sandboxes_in_one_folder(tmp_path: Path) -> None:
    with take(tmp_path):
        assert "another sandbox is running" in refusal(tmp_path).sentence
    with take(tmp_path):
        pass


@pytest.mark.parametrize("content", ["", "{}garbage", "[]", '{"format": 2}', '{"unknown": 1}', "\udcff"])
def test_damaged_notes(tmp_path: Path, content: str) -> None:
    (tmp_path / MARKER).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "damaged" in refusal(tmp_path).sentence


def test_a_sandbox_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with take(tmp_path):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    assert f"belongs to the user with id {os.getuid()}" in refusal(tmp_path).sentence


class TestHome:
    def test_an_ordinary_user_keeps_everything_in_the_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "ordinary_user", lambda: None)
        with take(tmp_path) as folder:
            assert folder.postgres_home() == tmp_path / "postgres"
            assert mode(tmp_path / "postgres") == 0o700
            folder.forget_home()
            assert not (tmp_path / "postgres").exists()

    def test_root_lets_the_other_user_pass_through_and_see_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "ordinary_user", lambda: US)
        with take(tmp_path) as folder:
            assert folder.postgres_home() == tmp_path / "postgres"
            assert (mode(tmp_path), mode(tmp_path / "postgres")) == (0o710, 0o700)

    def test_a_folder_that_the_other_user_cannot_reach(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ordinary_user", lambda: US)
        monkeypatch.setattr(module, "reachable", lambda path, user, to_read: not path.is_relative_to(tmp_path))
        with take(tmp_path) as folder:
            home = folder.postgres_home()
            base = home.parent
            assert not home.is_relative_to(tmp_path)
            # Ours, not the other user's: what stands beside `home` cannot be replaced.
            assert (mode(home), mode(base), base.stat().st_uid) == (0o700, 0o711, os.geteuid())
            assert folder.postgres_home() == home
        with take(tmp_path) as folder:
            assert folder.postgres_home() == home
            base.chmod(0o755)  # somebody may have made a folder of that name since
            other = folder.postgres_home()
            assert other != home
            folder.forget_home()
            assert not other.parent.exists()
        assert json.loads((tmp_path / MARKER).read_text())["home_elsewhere"] is None
        shutil.rmtree(base)

    def test_no_folder_that_the_other_user_can_reach(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "ordinary_user", lambda: US)
        monkeypatch.setattr(module, "reachable", lambda path, user, to_read: False)
        with take(tmp_path) as folder, pytest.raises(SandboxError, match="reaches neither"):
            folder.postgres_home()


@pytest.mark.parametrize("empty", [True, False])
def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty: bool) -> None:
    if not empty:
        with take(tmp_path):
            pass
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    assert f"belongs to the user with id {tmp_path.stat().st_uid}" in refusal(tmp_path).sentence
    assert sorted(tmp_path.iterdir()) == before


def test_a_private_file_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_private(path, "old")
    assert mode(path) == 0o600

    def refuse(self: Path, target: Path) -> Path:
        raise OSError("no")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
