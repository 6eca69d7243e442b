"""The journal of an identity: what is taken up, what is owed, and what is forgotten."""

from __future__ import annotations

import errno
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mtlskit.errors import Code, StoreError
from mtlskit.store import journal as module
from mtlskit.store.journal import ABANDONED, BEGUN, DONE, REVOKE, REVOKED, Journal

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.jsonl")


def test_an_empty_one(journal: Journal) -> None:
    assert journal.rotations() == []
    assert journal.unfinished() is None
    assert journal.owed() == []
    assert journal.finished() == ""


def test_a_rotation_is_read_as_it_was_written(journal: Journal) -> None:
    begun = journal.begin(NOW + timedelta(hours=1), reason="due")
    noted = journal.note(begun, "request", NOW, receipt={"id": "é"})
    found = journal.unfinished()
    assert found == noted
    assert found is not None
    assert list(found.steps) == [BEGUN, "request"]
    assert found.facts(BEGUN)["reason"] == "due"
    assert found.facts("request")["receipt"] == {"id": "é"}
    assert found.facts("request")["time"] == "2030-01-02T03:04:05+00:00"
    assert found.facts("stage") == {}
    assert found.id.startswith("20300102T040405Z-")


@pytest.mark.parametrize("ending", [DONE, ABANDONED])
def test_one_that_has_ended_is_not_taken_up(journal: Journal, ending: str) -> None:
    rotation = journal.begin(NOW)
    assert not journal.note(rotation, ending, NOW).open
    assert journal.unfinished() is None
    assert journal.finished() == (rotation.id if ending == DONE else "")


def test_only_the_last_one_is_taken_up(journal: Journal) -> None:
    first, second = journal.begin(NOW), journal.begin(NOW)
    assert first.id != second.id
    assert [each.id for each in journal.rotations()] == [first.id, second.id]
    journal.note(second, DONE, NOW)
    assert journal.unfinished() is None


def test_a_step_that_is_repeated_counts_as_the_last_time(journal: Journal) -> None:
    rotation = journal.begin(NOW)
    for number in range(2):
        journal.note(rotation, "stage", NOW, version=number)
    found = journal.unfinished()
    assert found is not None
    assert found.facts("stage")["version"] == 1


def test_debts_stay_until_they_are_paid(journal: Journal) -> None:
    owing, free = journal.begin(NOW), journal.begin(NOW)
    owing = journal.note(journal.note(owing, REVOKE, NOW, owed=True, serial="1"), DONE, NOW)
    journal.note(journal.note(free, REVOKE, NOW, owed=False), DONE, NOW)
    assert [each.id for each in journal.owed()] == [owing.id]
    journal.note(owing, REVOKED, NOW)
    assert journal.owed() == []


def test_lines_of_another_kind_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"rotation":7,"step":"begun"}\n{"other":1}\n{"rotation":"a","step":["begun"]}\n', encoding="ascii")
    assert Journal(path).rotations() == []


@pytest.fixture
def long(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> Journal:
    """Ten rotations, the first of which owes something; the next one makes the journal forget."""
    monkeypatch.setattr(module, "_LONG", 1000)
    monkeypatch.setattr(module, "_KEPT", 3)
    for number in range(10):
        # Not by begin(), which forgets.
        rotation = journal.note(module.Rotation(f"rotation-{number}"), BEGUN, NOW, note="é")
        journal.note(journal.note(rotation, REVOKE, NOW, owed=number == 0), DONE, NOW)
    return journal


def test_a_long_one_forgets_the_oldest_but_no_debts(long: Journal, tmp_path: Path) -> None:
    new = long.begin(NOW)
    found = [each.id for each in long.rotations()]
    assert found == ["rotation-0", "rotation-7", "rotation-8", "rotation-9", new.id]
    assert [each.id for each in long.owed()] == ["rotation-0"]
    assert long.finished() == "rotation-9"
    assert long.rotations()[0].facts(BEGUN)["note"] == "é"
    path = tmp_path / "journal.jsonl"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_while_it_forgets(long: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = (tmp_path / "journal.jsonl").read_bytes()
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StoreError, match=r"journal\.jsonl") as caught:
        long.begin(NOW)
    assert caught.value.code is Code.STORE_UNUSABLE
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_a_damaged_one_is_not_gone_on_with(journal: Journal, tmp_path: Path) -> None:
    journal.begin(NOW)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(StoreError, match=f"{path}:1") as caught:
        journal.unfinished()
    assert caught.value.code is Code.STORE_DAMAGED
