"""The demo's last words name the program as it was called."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from mtlskit.cli.demo import as_called


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "which", lambda name: f"/opt/bin/{name}")
    return tmp_path


@pytest.mark.parametrize(
    ("program", "typed"),
    [
        (".venv/bin/mtlskit", ".venv/bin/mtlskit"),
        ("my venv/bin/mtlskit", "'my venv/bin/mtlskit'"),
        ("/opt/bin/mtlskit", "mtlskit"),
        ("/usr/m", "/usr/m"),
        ("./mtlskit", "./mtlskit"),
    ],
)
def test_as_called(program: str, typed: str) -> None:
    assert as_called(program) == typed


def test_a_whole_path_is_shortened(here: Path) -> None:
    assert as_called(str(here / ".venv" / "bin" / "mtlskit")) == ".venv/bin/mtlskit"
    assert as_called(str(here / "mtlskit")) == "./mtlskit"


def test_a_module_is_called_through_its_interpreter(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(here / "bin" / "python"))
    assert as_called("/site-packages/mtlskit/__main__.py") == "bin/python -m mtlskit"
