"""A report for people: what stands where, at which width, and in which letters."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest

from mtlskit.cli.doctor_view import show_change, show_report
from mtlskit.cli.table import cells
from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, skipped, warned
from mtlskit.doctor.report.changes import Change
from mtlskit.errors import Code, ConfigError, UpstreamError
from tests.support.reports import (
    AT,
    LONG_COMMAND,
    PLANTED,
    behind,
    diagnosis,
    healthy,
    hostile,
    no_tcp,
    refused,
    tcp,
    without_login,
)
from tests.support.reports import report as report_of

Shown = Callable[..., str]


class Output(io.StringIO):
    """Standard output, as a terminal or a pipe, in some encoding."""

    def __init__(self, *, terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__()
        self._terminal, self._encoding = terminal, encoding

    @property
    def encoding(self) -> str:  # type: ignore[override] # typeshed: an attribute that may be written
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal

    def write(self, text: str) -> int:
        text.encode(self._encoding)
        return super().write(text)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What is printed for a report."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def show(report: Report, *, columns: int | None = None, encoding: str = "utf-8", **how: bool) -> str:
        output = Output(terminal=columns is not None, encoding=encoding)
        monkeypatch.setattr(sys, "stdout", output)
        monkeypatch.setenv("COLUMNS", str(columns or 200))
        show_report(report, **how)
        return output.getvalue()

    return show


def test_the_cause_stands_first_and_then_the_layers(shown: Shown) -> None:
    assert shown(report_of(refused())) == (
        """\
reporting: postgres to db.example.com:5432

  Cause  203.0.113.9:5432 refuses the connection [MTLS-NET-002]
  To do  check the port, and that the server runs; the door of a Private Space
         is port 5433, not the database's own
           getent ahosts db.example.com
           mtlskit heroku status postgresql-curved-12345

  ✓ configuration       /etc/mtlskit/mtlskit.toml: postgres, verify full
  ✓ files               client.crt: readable, mode 0644; client.key: readable b…
  ! client identity     client.crt: the certificate CN=reporting ends in 6 days,
                        on 2026-03-07 [MTLS-ID-020]
                        get a new one before that day: a server refuses the old
                        one from then on, and every session with it
"""
        f"                          {LONG_COMMAND}"
        """
  – Heroku, allowlist   not looked at: no token
  ✓ DNS                 db.example.com has 1 address: 203.0.113.9
  ✗ TCP                 tcp.connect: the cause, above
  – first answer, TLS, client certificate, PostgreSQL: not looked at: needs TCP

it needs attention, with 1 warning; 2.1 s
"""  # noqa: RUF001 - dashes
    ).replace("it needs", "reporting needs")


@pytest.mark.parametrize("columns", [40, 64, 80, 120, 300])
@pytest.mark.parametrize("verbose", [False, True])
def test_lines_fit_and_commands_stay_whole(shown: Shown, columns: int, verbose: bool) -> None:
    everything = report_of(healthy(), refused(), hostile())
    lines = shown(everything, columns=columns, verbose=verbose).splitlines()
    plain = [_without_colours(line) for line in lines]
    commands = {each for found in everything.diagnoses for finding in found.findings for each in finding.commands}
    assert LONG_COMMAND in [line.strip() for line in plain]
    for line in plain:
        text = line.strip()
        whole = text in commands or text.startswith("curl ") or " " not in text or len(text.split(" ")[-1]) > 30
        assert cells(line) <= min(columns, 120) or whole, line


def _without_colours(line: str) -> str:
    for colour in ("0", "1", "2", "31", "32", "33"):
        line = line.replace(f"\x1b[{colour}m", "")
    return line


def test_strangers_drive_no_terminal_and_no_secret_is_shown(shown: Shown) -> None:
    text = shown(report_of(hostile()), verbose=True)
    assert all(character.isprintable() or character == "\n" for character in text)
    assert not [secret for secret in PLANTED if secret in text]
    assert r"\x1b[2J\x1b]0;gone\x07\u202e<script>" in text


def test_colours_are_for_terminals(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31mCause\x1b[0m" in shown(report_of(refused()), columns=80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shown(report_of(refused()), columns=80)


def test_an_output_without_the_letters(shown: Shown) -> None:
    text = shown(report_of(refused(), hostile()), encoding="ascii")
    assert "\n  x TCP " in text
    assert "\n  + DNS " in text
    assert "\n  - Heroku, allowlist " in text
    assert re.search(r"client\.key: readable.*\.\.\.\n", text)
    assert r"\u6570" in text


def test_quietly(shown: Shown) -> None:
    assert shown(report_of(healthy()), quiet=True) == ""
    text = shown(report_of(healthy(), refused()), quiet=True)
    assert "events" not in text
    assert "configuration" not in text
    assert "not looked at" not in text
    assert text.endswith("\n1 of 2 tunnels needs attention, with 1 warning; 2.1 s\n")


def test_every_check_with_its_facts(shown: Shown) -> None:
    text = shown(report_of(healthy()), verbose=True)
    assert (
        "\n  ✓ TLS                 ✓ TLSv1.3 with TLS_AES_256_GCM_SHA384\n"
        "                          tls.handshake, 43 ms\n"
        "                            version: TLSv1.3\n"
        "                            names: db.example.com, *.db.example.com\n"
        "                            modes: full yes, ca yes\n"
    ) in text


def configuration() -> Diagnosis:
    """A file that is wrong."""
    error = ConfigError(Code.CONFIG_SYNTAX, "mtlskit.toml:3: not TOML", "mend it")
    found = failed(Layer.CONFIGURATION, "configuration.read", error, about="mtlskit.toml")
    left_out = skipped(
        Layer.CONFIGURATION, "configuration.tunnel", "configuration.read", about="old", seen="not examined"
    )
    return Diagnosis("mtlskit.toml", "configuration", "", findings=(found, left_out), seconds=0)


def half_looked_at() -> Diagnosis:
    """There was no certificate to show."""
    return diagnosis("a", tcp(), skipped(Layer.CLIENT_CERTIFICATE, "client-certificate.skipped", "no certificate"))


@pytest.mark.parametrize(
    ("diagnoses", "said"),
    [
        ((), "there was nothing to look at"),
        ((healthy(),), "all is well"),
        ((healthy(), healthy("b"), healthy("c")), "all 3 tunnels are well"),
        ((half_looked_at(),), "nothing fails, but no server has seen our certificate"),
        ((healthy(), without_login("b")), "nothing fails; no login to PostgreSQL was tried"),
        ((healthy(), healthy("b")), "both tunnels are well"),
        ((refused("b"),), "b needs attention, with 1 warning"),
        ((refused(), refused("b"), healthy()), "2 of 3 tunnels need attention, with 2 warnings"),
        ((configuration(),), "the configuration needs attention"),
        ((configuration(), healthy()), "the configuration needs attention"),
        ((configuration(), refused()), "the configuration and reporting need attention, with 1 warning"),
    ],
)
def test_all_of_it_in_a_line(shown: Shown, diagnoses: tuple[Diagnosis, ...], said: str) -> None:
    assert shown(report_of(*diagnoses)).splitlines()[-1] == f"{said}; 2.1 s"


def test_a_file_that_is_wrong(shown: Shown) -> None:
    text = shown(report_of(configuration()))
    assert text.startswith("mtlskit.toml: the configuration file\n\n  Cause  mtlskit.toml:3: not TOML [MTLS-CFG-003]\n")


def test_what_ended_too_early(shown: Shown) -> None:
    waiting = skipped(Layer.TLS, "tls.unfinished", "the time was up", about="db.example.com:5432")
    text = shown(report_of(diagnosis("a", tcp(), waiting, complete=False)))
    assert "\n  Cause  not known: it ended before everything had been looked at" in text
    assert "--timeout 60" in text
    assert "not looked at: the time was up\n" in text


def test_what_several_addresses_have_in_common_is_said_once(shown: Shown) -> None:
    error = UpstreamError(Code.TLS_NAME_MISMATCH, "the name does not fit", "mend it")
    late = UpstreamError(Code.TCP_TIMEOUT, "it is slow", "wait")
    found = [failed(Layer.TLS, "tls.names", error, about=each) for each in ("a:1", "b:1")]
    slow = [warned(Layer.TCP, "tcp.connect", late, about=each) for each in ("a:1", "b:1")]
    text = shown(report_of(diagnosis("a", *slow, *found)))
    assert text.count("it is slow [MTLS-NET-003] (a:1, b:1)") == 1
    assert text.endswith("a needs attention, with 1 warning; 2.1 s\n")


def test_a_layer_of_which_a_part_was_skipped(shown: Shown) -> None:
    version = Finding(layer=Layer.POSTGRES, check="postgres.version", verdict=Verdict.PASS, seen="PostgreSQL 18.1")
    text = shown(report_of(diagnosis("a", version, skipped(Layer.POSTGRES, "postgres.login", "no password"))))
    assert (
        "  ✓ PostgreSQL          PostgreSQL 18.1\n                        not all was looked at: no password\n" in text
    )


def test_reasons_are_followed_to_the_first(shown: Shown) -> None:
    after = (
        *behind("heroku.endpoint", Layer.DNS),
        *behind("dns.resolve", Layer.TCP),
        *behind("tcp.connect", Layer.TLS),
    )
    text = shown(report_of(diagnosis("a", skipped(Layer.HEROKU, "heroku.endpoint", "no token"), *after)))
    assert "Heroku, DNS, TCP, TLS: not looked at: no token\n" in text


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (tcp(), "✓ a: tcp.connect (db) now passes: 203.0.113.9:5432 answers in 12 ms\n"),
        (None, "✓ a: tcp.connect (db) is not wrong any more\n"),
    ],
)
def test_a_change_for_the_better(monkeypatch: pytest.MonkeyPatch, after: Finding | None, said: str) -> None:
    output = Output()
    monkeypatch.setattr(sys, "stdout", output)
    show_change(Change(AT, "a", "tcp.connect", "db", Verdict.FAIL, after))
    assert output.getvalue() == f"{AT.astimezone():%H:%M:%S} {said}"


def test_a_change_for_the_worse_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output()
    monkeypatch.setattr(sys, "stdout", output)
    show_change(Change(AT + timedelta(hours=1), "a", "tcp.connect", "", Verdict.PASS, no_tcp()))
    first, *rest = output.getvalue().splitlines()
    assert first[8:] == " ✗ a: tcp.connect now fails: 203.0.113.9:5432 refuses the connection"
    assert rest[0].strip() == "[MTLS-NET-002]"
    assert rest[-1] == " " * 13 + "mtlskit heroku status postgresql-curved-12345"
