"""`mtlskit certs list` and `mtlskit certs check`: what they print, and their exit statuses."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mtlskit.cli.certs_list import ATTENTION
from mtlskit.cli.main import app
from mtlskit.pki.authority import Authority
from mtlskit.pki.keys import generate_key, private_key_pem
from mtlskit.store.journal import FAILED, Journal
from tests.support.stored_identities import put_version

Run = Callable[..., Result]
DAY = timedelta(days=1)

TUNNEL = """\
[tunnel.door]
kind = "postgres"
listen = "127.0.0.1:6432"
upstream = "db"
identity = "{0}"
"""


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test ca", now=datetime.now(UTC))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTLSKIT_CONFIG", raising=False)
    return lambda *arguments: CliRunner().invoke(app, ["certs", *arguments])


@pytest.fixture
def fill(tmp_path: Path, authority: Authority) -> Callable[..., None]:
    """Write a configuration with these identities of our own CA, by the days that their certificates are to live."""

    def write(**lives: int | None) -> None:
        text = ""
        for name, days in lives.items():
            text += f'[identity.{name}]\nissuer = "ca"\nca_dir = "ca"\nrenew_before = "10d"\n'
            if days is not None:
                begins = datetime.now(UTC) - 30 * DAY
                put_version(tmp_path / "identities", name, authority, begins=begins, lifetime=(30 + days) * DAY)
        text += TUNNEL.format(next(iter(lives)))
        (tmp_path / "mtlskit.toml").write_text(text, encoding="utf-8")

    return write


def states(result: Result) -> dict[str, str]:
    return {each["name"]: each["state"] for each in json.loads(result.stdout)["identities"]}


def test_a_list_for_people(run: Run, fill: Callable[..., None]) -> None:
    fill(reporting=100, etl=5, late=-2, new=None)
    result = run("list")
    assert result.exit_code == 0, result.output
    title, *rows = result.stdout.splitlines()
    assert title.split() == ["NAME", "ISSUER", "SUBJECT", "SERIAL", "EXPIRES", "(UTC)", "LEFT", "STATE", "USED", "BY"]
    assert [re.split(r" {2,}", row)[-2:] for row in rows] == [
        ["fine", "door"],
        ["due", "-"],
        ["expired", "-"],
        ["none yet", "-"],
    ]
    assert " CN=reporting " in rows[0]
    assert " 99 d " in rows[0]
    assert " -2 d " in rows[2]
    assert "\x1b" not in result.stdout


def test_a_damaged_one_is_told_below_and_the_others_are_shown(
    run: Run, fill: Callable[..., None], tmp_path: Path
) -> None:
    fill(reporting=100, etl=100)
    (tmp_path / "identities/reporting/versions/0001/client.crt").write_text("no")
    result = run("list")
    assert result.exit_code == 0
    assert re.search(r"^reporting .* damaged +door$", result.stdout, re.MULTILINE)
    assert re.search(r"^etl .* fine +-$", result.stdout, re.MULTILINE)
    assert re.search(r"^reporting: .*client.crt.*; mtlskit certs rotate reporting$", result.stdout, re.MULTILINE)


def test_what_the_file_does_not_name_is_listed_and_not_checked(
    run: Run, fill: Callable[..., None], tmp_path: Path, authority: Authority
) -> None:
    fill(reporting=100)
    put_version(tmp_path / "identities", "old", authority, begins=datetime.now(UTC) - 2 * DAY, lifetime=DAY)
    listed = run("list", "--json")
    assert states(listed) == {"reporting": "fine", "old": "not in the file"}
    assert json.loads(listed.stdout)["fine"] is True
    assert states(run("check", "--json")) == {"reporting": "fine"}


KEYS = ["name", "issuer", "state", "todo", "reason", "code", "warnings", "version", "subject", "serial", "not_before",
        "not_after", "due_at", "days_left", "rotating", "rotation_problem", "tunnels"]  # fmt: skip


def test_the_json_has_every_key_and_times_with_a_zone(run: Run, fill: Callable[..., None], tmp_path: Path) -> None:
    fill(reporting=100, new=None)
    shown = json.loads(run("list", "--json").stdout)
    assert list(shown) == ["fine", "store", "store_problem", "identities"]
    assert (shown["fine"], shown["store"], shown["store_problem"]) == (False, str(tmp_path / "identities"), None)
    reporting, new = shown["identities"]
    assert list(reporting) == list(new) == KEYS
    for key in ("not_before", "not_after", "due_at"):
        assert datetime.fromisoformat(reporting[key]).tzinfo is not None
        assert new[key] is None
    assert reporting["tunnels"] == ["door"]
    assert new["todo"] == "mtlskit certs issue new"


def test_the_page_tells_of_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/command-line.md").read_text(encoding="utf-8")
    section = page.partition("\n## `mtlskit certs list`\n")[2].partition("\n## ")[0].partition("| Key |")[2]
    section = section.partition("With `--remote`")[0]  # whose keys tests/cli/test_certs_heroku.py looks at
    told = [key for cell in re.findall(r"^\| (`[a-z_`, ]+) \|", section, re.MULTILINE) for key in cell.split(", ")]
    assert [key.strip("`") for key in told] == KEYS


@pytest.mark.parametrize(
    ("lives", "arguments", "status"),
    [
        ({"a": 100, "b": 50}, (), 0),
        ({"a": 100, "b": 5}, (), ATTENTION),
        ({"a": 100, "b": 5}, ("a",), 0),
        ({"a": 100, "b": 5}, ("b", "a"), ATTENTION),
        ({"a": -1}, (), ATTENTION),
        ({"a": None}, (), ATTENTION),
    ],
)
def test_the_status_of_check(
    run: Run, fill: Callable[..., None], lives: dict[str, int | None], arguments: tuple[str, ...], status: int
) -> None:
    fill(**lives)
    assert run("check", *arguments).exit_code == status
    result = run("check", *arguments, "--json")
    assert result.exit_code == status
    assert json.loads(result.stdout)["fine"] is (status == 0)


def test_a_verdict_is_a_line_with_what_to_do(run: Run, fill: Callable[..., None], tmp_path: Path) -> None:
    fill(reporting=100, etl=5, late=-2)
    (tmp_path / "identities/reporting/versions/0001/client.key").write_bytes(private_key_pem(generate_key()))
    damaged, due, expired = run("check").stdout.splitlines()
    assert damaged.startswith("reporting: damaged: ")
    assert "does not belong to" in damaged
    assert damaged.endswith("; mtlskit certs rotate reporting")
    assert re.fullmatch(r"etl: due, expires \d{4}-\d\d-\d\d \d\d:\d\d UTC \(4 d\); mtlskit certs rotate etl", due)
    assert re.fullmatch(r"late: expired \S+ \S+ UTC \(2 d ago\); mtlskit certs rotate late", expired)


def test_an_unfinished_rotation_wants_attention(run: Run, fill: Callable[..., None], tmp_path: Path) -> None:
    fill(reporting=100)
    journal = Journal(tmp_path / "identities/reporting/journal.jsonl")
    rotation = journal.begin(datetime.now(UTC))
    result = run("check")
    assert result.exit_code == ATTENTION
    assert re.fullmatch(
        r"reporting: fine, expires .* \(99 d\); rotation unfinished; mtlskit certs rotate reporting\n", result.stdout
    )
    journal.note(rotation, FAILED, datetime.now(UTC), at="prove", code="MTLS-ROT-001", reason="db refused it")
    assert "; rotation unfinished: db refused it; mtlskit certs rotate reporting\n" in run("check").stdout
    listed = run("list").stdout
    assert re.search(r"^reporting .* fine, unfinished +door$", listed, re.MULTILINE)
    assert listed.endswith("\nreporting: rotation unfinished: db refused it; mtlskit certs rotate reporting\n")
    shown = json.loads(run("check", "--json").stdout)
    assert (shown["fine"], shown["identities"][0]["rotation_problem"]) == (False, "db refused it")


def test_a_damaged_journal_is_told_with_its_own_remedy(run: Run, fill: Callable[..., None], tmp_path: Path) -> None:
    fill(reporting=100)
    (tmp_path / "identities/reporting/journal.jsonl").write_text("no\n")
    for command in ("check", "list"):
        told = run(command).stdout.splitlines()[-1]
        assert "journal.jsonl:1: not a record" in told
        assert "; restore the file from a backup" in told
        assert "certs rotate" not in told


def test_warnings_stand_below_a_verdict(run: Run, fill: Callable[..., None]) -> None:
    fill(reporting=12)
    result = run("check")
    assert result.exit_code == 0
    verdict, warning = result.stdout.splitlines()
    assert verdict.startswith("reporting: fine, expires ")
    assert warning.startswith("  warning: ")


def test_wrong_names_and_no_file(run: Run, fill: Callable[..., None]) -> None:
    missing = run("list")
    assert missing.exit_code == 2
    assert "MTLS-CFG-001" in missing.stderr
    fill(reporting=100)
    result = run("check", "reportin")
    assert result.exit_code == 2
    assert "there is no identity reportin; did you mean" in result.stderr
    assert json.loads(run("check", "x", "--json").stderr)["code"] == "MTLS-CFG-009"


def test_identities_alone_can_be_listed_and_make_no_proxy(run: Run, fill: Callable[..., None], tmp_path: Path) -> None:
    fill(reporting=100)
    file = tmp_path / "mtlskit.toml"
    file.write_text(file.read_text(encoding="utf-8").partition("[tunnel.")[0], encoding="utf-8")
    assert states(run("list", "--json")) == {"reporting": "fine"}
    refused = CliRunner().invoke(app, ["proxy"])
    assert refused.exit_code == 2
    assert "mtlskit.toml: there is no tunnel" in refused.stderr


@pytest.mark.parametrize("columns", [50, 60, 80, 200])
def test_a_terminal_gets_bars_in_colour_that_fit(
    run: Run, fill: Callable[..., None], tmp_path: Path, columns: int
) -> None:
    fill(reporting=100, etl=5)
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "MTLSKIT_CONFIG")}
    environment |= {"TERM": "xterm", "COLUMNS": str(columns), "PYTHONUTF8": "1"}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "mtlskit", "certs", "list"], stdout=theirs, cwd=tmp_path, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # EIO: the other side is closed
            while data := os.read(ours, 65536):
                shown += data
        assert process.wait(60) == 0
    os.close(ours)
    text = shown.decode()
    assert re.search(r"^reporting ", text, re.MULTILINE)
    assert "\x1b[32m████████░░ 99 d\x1b[0m" in text
    assert "\x1b[33m█░░░░░░░░░ 4 d\x1b[0m" in text
    assert all(len(re.sub(r"\x1b\[[0-9]*m", "", row).rstrip()) <= columns for row in text.splitlines())
