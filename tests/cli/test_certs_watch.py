"""`mtlskit certs watch` as a service runs it: it renews, and it stops when it is told to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtlskit.cli.main import app
from mtlskit.store.identities import Store

CONFIG = """\
[identity.reporting]
issuer = "ca"
ca_dir = "ca"
lifetime = "1h"
renew_before = "50%"

[identity.theirs]
cert = "their.crt"
key = "their.key"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("mtlskit.toml").write_text(CONFIG)
    made = CliRunner().invoke(app, ["ca", "init", "--dir", "ca", "--subject", "CN=our ca"])
    assert made.exit_code == 0, made.output
    return tmp_path


def test_it_issues_plans_and_stops(folder: Path) -> None:
    argv = [sys.executable, "-m", "mtlskit", "certs", "watch", "--log", "json"]
    with subprocess.Popen(argv, cwd=folder, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(json.loads(line))
            if seen[-1]["event"] == "renewal_planned":
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    assert [event["event"] for event in seen].count("rotated") == 1
    assert seen[0]["event"] == "warned"  # whose files are somebody else's is not watched, and that is said
    assert "theirs" in seen[0]["warning"]
    version = Store(folder / "identities").identity("reporting").current()
    assert version is not None
    assert version.facts.not_before < seen[-1]["at"] < version.facts.not_after


@pytest.mark.parametrize(
    ("names", "word"), [(["theirs"], "leaves its certificates to somebody else"), (["nobody"], "no identity nobody")]
)
def test_what_cannot_be_watched(folder: Path, names: list[str], word: str) -> None:
    refused = CliRunner().invoke(app, ["certs", "watch", *names])
    assert refused.exit_code == 2
    assert word in refused.stderr


def test_a_file_without_anything_to_watch(folder: Path) -> None:
    Path("mtlskit.toml").write_text(CONFIG.partition("[identity.theirs]")[1] + '\ncert = "a"\nkey = "b"\n')
    assert CliRunner().invoke(app, ["certs", "watch"]).exit_code == 2
