"""Files of lines: what was written whole is read, whatever happened to the end."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlskit.errors import Code, StoreError
from mtlskit.store.lines import append_line, read_lines

texts = st.text(max_size=40)
records = st.dictionaries(texts, st.none() | st.booleans() | st.integers() | texts | st.lists(texts, max_size=3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.jsonl"


def test_no_file_has_no_lines(path: Path) -> None:
    assert read_lines(path) == []


def test_what_was_added_is_read_and_the_file_is_private(path: Path) -> None:
    for number in range(3):
        append_line(path, {"number": number, "text": "é\n\u2028"})
    assert read_lines(path) == [{"number": number, "text": "é\n\u2028"} for number in range(3)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@settings(deadline=None)  # the disk takes its time
@given(written=st.lists(records, max_size=5), cut=st.integers(min_value=0), last=records)
def test_a_file_cut_anywhere_keeps_its_whole_lines(
    written: list[dict[str, Any]], cut: int, last: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.jsonl"
        for record in written:
            append_line(path, record)
        content = path.read_bytes() if written else b""
        kept = content[: cut % (len(content) + 1)]
        path.write_bytes(kept)
        whole = written[: kept.count(b"\n")]
        assert read_lines(path) == whole
        append_line(path, last)
        assert read_lines(path) == [*whole, last]


@pytest.mark.parametrize("length", [65_534, 65_535, 65_536, 65_537, 200_000])
def test_half_a_line_that_is_longer_than_a_block_is_cut_off(path: Path, length: int) -> None:
    append_line(path, {"number": 1})
    with path.open("ab") as file:
        file.write(b'{"' + b"x" * (length - 2))
    append_line(path, {"number": 2})
    assert read_lines(path) == [{"number": 1}, {"number": 2}]


@pytest.mark.parametrize("length", [65_500, 65_536, 200_000])
def test_long_lines_stay_whole(path: Path, length: int) -> None:
    for number in range(3):
        append_line(path, {"number": number, "text": "x" * length})
    assert [record["number"] for record in read_lines(path)] == [0, 1, 2]


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_what_could_not_be_written_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    append_line(path, {"number": 1})
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, bytes(data)[: len(data) // 2])

    def refuse(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    replacement: Callable[..., Any] = half if failing == "write" else refuse
    with monkeypatch.context() as patched:
        patched.setattr(os, failing, replacement)
        with pytest.raises(StoreError, match=str(path)) as caught:
            append_line(path, {"number": 2})
    assert caught.value.code is Code.STORE_UNUSABLE
    assert path.read_bytes() == b'{"number":1}\n'


def test_writes_may_be_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:3]))
    append_line(path, {"number": 1, "text": "some more"})
    assert read_lines(path) == [{"number": 1, "text": "some more"}]


@pytest.mark.parametrize("line", [b"nothing", b"[1]", b"7", b"\xff\xfe", b'{"a":' * 100_000])
def test_a_whole_line_that_is_none_is_told_with_its_number(path: Path, line: bytes) -> None:
    path.write_bytes(b'{"number":1}\n' + line + b'\n{"number":3}\n')
    with pytest.raises(StoreError, match=f"{path}:2: ") as caught:
        read_lines(path)
    assert caught.value.code is Code.STORE_DAMAGED


def test_more_than_the_limit_is_not_read(path: Path) -> None:
    append_line(path, {"number": 1})
    assert read_lines(path, limit=path.stat().st_size) == [{"number": 1}]
    with pytest.raises(StoreError, match=str(path)) as caught:
        read_lines(path, limit=path.stat().st_size - 1)
    assert caught.value.code is Code.STORE_DAMAGED


@pytest.mark.parametrize("use", [read_lines, lambda path: append_line(path, {})])
def test_a_folder_in_its_place(path: Path, use: Callable[[Path], object]) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match=str(path)) as caught:
        use(path)
    assert caught.value.code is Code.STORE_UNUSABLE


def test_a_link_is_not_written_through(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match=str(path)):
        append_line(path, {})
    assert not (tmp_path / "elsewhere").exists()


# Each adds lines of every length up to more than what a pipe or a page takes at once.
_ADD = """
import sys
from pathlib import Path
from mtlskit.store.lines import append_line
for number in range({count}):
    append_line(Path(sys.argv[1]), {{"who": sys.argv[2], "number": number, "text": "x" * (number * 97 % 6000)}})
"""


def test_processes_that_write_at_the_same_time(path: Path) -> None:
    names, count = ("a", "b", "c"), 40
    script = _ADD.format(count=count)
    writers = [subprocess.Popen([sys.executable, "-c", script, str(path), name]) for name in names]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    found = read_lines(path)
    for name in names:
        assert [record["number"] for record in found if record["who"] == name] == list(range(count))


def test_a_writer_that_is_killed_while_it_writes(path: Path) -> None:
    script = _ADD.format(count=1_000_000)
    with subprocess.Popen([sys.executable, "-c", script, str(path), "a"]) as writer:
        while not path.exists() or path.stat().st_size < 10_000:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
    before = read_lines(path)
    assert [record["number"] for record in before] == list(range(len(before)))
    append_line(path, {"who": "b"})
    assert read_lines(path) == [*before, {"who": "b"}]
    assert all(json.loads(line) for line in path.read_bytes().splitlines())
