"""`mtlskit doctor` in this process: what becomes of flags, of reports, and of whoever interrupts."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner, Result

from mtlskit.cli.main import app
from mtlskit.config.values import TunnelKind, VerifyMode
from mtlskit.doctor.diagnosis import Report
from mtlskit.doctor.finding import Finding, Layer
from mtlskit.doctor.gather import Gathered
from mtlskit.doctor.watching import Watcher
from tests.support.reports import diagnosis, healthy, no_tcp, refused, report, tcp

FILE = """
[tunnel.reporting]
kind = "postgres"
listen = "127.0.0.1:6432"
upstream = "db.example.com"
cert = "c.pem"
key = "k.pem"

[tunnel.explain]
kind = "tcp"
listen = "127.0.0.1:6433"
upstream = "db.example.com:1"
cert = "c.pem"
key = "k.pem"
"""

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in an empty folder, with no variables but those given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    runner = CliRunner()

    def invoke(*arguments: str, **environment: str) -> Result:
        return runner.invoke(app, ["doctor", *arguments], env=environment)

    return invoke


class Looks:
    """What was to be examined, look by look, and what is said of it."""

    def __init__(self) -> None:
        self.gathered: list[Gathered] = []
        self.reports: Sequence[Report] = [report(healthy())]
        self.ended_by: signal.Signals | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    async def __call__(self, gathered: Gathered, watcher: Watcher) -> Report:
        self.gathered.append(gathered)
        self.meanwhile()
        if len(self.gathered) > len(self.reports):
            watcher.began("reporting", Layer.DNS, "")
            watcher.ended("reporting", Layer.DNS, "", [tcp()])
            watcher.began("reporting", Layer.TLS, "")
            assert self.ended_by is not None
            signal.raise_signal(self.ended_by)
            await trio.sleep_forever()
        return self.reports[len(self.gathered) - 1]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    found = Looks()
    monkeypatch.setattr("mtlskit.doctor.gather.diagnose", found)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mtlskit.toml"
    path.write_text(FILE)
    return path


# What is examined.


def test_a_tunnel_that_flags_describe(run: Run, looks: Looks) -> None:
    pin = "sha256/" + "A" * 43 + "="
    flags = ("--upstream", "db.example.com:5433", "--cert", "c.pem", "--key", "k.pem", "--ca", "ca.pem")
    done = run(*flags, "--verify", "ca", "--negotiation", "direct", "--pin", pin, "--timeout", "6s", "--offline")
    assert done.exit_code == 0, done.output
    [case] = looks.gathered[0].cases
    assert (case.kind, case.tunnel.verify.mode, case.of_file) == (TunnelKind.POSTGRES, VerifyMode.CA, False)
    assert case.identity is not None
    assert (case.means.deadline, case.means.step, case.means.heroku) == (6, 2, None)


def test_an_upstream_alone_is_enough(run: Run, looks: Looks) -> None:
    done = run("--upstream", "b1.example.com:9096", "--kind", "kafka", "--write-test", "canary")
    assert done.exit_code == 0, done.output
    [case] = looks.gathered[0].cases
    assert (case.kind, case.identity, case.means.write_test) == (TunnelKind.KAFKA, None, "canary")
    assert (case.means.deadline, case.means.step) == (15, 5)
    assert case.means.heroku is not None


def test_variables_describe_a_tunnel_too(run: Run, looks: Looks) -> None:
    assert run(MTLSKIT_UPSTREAM="a.example.com:1", MTLSKIT_KIND="tcp").exit_code == 0
    assert looks.gathered[0].cases[0].kind is TunnelKind.TCP


def test_the_tunnels_of_the_file(run: Run, looks: Looks, file: Path, tmp_path: Path) -> None:
    looks.reports = [report(healthy())] * 3
    assert run().exit_code == 0
    assert run("reporting", "--control", "here").exit_code == 0
    assert run("--config", str(file), "reporting").exit_code == 0
    assert [[case.name for case in each.cases] for each in looks.gathered] == [
        ["reporting", "explain"],
        ["reporting"],
        ["reporting"],
    ]
    assert looks.gathered[1].cases[0].config.control == Path("here")
    assert all(case.of_file and case.means.heroku is not None for case in looks.gathered[0].cases)


def test_a_tunnel_that_is_called_explain(run: Run, looks: Looks, file: Path) -> None:
    assert run("--", "explain").exit_code == 0
    assert [case.name for case in looks.gathered[0].cases] == ["explain"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), "MTLS-CFG-001", "mtlskit doctor --upstream HOST:5432"),
        (("reporting",), "MTLS-CFG-001", "there is no configuration file"),
        (("my.toml",), "MTLS-CFG-012", "for a file: --config my.toml"),
        (("reporting", "--upstream", "a:1"), "MTLS-CFG-012", "TUNNEL reporting and --upstream exclude each other"),
        (("--upstream", "a:1", "--config", "x"), "MTLS-CFG-012", "--config x and --upstream exclude each other"),
        (("--upstream", "a:1", "--cert", "c.pem"), "MTLS-CFG-006", "--key"),
        (("--upstream", "a:1", "--every", "3s"), "MTLS-CFG-012", "--every belongs to --watch"),
        (("--upstream", "a:1", "--watch", "--every", "often"), "MTLS-CFG-005", "--every: not a duration"),
        (("--upstream", "a:1", "--timeout", "0"), "MTLS-CFG-005", "--timeout: "),
        (("--upstream", "a:1", "--nope"), "MTLS-CFG-012", "--nope: there is no such option"),
    ],
)
def test_wrong_usage(run: Run, looks: Looks, arguments: tuple[str, ...], code: str, words: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert code in done.stderr
    assert words in done.stderr
    assert not looks.gathered


def test_a_variable_that_is_left_over_is_named(run: Run, looks: Looks, file: Path) -> None:
    done = run(MTLSKIT_CA="ca.pem")
    assert done.exit_code == 2
    assert "MTLSKIT_CA is set, so the configuration file is not read" in done.stderr


def test_an_unknown_tunnel_beside_explain(run: Run, looks: Looks, file: Path) -> None:
    done = run("reporting", "explain", "nowhere")
    assert done.exit_code == 2
    assert 'for an error text: mtlskit doctor explain "TEXT"' in done.stderr


def test_a_password_in_the_command_line_is_warned_of(run: Run, looks: Looks) -> None:
    done = run("--upstream", "postgres://ann:geheim@db.example.com/app")
    assert "--upstream holds a password" in done.stderr
    assert "geheim" not in done.output


# What is shown.


def test_a_healthy_report(run: Run, looks: Looks) -> None:
    done = run("--upstream", "a:1")
    assert done.exit_code == 0
    assert done.stdout.startswith("events: postgres to db.example.com:5432\n")
    assert done.stdout.endswith("\nall is well; 2.1 s\n")
    assert done.stderr == ""


def test_a_report_with_a_failure(run: Run, looks: Looks, tmp_path: Path) -> None:
    looks.reports = [report(healthy(), refused())]
    done = run("--upstream", "a:1", "--html", "report.html")
    assert done.exit_code == 3
    assert "1 of 2 tunnels needs attention" in done.stdout
    assert done.stdout.endswith("the same as a page: report.html\n")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_nothing_is_said_quietly_where_nothing_is_wrong(run: Run, looks: Looks) -> None:
    done = run("--upstream", "a:1", "--quiet", "--html", "report.html")
    assert (done.exit_code, done.output) == (0, "")


def test_a_report_for_scripts(run: Run, looks: Looks) -> None:
    looks.reports = [report(refused())]
    done = run("--upstream", "a:1", "--json")
    assert done.exit_code == 3
    assert json.loads(done.stdout)["tunnels"][0]["cause"]["code"] == "MTLS-NET-002"


def test_a_page_that_cannot_be_written(run: Run, looks: Looks, tmp_path: Path) -> None:
    done = run("--upstream", "a:1", "--html", "nowhere/report.html", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stderr)["code"] == "MTLS-DOC-003"
    assert not looks.gathered, "it is noticed before the look"


def test_an_interrupt_shows_what_was_found(run: Run, looks: Looks, file: Path) -> None:
    looks.reports, looks.ended_by = [], signal.SIGINT
    done = run("reporting", "--html", "report.html")
    assert done.exit_code == 130
    assert "✓ TCP " in done.stdout
    assert "– TLS                 not looked at: interrupted" in done.stdout  # noqa: RUF001 - a dash
    assert "interrupted: this is what was seen so far\n" in done.stdout
    assert Path("report.html").exists()


def test_an_interrupt_for_scripts(run: Run, looks: Looks, file: Path) -> None:
    looks.reports, looks.ended_by = [], signal.SIGTERM
    done = run("--json")
    assert done.exit_code == 130
    read = json.loads(done.stdout)
    assert [(each["name"], each["complete"], each["healthy"]) for each in read["tunnels"]] == [
        ("reporting", False, False),
        ("explain", False, False),
    ]
    assert read["source"].endswith("mtlskit.toml")


@pytest.mark.parametrize(("last", "status"), [(tcp(), 0), (no_tcp(), 3)])
def test_watching_prints_changes(run: Run, looks: Looks, last: Finding, status: int) -> None:
    looks.reports = [report(diagnosis("a", each)) for each in (tcp(), no_tcp(), last)]
    looks.ended_by = signal.SIGINT
    done = run("--upstream", "a:1", "--watch", "--every", "1ms", "--html", "report.html")
    assert done.exit_code == status
    said = done.stdout.splitlines()
    assert said[0] == "a: postgres to db.example.com:5432"
    [news] = [line for line in said if "now fails" in line]
    assert "✗ a: tcp.connect (db.example.com:5432) now fails: " in news
    assert "getent ahosts db.example.com" in [line.strip() for line in said]
    assert ("Nothing is wrong" in Path("report.html").read_text(encoding="utf-8")) is (status == 0)


def test_watching_for_scripts(run: Run, looks: Looks) -> None:
    looks.reports = [report(diagnosis("a", no_tcp())), report(diagnosis("a", tcp()))]
    looks.ended_by = signal.SIGINT
    done = run("--upstream", "a:1", "--watch", "--every", "1ms", "--json")
    assert done.exit_code == 0
    first, change = map(json.loads, done.stdout.splitlines())
    assert (first["type"], first["healthy"]) == ("report", False)
    assert (change["type"], change["before"], change["after"]) == ("change", "fail", "pass")


def test_the_file_is_read_anew_for_each_look(run: Run, looks: Looks, file: Path) -> None:
    looks.reports, looks.ended_by = [report(healthy())] * 2, signal.SIGINT
    looks.meanwhile = lambda: file.write_text(FILE.replace("explain", f"new-{len(looks.gathered)}"))
    assert run("--watch", "--every", "1ms").exit_code == 0
    assert [[case.name for case in each.cases][1] for each in looks.gathered] == ["explain", "new-1", "new-2"]


def test_a_tunnel_that_is_taken_out_of_the_file_ends_the_watching(run: Run, looks: Looks, file: Path) -> None:
    looks.meanwhile = lambda: file.write_text(FILE.replace("reporting", "other"))
    done = run("reporting", "--watch", "--every", "1ms")
    assert done.exit_code == 2
    assert "there is no tunnel reporting" in done.stderr


# Error texts.


@pytest.mark.parametrize("words", [("SSL error: tlsv1 alert unknown ca",), ("tlsv1", "alert", "unknown", "ca")])
def test_an_error_text_is_explained(run: Run, words: tuple[str, ...]) -> None:
    done = run("explain", *words)
    assert done.exit_code == 0
    assert "[MTLS-TLS-010]" in done.stdout
    assert "\n  To do  " in done.stdout
    assert "docs/reference/errors.md#mtls-tls-010" in done.stdout


def test_an_error_text_from_standard_input() -> None:
    text = "x" * 500_000 + "\nSSL error: tlsv1 alert unknown ca\n"
    done = CliRunner().invoke(app, ["doctor", "explain", "-", "--json"], input=text)
    assert done.exit_code == 0
    [explanation] = json.loads(done.stdout)["explanations"]
    assert set(explanation) == {"code", "says", "meaning", "hint", "commands", "section"}
    assert explanation["code"] == "MTLS-TLS-010"


def test_an_error_text_that_is_not_known(run: Run) -> None:
    done = run("explain", "all is well")
    assert done.exit_code == 1
    assert "MTLS-DOC-002" in done.stderr


def test_a_text_is_demanded_where_nobody_pipes_one_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlskit.cli.doctor_explain.at_a_terminal", lambda: True)
    done = run("explain")
    assert done.exit_code == 2
    assert "TEXT is missing" in done.stderr


def test_an_empty_pipe_holds_no_error(run: Run) -> None:
    done = run("explain")
    assert done.exit_code == 1
    assert "MTLS-DOC-002" in done.stderr
