"""`mtlskit certs` with `issuer = "heroku"`, against the sandbox's API: Postgres, Kafka, and what is far away."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli.main import app
from mtlskit.store.identities import Store
from tests.support.fake_controls import fake_proxy, status_facts, tunnel_facts
from tests.support.far_heroku import KAFKA, POSTGRES, TOKEN, FarHeroku, far_heroku

Run = Callable[..., Result]

CONFIG = f"""
control = "proxies"

[identity.reporting]
issuer = "heroku"
addon = "{POSTGRES}"

[identity.events]
issuer = "heroku"
addon = "{KAFKA}"
"""
RESET = ("rotate", "events", "--reset-app-credentials")


@pytest.fixture
def far(tmp_path: Path) -> Iterator[FarHeroku]:
    with far_heroku(tmp_path) as running:
        yield running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: FarHeroku) -> Run:
    """Run `mtlskit certs …` in a folder with a configuration, and Heroku in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("MTLSKIT_LOG", "MTLSKIT_CONFIG", "MTLSKIT_CONTROL", "HEROKU_POSTGRESQL_HOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in far.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "proxies").mkdir(mode=0o700)
    (tmp_path / "mtlskit.toml").write_text(CONFIG, encoding="ascii")
    return lambda *arguments, **more: CliRunner().invoke(app, ["certs", *arguments], **more)


def outcome(result: Result, status: int = 0) -> dict[str, Any]:
    assert result.exit_code == status, result.output
    assert TOKEN not in result.output
    [found] = json.loads(result.stdout)["identities"]
    assert isinstance(found, dict)
    return found


def serial(tmp_path: Path, name: str) -> str:
    current = Store(tmp_path / "identities").identity(name).current()
    assert current is not None
    return current.facts.serial


def refused(result: Result, status: int, *words: str) -> None:
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


# Postgres.


def test_issue_rotate_and_revoke(run: Run, far: FarHeroku, tmp_path: Path) -> None:
    [first] = far.alive()
    issued = outcome(run("issue", "reporting", "--wait", "--json"))
    assert issued["result"] == "rotated"
    rotated = outcome(run("rotate", "reporting", "--wait", "--json"))
    assert (rotated["version"], rotated["old_serial"]) == (2, issued["serial"])
    assert set(far.alive().values()) >= {issued["serial"], rotated["serial"]}
    assert (tmp_path / "identities/reporting/current/root.crt").read_bytes() == far.hooks.authority.cert_pem
    result = run("revoke", "reporting", "--serial", issued["serial"], "--yes")
    assert "is disabled, at once and for good" in result.stdout
    assert issued["serial"] not in far.alive().values()
    assert first in far.alive()


def test_what_is_not_due_needs_no_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome(run("issue", "reporting", "--wait", "--json"))
    (Path("mtlskit.toml")).write_text(CONFIG.partition("[identity.events]")[0], encoding="ascii")
    monkeypatch.delenv("HEROKU_API_KEY")
    result = run("rotate", "--due")
    assert (result.exit_code, result.stdout) == (0, "nothing to do\n")
    refused(run("rotate", "reporting"), 2, "MTLS-API-001", "HEROKU_API_KEY")


def test_an_add_on_that_is_not_there(run: Run) -> None:
    Path("mtlskit.toml").write_text(CONFIG.replace(POSTGRES, "postgresql-sandbx-12345"), encoding="ascii")
    refused(run("issue", "reporting"), 1, "MTLS-API-005", POSTGRES)


# Kafka.


def test_a_kafka_identity_is_followed(run: Run, far: FarHeroku, tmp_path: Path) -> None:
    outcome(run("issue", "events", "--json"))
    first = serial(tmp_path, "events")
    assert first == far.credential
    assert (tmp_path / "identities/events/current/root.crt").read_bytes() == far.hooks.authority.cert_pem
    outcome(run("issue", "reporting", "--wait", "--json"))
    assert outcome(run("rotate", "--due", "--json"))["result"] == "nothing to do"
    assert run("rotate", "--due", "--dry-run").exit_code == 0
    reset(far)
    result = run("rotate", "--due", "--dry-run")
    assert result.exit_code == 3
    assert result.stdout.startswith("events: would take what the app's config vars hold by now, in place of serial ")
    assert serial(tmp_path, "events") == first
    assert outcome(run("rotate", "--due", "--json"))["serial"] == far.credential != first
    reset(far)
    found = json.loads(run("rotate", "--all", "--wait", "--json").stdout)["identities"]
    assert [each["result"] for each in found] == ["rotated", "rotated"]
    assert serial(tmp_path, "events") == far.credential
    assert json.loads(run("check", "--json").stdout)["fine"]


def reset(far: FarHeroku) -> None:
    """Somebody else resets the credential."""
    import trio

    async def go() -> None:
        async with far.opened() as heroku:
            await heroku.data.rotate_kafka_credentials(KAFKA)

    trio.run(go)


def test_by_its_name_it_is_refused(run: Run, far: FarHeroku, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome(run("issue", "events", "--json"))
    before = far.credential
    monkeypatch.setenv("HEROKU_API_KEY", "not needed")
    for more in ((), ("--dry-run",), ("--fresh",)):
        refused(run("rotate", "events", *more), 2, "MTLS-ROT-011", "restarts their dynos", "--reset-app-credentials")
    assert far.credential == before


def test_a_reset_names_the_apps_and_needs_a_yes(run: Run, far: FarHeroku, tmp_path: Path) -> None:
    outcome(run("issue", "events", "--json"))
    before = far.credential
    refused(run(*RESET), 2, "MTLS-ROT-011", "restarts the dynos of app sandbox", "--yes")
    result = run(*RESET, "--dry-run", "--yes")
    assert result.exit_code == 3
    assert "restarts the dynos of app sandbox" in result.stdout
    assert far.credential == before
    result = run(*RESET, "--yes", "--json")
    assert outcome(result)["old_serial"] == before
    assert "warning: events: a reset of kafka-sandbox-12345 ends the credential" in result.stderr
    assert serial(tmp_path, "events") == far.credential != before
    assert len(far.hooks.revoked) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("rotate", "--due", "--reset-app-credentials", "--yes"), 2, ("MTLS-CFG-012", "one identity, by its name")),
        (("rotate", "--all", "--reset-app-credentials", "--yes"), 2, ("MTLS-CFG-012",)),
        (("rotate", "events", "reporting", "--reset-app-credentials"), 2, ("MTLS-CFG-012",)),
        (("rotate", "reporting", "--reset-app-credentials", "--yes"), 1, ("MTLS-ROT-011", "is a Postgres add-on")),
    ],
)
def test_what_cannot_be_reset(run: Run, far: FarHeroku, arguments: Any, status: int, words: Any) -> None:
    before = far.credential
    refused(run(*arguments), status, *words)
    assert far.credential == before


def test_another_issuer_has_nothing_to_reset(run: Run) -> None:
    Path("mtlskit.toml").write_text('[identity.events]\nissuer = "csr"\n', encoding="ascii")
    refused(run(*RESET, "--yes"), 2, "MTLS-ROT-011", 'issuer = "csr"')


def test_a_reset_that_may_have_been_done_is_not_repeated(run: Run, far: FarHeroku) -> None:
    Path("mtlskit.toml").write_text(f'[identity.events]\nissuer = "heroku"\naddon = "{KAFKA}"\n', encoding="ascii")
    outcome(run("issue", "events", "--json"))
    before = far.credential
    far.fault("lose-before,match=rotate-credentials,times=1")
    found = outcome(run(*RESET, "--yes", "--timeout", "2s", "--json"), 3)
    assert found["result"] == "waiting"
    assert "--fresh" in found["told"]
    for more in (("rotate", "events"), ("rotate", "--due"), (*RESET, "--yes", "--timeout", "1s")):
        assert outcome(run(*more, "--json"), 3)["rotation"] == found["rotation"]
    assert far.credential == before
    assert outcome(run(*RESET, "--yes", "--fresh", "--json"))["serial"] == far.credential != before


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 1)])
def test_a_person_is_asked(run: Run, far: FarHeroku, answer: bytes, status: int) -> None:
    outcome(run("issue", "events", "--json"))
    before = far.credential
    master, terminal = pty.openpty()
    try:
        os.write(master, answer)
        done = subprocess.run(
            [sys.executable, "-m", "mtlskit", "certs", *RESET],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(master)
        os.close(terminal)
    assert done.returncode == status, done.stderr
    assert done.stderr.index("restarts the dynos of app sandbox") < done.stderr.index("Reset the credential?")
    assert (far.credential == before) is bool(status)
    assert not status or done.stdout.endswith("nothing was reset\n")


# What Heroku has.


def test_where_each_certificate_is_in_use(run: Run, far: FarHeroku, tmp_path: Path) -> None:
    [first] = far.alive()
    outcome(run("issue", "events", "--json"))
    one = outcome(run("issue", "reporting", "--wait", "--json"))["serial"]
    two = outcome(run("rotate", "reporting", "--wait", "--json"))["serial"]
    run("revoke", "reporting", "--serial", one, "--yes")
    tunnel = tunnel_facts(identity={"serial": two}) | {"name": "door", "sessions_by_serial": {two: 2, one: 1}}
    with fake_proxy(tmp_path / "proxies", 4711, {"status": status_facts(4711, tunnel)}):
        shown, result = run("list", "--remote"), run("list", "--remote", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [each["name"] for each in found["identities"]] == ["reporting", "events"]
    assert found["remote_problems"] == []
    postgres, kafka = found["remote"]
    assert (postgres["addon"], postgres["identities"], postgres["error"]) == (POSTGRES, ["reporting"], None)
    by_serial = {each["serial"]: each for each in postgres["certificates"]}
    assert set(by_serial) == {None, one, two}
    assert (by_serial[None]["id"], by_serial[None]["of_this_store"]) == (first, False)
    assert by_serial[two]["held_by"] == [
        {"identity": "reporting", "version": 2, "current": True, "rotation": None},
    ]
    assert by_serial[two]["status"] == "ready"
    assert by_serial[two]["proxies"] == [{"pid": 4711, "tunnels": ["door"], "sessions": 2}]
    assert by_serial[one]["proxies"] == [{"pid": 4711, "tunnels": ["door"], "sessions": 1}]
    assert by_serial[one]["status"] in ("disabling", "disabled")
    [held] = kafka["certificates"]
    assert held["id"] == "KAFKA_CLIENT_CERT of sandbox"
    assert held["serial"] == far.credential
    assert held["held_by"][0]["current"]
    lines = shown.stdout.partition("\n\n")[2].splitlines()
    assert re.split(r" {2,}", lines[0]) == ["ADD-ON", "CERTIFICATE", "STATUS", "EXPIRES (UTC)", "IN USE"]
    assert "not of this store" in lines[1]
    assert lines[3].endswith("reporting version 2, current; process 4711 (door, 2 sessions)")
    assert lines[4].endswith("events version 1, current")


def test_one_add_on_that_fails_hides_no_other(run: Run, far: FarHeroku) -> None:
    Path("mtlskit.toml").write_text(CONFIG.replace(KAFKA, "kafka-elsewhere"), encoding="ascii")
    result = run("list", "--remote")
    assert result.exit_code == 1
    assert POSTGRES in result.stdout
    assert "MTLS-API-005" in result.stderr
    [postgres, kafka] = json.loads(run("list", "--remote", "--json").stdout)["remote"]
    assert len(postgres["certificates"]) == 1
    assert (kafka["error"]["code"], kafka["certificates"]) == ("MTLS-API-005", [])


def test_without_it_nobody_is_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome(run("issue", "events", "--json"))
    monkeypatch.delenv("HEROKU_API_KEY")
    for command in ("list", "check"):
        assert "events" in run(command).stdout
    refused(run("list", "--remote"), 2, "MTLS-API-001")


def test_the_page_tells_of_every_key(run: Run) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text(encoding="utf-8")
    section = page.partition("\n## `mtlskit certs list`\n")[2].partition("\n## ")[0]
    section = section.partition("With `--remote` it also has")[2].partition("| Key |")[2]
    told = [key for cell in re.findall(r"^\| (`[a-z_`, ]+) \|", section, re.MULTILINE) for key in cell.split(", ")]
    found = json.loads(run("list", "--remote", "--json").stdout)
    assert set(found["remote"][0]) == {"addon", "identities", "error", "certificates"}
    assert [key.strip("`") for key in told] == list(found["remote"][0]["certificates"][0])


def test_what_the_store_or_a_proxy_does_not_tell(run: Run, tmp_path: Path) -> None:
    outcome(run("issue", "reporting", "--wait", "--json"))
    (tmp_path / "identities" / "reporting" / "journal.jsonl").write_text("rubbish\n")
    (tmp_path / "proxies").chmod(0o777)
    found = json.loads(run("list", "--remote", "--json").stdout)
    assert any("proxies" in problem for problem in found["remote_problems"])
    assert any("journal" in problem for problem in found["remote_problems"])
    assert "not known in full: " in run("list", "--remote").stdout


def test_a_credential_that_is_due(run: Run, far: FarHeroku) -> None:
    Path("mtlskit.toml").write_text(f'[identity.events]\nissuer = "heroku"\naddon = "{KAFKA}"\n', encoding="ascii")
    far.hooks.age = timedelta(days=340)
    reset(far)
    assert "is due already" in outcome(run("issue", "events", "--json"))["notes"][-1]
    before = far.credential
    result = run("check")
    assert result.exit_code == 3
    assert "mtlskit certs rotate events --reset-app-credentials --yes, which restarts the app's dynos" in result.stdout
    assert "--reset-app-credentials --yes" in outcome(run("rotate", "--due", "--json"), 3)["told"]
    assert run("rotate", "--due", "--dry-run").stdout.startswith("events: would do nothing: ")
    assert far.credential == before


def test_nothing_from_heroku(run: Run) -> None:
    Path("mtlskit.toml").write_text('[identity.events]\nissuer = "csr"\n', encoding="ascii")
    result = run("list", "--remote")
    assert result.exit_code == 0
    assert result.stdout.endswith("no identity has its certificates from Heroku\n")
