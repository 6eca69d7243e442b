"""`mtlskit heroku` as it is typed, against a tiny Heroku."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_process import TIMEOUT, clean_environment
from tests.support.tiny_heroku import TOKEN, TinyHeroku

MTLSKIT = [sys.executable, "-m", "mtlskit"]


@pytest.fixture
def heroku() -> Iterator[TinyHeroku]:
    with TinyHeroku(pg_up=["Operational"], pg_off=[None], kafka_1=[None]) as tiny:
        tiny.certificates += [
            {
                "id": "c-1",
                "name": "first",
                "status": "ready",
                "created_at": "2026-01-31 12:00:00 +0000",
                "updated_at": "2026-01-31 12:00:00 +0000",
                "expires_at": "2999-01-31T12:00:00Z",
            },
            {"id": "c-0", "name": "old", "status": "disabled", "created_at": "", "updated_at": "", "expires_at": None},
        ]
        tiny.rules += [
            {"id": "r-1", "cidr": "203.0.113.7/32", "description": "office", "status": "Authorized"},
            {"id": "r-2", "cidr": "203.0.113.8/32", "description": "home", "status": "Authorizing"},
        ]
        yield tiny


def environment(heroku: TinyHeroku, folder: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in clean_environment(folder).items() if not name.startswith("HEROKU")}
    return kept | dict(heroku.environment) | {"PYTHONPATH": str(Path(__file__).parents[2])} | more


def run(heroku: TinyHeroku, folder: Path, arguments: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*MTLSKIT, "heroku", *arguments],
        cwd=folder,
        env=environment(heroku, folder, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert TOKEN not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


def entries(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return {entry["addon"]: entry for entry in json.loads(done.stdout)["addons"]}


# status


def test_status_for_people(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["status", "pg-up", "--addon", "kafka-1", "--addon", "pg-up"])
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        r"""pg-up \(postgres, private-0, app tiny-app\)
  endpoint   Operational \(enabled by ann@example\.com\)
  rules      2 of 60, 1 not authorized yet
  CERTIFICATE  STATUS  EXPIRES \(UTC\)     LEFT
  c-1          ready   2999-01-31 12:00  \d+ d
  and 1 disabled

kafka-1 \(kafka, private-0, app tiny-app\)
  endpoint   none of its own: a Kafka add-on always speaks mTLS
  cluster    available
  rules      2 of 60, 1 not authorized yet
""",
        done.stdout,
    )
    assert done.stderr == ""


def test_status_for_scripts(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["status", "pg-up", "pg-off", "kafka-1", "--json"])
    assert done.returncode == 3
    assert json.loads(done.stdout)["operational"] is False
    found = entries(done)
    keys = {"addon", "app", "kind", "plan", "endpoint", "certificates", "rules", "cluster", "error"}
    assert all(set(entry) == keys for entry in found.values())
    assert found["pg-up"]["endpoint"] == {
        "status": "Operational",
        "operational": True,
        "enabled_by": "ann@example.com",
    }
    assert [each["id"] for each in found["pg-up"]["certificates"]] == ["c-1", "c-0"]
    assert found["pg-up"]["certificates"][0]["expires_at"] == "2999-01-31T12:00:00+00:00"
    rules = found["pg-up"]["rules"]
    assert (rules["used"], rules["limit"], rules["authorizing"]) == (2, 60, 1)
    assert rules["list"][0] == {
        "id": "r-1",
        "cidr": "203.0.113.7/32",
        "description": "office",
        "status": "Authorized",
    }
    assert (found["pg-off"]["endpoint"], found["pg-off"]["certificates"]) == (None, [])
    assert found["kafka-1"]["cluster"]["status"] == "available"


def test_status_says_how_to_enable(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["status", "pg-off"])
    assert done.returncode == 3
    assert "not enabled; mtlskit heroku enable pg-off" in done.stdout


def test_an_unknown_add_on_does_not_hide_the_others(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["status", "pg-up", "pg-upp"])
    assert done.returncode == 1
    assert "pg-up (postgres" in done.stdout
    assert "[MTLS-API-005]" in done.stderr
    assert "pg-up" in done.stderr.partition("hint:")[2]
    as_json = run(heroku, tmp_path, ["status", "pg-up", "pg-upp", "--json"])
    assert (as_json.returncode, as_json.stderr) == (1, "")
    found = entries(as_json)
    assert found["pg-upp"]["error"]["code"] == "MTLS-API-005"
    assert set(found["pg-upp"]) == set(found["pg-up"])


def test_the_add_ons_of_the_file(heroku: TinyHeroku, tmp_path: Path) -> None:
    (tmp_path / "mtlskit.toml").write_text(
        '[identity.a]\nissuer = "heroku"\naddon = "pg-up"\n[identity.b]\nissuer = "heroku"\naddon = "pg-up"\n'
    )
    done = run(heroku, tmp_path, ["status", "--json"])
    assert done.returncode == 0, done.stderr
    assert list(entries(done)) == ["pg-up"]


def test_an_unknown_add_on_of_the_file_is_told_with_its_key(heroku: TinyHeroku, tmp_path: Path) -> None:
    (tmp_path / "mtlskit.toml").write_text('[identity.a]\nissuer = "heroku"\naddon = "pg-upp"\n')
    told = run(heroku, tmp_path, ["status"]).stderr
    assert "(the add-on is named by " in told
    assert "mtlskit.toml:3: identity.a.addon)" in told
    assert "(the add-on is named by an argument)" in run(heroku, tmp_path, ["status", "pg-upp"]).stderr
    assert "(the add-on is named by --addon)" in run(heroku, tmp_path, ["status", "--addon", "pg-upp"]).stderr


def test_a_damaged_file_is_a_warning_where_the_add_on_is_named(heroku: TinyHeroku, tmp_path: Path) -> None:
    (tmp_path / "mtlskit.toml").write_text("[[[")
    done = run(heroku, tmp_path, ["status", "pg-up"])
    assert (done.returncode, done.stderr.startswith("warning: ")) == (0, True)
    assert run(heroku, tmp_path, ["status"]).returncode == 2
    assert run(heroku, tmp_path, ["status", "pg-up", "--config", "mtlskit.toml"]).returncode == 2


@pytest.mark.parametrize("arguments", [[], ["../apps"], ["a b"], [""], ["postgres://ann:hidden-word@h/d"], ["pg?x=1"]])
def test_no_add_on(heroku: TinyHeroku, tmp_path: Path, arguments: list[str]) -> None:
    for command in ("status", "enable", "wait", "disable"):
        done = run(heroku, tmp_path, [command, *arguments])
        assert (done.returncode, "[MTLS-CFG-012]" in done.stderr) == (2, True)
        assert "hidden-word" not in done.stderr
    assert heroku.calls == []


def test_without_a_token(heroku: TinyHeroku, tmp_path: Path) -> None:
    for key, words in (("", "is set and empty"), ("a\nb", "the end of a line")):
        done = run(heroku, tmp_path, ["status", "pg-up"], HEROKU_API_KEY=key)
        assert (done.returncode, words in done.stderr, "[MTLS-API-001]" in done.stderr) == (2, True, True)
    assert heroku.calls == []


def test_a_host_that_must_not_see_the_token(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["status", "pg-up"], HEROKU_DATA_HOST="https://example.com")
    assert (done.returncode, "[MTLS-API-013]" in done.stderr, heroku.calls) == (2, True, [])


def test_a_token_that_is_refused_is_told_once(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["status", "pg-up", "pg-off"], HEROKU_API_KEY="expired")
    assert (done.returncode, "[MTLS-API-002]" in done.stderr) == (1, True)
    assert "expired [" not in done.stderr


# enable


def test_enable_begins_and_says_how_to_wait(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["enable", "pg-off"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "pg-off: Provisioning; this takes minutes: mtlskit heroku wait pg-off\n"


def test_enable_leaves_an_endpoint_as_it_is(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["enable", "pg-up"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "pg-up: Operational\n", "")
    assert heroku.changes() == []


def test_enable_waits(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["enable", "pg-off", "--wait"])
    assert (done.returncode, done.stdout) == (0, "pg-off: Operational\n")
    assert done.stderr.splitlines()[0] == "pg-off: Provisioning"
    assert re.fullmatch(r"pg-off: Operational, after \d+ (s|min)", done.stderr.splitlines()[-1])
    assert heroku.changes() == ["POST /postgres/v0/databases/pg-off/tls-endpoint"]


def test_enable_for_scripts(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["enable", "pg-off", "--wait", "--json"])
    assert done.returncode == 0
    assert json.loads(done.stdout)["operational"] is True
    assert entries(done)["pg-off"]["endpoint"]["status"] == "Operational"
    told = [json.loads(each) for each in done.stderr.splitlines()]
    assert [each["status"] for each in told] == ["Provisioning", "Operational"]


def test_a_slip_in_one_name_enables_none(heroku: TinyHeroku, tmp_path: Path) -> None:
    for others, code in ((["pg-missing"], "MTLS-API-005"), (["kafka-1"], "MTLS-API-006")):
        done = run(heroku, tmp_path, ["enable", "pg-off", *others])
        assert (done.returncode, f"[{code}]" in done.stderr, heroku.changes()) == (1, True, [])
        as_json = run(heroku, tmp_path, ["enable", "pg-off", *others, "--json"])
        assert as_json.returncode == 1
        assert {name: entry["error"]["code"] for name, entry in entries(as_json).items()} == {others[0]: code}


def test_enable_passes_over_the_kafka_add_ons_of_the_file(heroku: TinyHeroku, tmp_path: Path) -> None:
    identities = "".join(
        f'[identity.{name}]\nissuer = "heroku"\naddon = "{addon}"\n'
        for name, addon in (("a", "pg-off"), ("b", "kafka-1"))
    )
    (tmp_path / "mtlskit.toml").write_text(identities)
    done = run(heroku, tmp_path, ["enable", "--json"])
    assert (done.returncode, list(entries(done))) == (0, ["pg-off"])


# wait


def test_wait_is_over(heroku: TinyHeroku, tmp_path: Path) -> None:
    heroku.statuses["pg-up"] = ["Provisioning"]
    done = run(heroku, tmp_path, ["wait", "pg-up", "--timeout", "100ms"])
    assert (done.returncode, done.stdout) == (3, "")
    assert "[MTLS-API-012]" in done.stderr
    assert "mtlskit heroku wait pg-up" in done.stderr
    as_json = run(heroku, tmp_path, ["wait", "pg-up", "--timeout", "100ms", "--json"])
    assert (as_json.returncode, entries(as_json)["pg-up"]["error"]["code"]) == (3, "MTLS-API-012")


def test_wait_for_what_is_not_enabled(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["wait", "pg-off"])
    assert (done.returncode, "[MTLS-API-014]" in done.stderr) == (1, True)
    gone = run(heroku, tmp_path, ["wait", "pg-off", "--gone"])
    assert (gone.returncode, gone.stdout) == (0, "pg-off: mTLS is not enabled\n")


def test_a_time_that_is_none(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["wait", "pg-up", "--timeout", "soon"])
    assert (done.returncode, "--timeout: " in done.stderr, heroku.calls) == (2, True, [])


@pytest.mark.parametrize(
    ("arguments", "again"),
    [
        (["wait", "pg-up"], "mtlskit heroku wait pg-up`"),
        (["enable", "pg-off", "--wait"], "mtlskit heroku wait pg-off`"),
    ],
)
def test_ctrl_c_leaves_things_as_they_are(heroku: TinyHeroku, tmp_path: Path, arguments: list[str], again: str) -> None:
    heroku.statuses["pg-up"], heroku.never_done = ["Provisioning"], True
    with subprocess.Popen(
        [*MTLSKIT, "heroku", *arguments],
        cwd=tmp_path,
        env=environment(heroku, tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert heroku.looked.wait(TIMEOUT)
            # Its line tells that the look has been taken in, and that it sleeps until the next one.
            assert process.stderr is not None
            assert process.stderr.readline() == f"{arguments[1]}: Provisioning\n"
            process.send_signal(signal.SIGINT)
            out, rest = process.communicate(timeout=TIMEOUT)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert "goes on at Heroku" in rest
    assert again in rest
    assert "Traceback" not in rest


# disable


def test_disable_needs_an_answer(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["disable", "pg-up"])
    assert (done.returncode, "--yes" in done.stderr, heroku.calls) == (2, True, [])


def test_disable_does_not_take_the_add_ons_of_the_file(heroku: TinyHeroku, tmp_path: Path) -> None:
    (tmp_path / "mtlskit.toml").write_text('[identity.a]\nissuer = "heroku"\naddon = "pg-up"\n')
    done = run(heroku, tmp_path, ["disable", "--yes"])
    assert (done.returncode, "[MTLS-CFG-012]" in done.stderr, heroku.calls) == (2, True, [])


def test_disable(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["disable", "pg-up", "--yes"])
    assert done.returncode == 0
    assert done.stdout == "pg-up: Deprovisioning; this takes minutes: mtlskit heroku wait pg-up --gone\n"


def test_disable_waits(heroku: TinyHeroku, tmp_path: Path) -> None:
    done = run(heroku, tmp_path, ["disable", "pg-up", "pg-off", "--yes", "--wait", "--json"])
    assert done.returncode == 0
    assert {name: entry["endpoint"] for name, entry in entries(done).items()} == {"pg-up": None, "pg-off": None}


class Terminal:
    """The command with a terminal, and what it has shown there."""

    def __init__(self, heroku: TinyHeroku, folder: Path, arguments: Sequence[str]) -> None:
        ours, theirs = os.openpty()
        self._terminal = ours
        self.process = subprocess.Popen(
            [*MTLSKIT, "heroku", *arguments],
            cwd=folder,
            env=environment(heroku, folder, TERM="xterm", COLUMNS="80"),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    def until(self, words: str) -> None:
        while words not in self.shown:
            chunk = os.read(self._terminal, 4096).decode()
            assert chunk, self.shown
            self.shown += chunk

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        try:
            while chunk := os.read(self._terminal, 4096):
                self.shown += chunk.decode()
        except OSError:
            pass  # Linux: nobody has the other end any more
        os.close(self._terminal)
        return self.process.wait(TIMEOUT)


def test_disable_asks_and_names_what_is_lost(heroku: TinyHeroku, tmp_path: Path) -> None:
    terminal = Terminal(heroku, tmp_path, ["disable", "pg-up"])
    terminal.until("Disable mTLS?")
    terminal.type("n\n")
    assert terminal.end() == 1
    assert "pg-up (app tiny-app): 1 client certificate and 2 IP rules" in terminal.shown
    assert "Not known" in terminal.shown
    assert heroku.changes() == []


def test_a_wait_on_a_terminal_rewrites_its_line(heroku: TinyHeroku, tmp_path: Path) -> None:
    terminal = Terminal(heroku, tmp_path, ["enable", "pg-off", "--wait"])
    assert terminal.end() == 0
    assert "\r\x1b[Kpg-off: Provisioning; 0 s so far, next look in 1 s" in terminal.shown
    assert terminal.shown.endswith("\r\x1b[Kpg-off: Operational\r\n")
