"""`mtlskit certs issue` and `certs rotate`, with our own CA: their lines, their statuses and their JSON."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli.main import app
from tests.support.openssl import openssl

Run = Callable[..., Result]

REPORTING = """
[identity.reporting]
issuer = "ca"
ca_dir = "ca"
subject = "CN=reporting"
san = ["DNS:bi.example.com"]
"""
OTHERS = """
[identity.by-hand]
issuer = "csr"

[identity.elsewhere]
cert = "c.pem"
key = "k.pem"
"""
KEYS = {
    *("identity", "result", "told", "rotation", "version", "serial"),
    *("old_serial", "not_after", "step", "error", "notes"),
}


@pytest.fixture(scope="module")
def made_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CA that is made once, to be copied."""
    folder = tmp_path_factory.mktemp("made") / "ca"
    assert CliRunner().invoke(app, ["ca", "init", "--dir", str(folder), "--subject", "CN=our ca"]).exit_code == 0
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made_ca: Path) -> Run:
    """Run `mtlskit certs …` in a folder with a CA and a configuration; a text in `toml` replaces that."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("MTLSKIT_LOG", raising=False)
    shutil.copytree(made_ca, tmp_path / "ca")
    (tmp_path / "mtlskit.toml").write_text(REPORTING + OTHERS)

    def invoke(*arguments: str, toml: str | None = None) -> Result:
        if toml is not None:
            (tmp_path / "mtlskit.toml").write_text(toml)
        return CliRunner().invoke(app, ["certs", *arguments])

    return invoke


def outcomes(result: Result, status: int = 0) -> list[dict[str, Any]]:
    assert result.exit_code == status, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["identities"]
    return found


def refused(result: Result, status: int, *words: str) -> None:
    """One line of what is wrong and one of what to do, on the error stream."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    sentence, hint = result.stderr.splitlines()[-2:]
    assert sentence.startswith("error: ")
    assert hint.startswith("hint:  ")
    for word in words:
        assert word in result.stderr


def test_the_lines_that_scripts_rely_on(run: Run, tmp_path: Path) -> None:
    [first] = outcomes(run("issue", "reporting", "--json"))
    [second] = outcomes(run("rotate", "reporting", "--wait", "--json"))
    assert set(first) == set(second) == KEYS
    assert (first["identity"], first["result"]) == ("reporting", "rotated")
    assert (first["version"], first["old_serial"]) == (1, "")
    assert (second["version"], second["old_serial"], second["error"], second["notes"]) == (2, first["serial"], None, [])
    current = tmp_path / "identities" / "reporting" / "current"
    openssl("verify", "-purpose", "sslclient", "-CAfile", tmp_path / "ca" / "ca.crt", current / "client.crt")
    shown = openssl("x509", "-in", current / "client.crt", "-noout", "-serial", "-ext", "subjectAltName").decode()
    assert f"serial={second['serial'].upper()}" in shown.replace("serial=0", "serial=")
    assert "DNS:bi.example.com" in shown
    assert openssl("pkey", "-in", current / "client.key", "-pubout") == openssl(
        "x509", "-in", current / "client.crt", "-noout", "-pubkey"
    )
    assert stat.S_IMODE((current / "client.key").stat().st_mode) == 0o600


def test_for_people(run: Run) -> None:
    first = run("issue", "reporting")
    assert first.exit_code == 0, first.output
    [line] = first.stdout.splitlines()
    assert line.startswith("reporting: version 1, serial ")
    progress = [line.split(" ", 1)[1].strip() for line in first.stderr.splitlines()]
    assert progress[0] == "info    reporting: a new certificate from ca (first certificate)"
    assert any("staged version 1" in line for line in progress)
    assert "version 1, serial" not in first.stderr.replace("staged version 1", ""), "told once"


def test_quiet_leaves_the_result(run: Run) -> None:
    result = run("issue", "reporting", "--quiet")
    assert result.stderr == ""
    assert result.stdout.startswith("reporting: version 1")


def test_a_log_for_machines(run: Run) -> None:
    result = run("issue", "reporting", "--log", "json")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[0]["event"] == "rotation_begun"
    assert events[-1]["event"] == "rotated"
    assert events[-1]["serial"] in result.stdout


def test_what_is_there_is_not_issued_again(run: Run) -> None:
    outcomes(run("issue", "reporting", "--json"))
    refused(run("issue", "reporting"), 2, "MTLS-ROT-011", "mtlskit certs rotate reporting")


# Which ones.


def test_those_that_are_due(run: Run) -> None:
    assert [each["identity"] for each in outcomes(run("rotate", "--due", "--json"), 3)] == ["reporting", "by-hand"]
    [waiting] = outcomes(run("rotate", "--due", "--json"), 3)
    assert (waiting["identity"], waiting["result"], waiting["step"]) == ("by-hand", "waiting", "stage")
    assert "mtlskit certs import by-hand" in waiting["told"]
    result = run("rotate", "--due", toml=REPORTING)
    assert (result.exit_code, result.stdout) == (0, "nothing to do\n")
    always = REPORTING + 'lifetime = "1d"\nrenew_before = "99%"\n'
    assert outcomes(run("rotate", "--due", "--json", toml=always)) == []


def test_all(run: Run) -> None:
    found = outcomes(run("rotate", "--all", "--json"), 3)
    assert [each["identity"] for each in found] == ["reporting", "by-hand"]
    result = run("rotate", "--all")
    assert result.exit_code == 3
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == ["reporting", "by-hand"]
    assert "not done yet, waiting: have " in result.stdout


def test_nobody_to_rotate(run: Run) -> None:
    result = run("rotate", "--all", toml=OTHERS.partition("[identity.elsewhere]")[2].join(("[identity.x]", "")))
    assert (result.exit_code, result.stdout) == (0, "nothing to do\n")


def test_a_dry_run_changes_nothing(run: Run, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = run("rotate", "--all", "--dry-run")
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        "reporting: would ask ca for a certificate, and switch to it (it has no certificate yet)",
        "by-hand: would ask csr for a certificate, and switch to it (it has no certificate yet)",
    ]
    [one, _] = outcomes(run("rotate", "--due", "--dry-run", "--json"), 3)
    assert set(one) == {"identity", "would"}
    assert sorted(tmp_path.rglob("*")) == before
    outcomes(run("issue", "reporting", "--json"))
    result = run("rotate", "--due", "--dry-run", toml=REPORTING)
    assert (result.exit_code, result.stdout) == (0, "nothing to do\n")
    assert "(it is not due)" in run("rotate", "reporting", "--dry-run").stdout
    run("rotate", "--all", toml=REPORTING + OTHERS)
    result = run("rotate", "by-hand", "--dry-run")
    assert "would go on with rotation" in result.stdout
    assert "would ask csr" in run("rotate", "by-hand", "--dry-run", "--fresh").stdout


# Failures.


def test_one_that_fails_holds_up_no_other(run: Run, tmp_path: Path) -> None:
    broken = REPORTING.replace("reporting]", "broken]").replace('"ca"\nsubject', '"none"\nsubject')
    found = outcomes(run("rotate", "--all", "--json", toml=broken + REPORTING), 1)
    assert [(each["identity"], each["result"], each["step"]) for each in found] == [
        ("broken", "failed", "request"),
        ("reporting", "rotated", ""),
    ]
    assert found[0]["error"]["code"] == "MTLS-CA-001"
    assert set(found[0]["error"]) == {"code", "reason", "hint"}
    assert found[0]["told"] == found[0]["error"]["reason"]
    result = run("rotate", "broken")
    refused(result, 1, "MTLS-CA-001", str(tmp_path / "none"))


def test_a_failure_in_a_log_for_machines(run: Run) -> None:
    result = run("rotate", "reporting", "--log", "json", toml=REPORTING.replace('"ca"\nsubject', '"none"\nsubject'))
    assert (result.exit_code, result.stdout) == (1, "")
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert (events[-1]["event"], events[-1]["code"]) == ("rotation_failed", "MTLS-CA-001")
    assert events[-1]["step"] == "request"


def test_a_damaged_store_holds_up_no_other(run: Run, tmp_path: Path) -> None:
    two = REPORTING + REPORTING.replace("reporting]", "second]")
    outcomes(run("rotate", "--all", "--json", toml=two))
    (tmp_path / "identities" / "reporting" / "current").unlink()
    (tmp_path / "identities" / "reporting" / "current").write_text("elsewhere")
    (tmp_path / "identities" / "second" / "current").unlink()
    (tmp_path / "identities" / "reporting" / "journal.jsonl").write_text("elsewhere\n")
    [first, second] = outcomes(run("rotate", "--due", "--json"), 1)
    assert (first["identity"], first["error"]["code"]) == ("reporting", "MTLS-ROT-003")
    assert (second["identity"], second["result"]) == ("second", "rotated")
    (tmp_path / "identities" / "reporting" / "journal.jsonl").unlink()
    [first] = outcomes(run("rotate", "--due", "--json"))
    assert first["result"] == "rotated", "a `current` that leads nowhere is replaced"


def test_several_of_which_one_has_no_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEROKU_API_KEY", "")
    heroku = '[identity.cloud]\nissuer = "heroku"\naddon = "postgresql-curved-12345"\n'
    [cloud, reporting] = outcomes(run("rotate", "--all", "--json", toml=heroku + REPORTING), 1)
    assert (cloud["result"], cloud["step"], cloud["error"]["code"]) == ("failed", "begin", "MTLS-API-001")
    assert reporting["result"] == "rotated"
    refused(run("rotate", "cloud"), 2, "MTLS-API-001", "HEROKU_API_KEY")


def test_a_proof_that_fails(run: Run, tmp_path: Path) -> None:
    toml = (
        REPORTING + '[tunnel.sales]\nkind = "postgres"\nlisten = "127.0.0.1:0"\nupstream = "127.0.0.1:1"\n'
        'identity = "reporting"\nca = "ca/ca.crt"\n'
    )
    [outcome] = outcomes(run("issue", "reporting", "--json", toml=toml), 1)
    assert (outcome["step"], outcome["error"]["code"]) == ("prove", "MTLS-ROT-008")
    assert not os.path.lexists(tmp_path / "identities" / "reporting" / "current")
    assert "prove it for sales" in run("rotate", "reporting", "--dry-run", "--fresh").stdout
    [outcome] = outcomes(run("issue", "reporting", "--no-prove", "--json"))
    assert outcome["version"] == 1


# Wrong usage.


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("rotate",), ("MTLS-CFG-012", "NAME, --all or --due")),
        (("rotate", "reporting", "--all"), ("exclude each other",)),
        (("rotate", "--due", "--all"), ("exclude each other",)),
        (("rotate", "reportin"), ("MTLS-CFG-009", "did you mean reporting?")),
        (("rotate", "reporting", "elsewhere"), ("MTLS-ROT-006", 'issuer = "files"')),
        (("rotate", "reporting", "--wait", "--timeout", "soon"), ("--timeout",)),
        (("rotate", "reporting", "--log", "xml"), ("--log xml",)),
        (("rotate", "reporting", "--config", "none.toml"), ("MTLS-CFG-001",)),
        (("issue",), ("NAME",)),
        (("issue", "nobody"), ("MTLS-CFG-009",)),
        (("issue", "elsewhere"), ("MTLS-ROT-006",)),
    ],
)
def test_wrong_usage(run: Run, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(run(*arguments), 2, *words)
    assert not (tmp_path / "identities").exists()


def test_errors_as_json(run: Run) -> None:
    for arguments in (("rotate", "--json"), ("rotate", "x", "--json"), ("rotate", "x", "--log", "json")):
        result = run(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert set(json.loads(result.stderr)) >= {"code", "reason", "hint"}
