"""This host's id: made once, by whoever comes first, and never lost silently."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mtlskit.allowlist.state import VARIABLE, host_id, prepare_state, state_folder
from mtlskit.errors import Code, StoreError

ROOT = Path(__file__).parents[2]


def test_the_folder_is_the_one_that_is_named_or_the_users_own(tmp_path: Path) -> None:
    assert state_folder({VARIABLE: str(tmp_path)}) == tmp_path
    assert state_folder({}).name == "mtlskit"
    assert state_folder({VARIABLE: ""}) == state_folder({})


def test_the_id_is_made_once_and_is_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "state"
    made = host_id(folder)
    assert re.fullmatch(r"[0-9a-f]{8}", made)
    assert host_id(folder) == made
    assert stat.S_IMODE((folder / "owner").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert host_id(tmp_path / "other") != made


def test_many_that_need_it_at_once_agree(tmp_path: Path) -> None:
    for round_ in range(5):
        folder, found, start = tmp_path / str(round_), list[str](), threading.Barrier(6)

        def ask(folder: Path = folder, found: list[str] = found, start: threading.Barrier = start) -> None:
            start.wait()
            found.append(host_id(folder))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 6
        assert len(set(found)) == 1


def test_processes_that_need_it_at_once_agree(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    code = "import sys; from pathlib import Path; from mtlskit.allowlist.state import host_id"
    command = [sys.executable, "-c", f"{code}; print(host_id(Path(sys.argv[1])))", str(folder)]
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    found = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert found == {host_id(folder)}


def test_an_empty_file_is_one_that_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / "owner").touch()
    made = host_id(tmp_path)
    assert (tmp_path / "owner").read_text() == f"{made}\n"


@pytest.mark.parametrize("content", [b"web-1", b"0123ABCD", b"0123abcdef", b"\xff\xfe", b"0" * 100])
def test_a_file_with_something_else_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "owner").write_bytes(content)
    with pytest.raises(StoreError) as caught:
        host_id(tmp_path)
    assert caught.value.code is Code.STORE_DAMAGED
    assert (tmp_path / "owner").read_bytes() == content


def test_a_folder_that_cannot_be_made_is_told_with_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "state", Path("/proc/none")):
        with pytest.raises(StoreError) as caught:
            host_id(folder)
        assert caught.value.code is Code.STORE_UNUSABLE
        assert VARIABLE in caught.value.hint
        assert str(folder) in caught.value.sentence


def test_a_folder_that_takes_no_file_is_told_with_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def access(path: Path, mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", access)
    with pytest.raises(StoreError, match="not yours to write to") as caught:
        prepare_state(tmp_path)
    assert caught.value.hint == f"set {VARIABLE} to a folder that you may write to"
