"""A file with many tunnels is examined in bounded company: descriptors are not endless."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from mtlskit.doctor import examine
from mtlskit.doctor.case import Case, Means
from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.gather import from_file
from mtlskit.doctor.watching import Watcher


async def test_so_many_at_once_and_all_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = (
        '[tunnel.t{0}]\nkind = "tcp"\nlisten = "127.0.0.1:{1}"\nupstream = "db:1"\ncert = "c"\nkey = "k"\nca = "a"\n'
    )
    (tmp_path / "mtlskit.toml").write_text("".join(table.format(n, 20_000 + n) for n in range(50)))
    cases = from_file(tmp_path / "mtlskit.toml", [], Means()).cases
    together: list[int] = [0]
    most = 0

    async def counted(case: Case, watcher: Watcher | None = None) -> Diagnosis:
        nonlocal most
        together[0] += 1
        most = max(most, together[0])
        await trio.lowlevel.checkpoint()
        together[0] -= 1
        return Diagnosis(case.name, "tcp", "db:1", (), 0.0)

    monkeypatch.setattr(examine, "examine", counted)
    found = await examine.examine_all(cases)
    assert [diagnosis.name for diagnosis in found] == [f"t{n}" for n in range(50)]
    assert 2 <= most <= 16
