"""Help, colours, and what the command line imports: it is started often, and by people who wait for it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtlskit import __version__
from mtlskit.cli.main import app
from mtlskit.cli.render import colourful, fail, print_json, warn
from mtlskit.errors import Code, ConfigError

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text(encoding="utf-8")
EXIT_STATUSES = set(re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE))
HEAVY = ("trio", "cryptography", "pydantic", "rich", "httpx", "psycopg")

_LOOK = """
import sys
from mtlskit.cli.main import main
sys.argv = ["mtlskit", *sys.argv[1:]]
try:
    main()
except SystemExit as exc:
    assert not exc.code, exc.code
print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (("--help",), set()),
        (("--version",), set()),
        (("doctor", "--help"), {"pydantic"}),
        (("doctor", "explain", "--help"), {"pydantic"}),
        (("proxy", "--help"), {"pydantic"}),  # typer's own way to check the values of a command's options
    ],
)
def test_help_imports_nothing_heavy(arguments: tuple[str, ...], allowed: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOOK, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout
    assert set(HEAVY) & set(done.stderr.split()) <= allowed


def _help(*arguments: str, columns: int = 80) -> str:
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": str(columns)}, terminal_width=columns)
    assert result.exit_code == 0
    return result.stdout


def test_the_root_lists_its_commands_and_exit_statuses() -> None:
    shown = _help()
    assert set(re.findall(r"^    (\d+) ", shown, re.MULTILINE)) == EXIT_STATUSES
    assert all(f"\n  {command} " in shown for command in ("demo", "proxy", "status", "reload", "stop", "sandbox"))


def test_the_help_of_proxy_has_examples_signals_and_names_for_values() -> None:
    shown = _help("proxy")
    assert "\n    mtlskit proxy reporting " in shown
    assert "\n        --cert client.crt --key client.key --ca root.crt\n" in shown
    assert "SIGHUP" in shown
    assert "<str>" not in shown
    for line in ("--listen ADDR", "--cert FILE", "--allow-client CIDR", "--verify MODE", "--max-connections N"):
        assert f"\n  {line} " in shown


@pytest.mark.parametrize(
    "arguments",
    [
        *((), ("proxy",), ("demo",), ("sandbox",), ("status",), ("reload",), ("stop",)),
        *(("doctor",), ("doctor", "explain")),
    ],
)
def test_help_fits_a_terminal_of_80_columns(arguments: tuple[str, ...]) -> None:
    shown = _help(*arguments)
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert "..." not in shown.replace("[ARGS]...", "").replace("[TUNNEL]...", "").replace("[TEXT]...", "")


def test_no_arguments_show_the_help() -> None:
    result = CliRunner().invoke(app, [])
    assert "Commands:" in result.output
    assert result.exit_code in (0, 2)


def test_the_version() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"mtlskit {__version__}\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_need_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert colourful(_Terminal())
    assert not colourful(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not colourful(_Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colourful(_Terminal())


def test_an_error_on_a_terminal_is_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    fail(ConfigError(Code.USAGE, "no", "yes"))
    assert terminal.getvalue() == "\x1b[31merror:\x1b[0m no \x1b[2m[MTLS-CFG-012]\x1b[0m\n\x1b[2mhint:\x1b[0m  yes\n"


def test_an_error_and_a_result_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    fail(ConfigError(Code.USAGE, "no", "yes"), as_json=True)
    warn("careful", as_json=True)
    print_json({"a": [1]})
    captured = capsys.readouterr()
    error, warning = (json.loads(line) for line in captured.err.splitlines())
    assert error.pop("time")
    assert error == {
        "level": "error",
        "event": "error",
        "message": "no [MTLS-CFG-012]; yes",
        "code": "MTLS-CFG-012",
        "reason": "no",
        "hint": "yes",
    }
    assert (warning["level"], warning["event"], warning["message"]) == ("warning", "warned", "careful")
    assert json.loads(captured.out) == {"a": [1]}


def test_a_reader_that_has_gone_is_no_error() -> None:
    """`mtlskit … | head -1`: no traceback, neither at the line nor when Python ends."""
    program = (
        "import sys\n"
        "from mtlskit.cli.render import line\n"
        "line('first')\n"
        "sys.stdin.read()\n"
        "for _ in range(100): line('x' * 4000)\n"
        "raise SystemExit(7)\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(1)
        child.stdout.close()
        child.stdin.close()
        assert child.stderr.read() == b""
    assert child.returncode == 7, "it has gone on to its own end"


@pytest.mark.parametrize(
    ("arguments", "stdout", "stderr", "status"),
    [
        (["--version"], "/dev/full", "/dev/null", 1),
        (["--nope"], "/dev/null", "/dev/full", 2),
        (["--version"], "/dev/null", "/dev/full", 0),
    ],
)
def test_output_that_cannot_be_written(arguments: list[str], stdout: str, stderr: str, status: int) -> None:
    """A result that is lost is a failure, a message that is lost changes nothing. Python's own 120 is never seen."""
    with open(stdout, "w") as out, open(stderr, "w") as err:  # noqa: PTH123 - devices
        command = [sys.executable, "-m", "mtlskit", *arguments]
        assert subprocess.run(command, stdout=out, stderr=err, check=False).returncode == status
