"""What stands on the terminal while the doctor looks, on a clock that jumps."""

from __future__ import annotations

import io

import pytest
import trio
import trio.testing

from mtlskit.cli.doctor_progress import Progress
from mtlskit.doctor.finding import Layer
from tests.support.reports import tcp


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What stood on the line, one after the other."""
        return self.getvalue().split("\r\x1b[K")[1:]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    return Terminal()


async def _look(progress: Progress) -> str:
    progress.began("reporting", Layer.TCP, "a:1")
    progress.began("events\x1b[2J", Layer.DNS, "b:1")
    await trio.sleep(0.25)
    progress.ended("reporting", Layer.TCP, "a:1", [tcp()])
    progress.began("reporting", Layer.TLS, "a:1")
    progress.began("reporting", Layer.TLS, "a:2")
    await trio.sleep(0.2)
    return "done"


async def test_the_line_follows_the_checks_and_goes(terminal: Terminal, autojump_clock: trio.testing.MockClock) -> None:
    progress = Progress(stream=terminal)
    assert await progress.during(lambda: _look(progress)) == "done"
    assert [line.partition(" s, ")[2] for line in terminal.lines()] == [
        "0 checks done; reporting: TCP; eve",
        "1 check done; reporting: TLS; even",
        "",
    ]
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert progress.found == {"reporting": [tcp()]}
    assert [each.check for each in progress.cut_short("reporting")] == ["tls.unfinished"]
    assert progress.cut_short("unknown") == []


@pytest.mark.parametrize("silent", [True, False])
async def test_elsewhere_nothing_is_said(silent: bool, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminal if silent else io.StringIO()
    progress = Progress(silent=silent, stream=stream)

    async def work() -> int:
        progress.began("a", Layer.TCP, "")
        return 1

    assert await progress.during(work) == 1
    assert stream.getvalue() == ""


async def test_a_terminal_that_has_gone_is_no_error(autojump_clock: trio.testing.MockClock) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    progress = Progress(stream=Gone())
    assert await progress.during(lambda: _look(progress)) == "done"
