"""How a wait is shown, on a clock that jumps."""

from __future__ import annotations

import io
import json

import pytest
import trio
import trio.testing

from mtlskit.cli.waiting import Progress, live_terminal
from mtlskit.heroku.events import HerokuCallDelayed
from mtlskit.heroku.netrc_file import NetrcExposed
from mtlskit.heroku.waiting import EndpointLookFailed, EndpointSeen


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What stood on the line, one after the other."""
        return self.getvalue().split("\r\x1b[K")[1:]


def seen(addon: str, status: str, elapsed: float, next_look: float | None) -> EndpointSeen:
    return EndpointSeen(addon=addon, status=status, elapsed=elapsed, next_look=next_look)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def test_a_line_can_be_rewritten_on_terminals_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert live_terminal(Terminal())
    assert not live_terminal(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not live_terminal(Terminal())


async def test_the_line_keeps_time(terminal: Terminal, autojump_clock: trio.testing.MockClock) -> None:
    progress = Progress(stream=terminal)

    async def work() -> str:
        progress.emit(seen("pg-1", "Provisioning", 118, 2.5))
        await trio.sleep(2.5)
        progress.emit(seen("pg-1", "Operational", 120.5, None))
        return "done"

    assert await progress.during(work) == "done"
    assert terminal.lines() == [
        "pg-1: Provisioning; 118 s so far, next look in 2 s",
        "pg-1: Provisioning; 119 s so far, next look in 2 s",
        "pg-1: Provisioning; 2 min so far, looking",
        "pg-1: Operational",
        "",
    ]


async def test_several_share_the_line(terminal: Terminal, autojump_clock: trio.testing.MockClock) -> None:
    progress = Progress(stream=terminal)
    progress.emit(seen("pg-1", "Provisioning", 10, 20))
    progress.emit(seen("pg-2", "Provisioning", 12, 8))
    assert terminal.lines()[-1] == "pg-1: Provisioning; pg-2: Provisioning; 12 s so far, next look in 8 s"
    progress.emit(seen("pg-2", "Operational", 20, None))
    assert terminal.lines()[-1] == "pg-1: Provisioning; pg-2: Operational; 10 s so far, next look in 20 s"


async def test_the_line_never_wraps_and_obeys_nobody(
    terminal: Terminal, autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    progress = Progress(stream=terminal)
    progress.emit(seen("pg-1", "Provision\x1b[2Jing", 10, 20))
    assert terminal.lines() == ["pg-1: Provision\\x1b[2Jing; 10"]


async def test_the_line_goes_when_the_wait_is_given_up(
    terminal: Terminal, autojump_clock: trio.testing.MockClock
) -> None:
    progress = Progress(stream=terminal)

    async def work() -> None:
        progress.emit(seen("pg-1", "Provisioning", 0, 1))
        raise KeyboardInterrupt

    with pytest.RaisesGroup(KeyboardInterrupt):
        await progress.during(work)
    assert terminal.lines()[-1] == ""


async def test_elsewhere_a_line_is_a_change(autojump_clock: trio.testing.MockClock) -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream)
    progress.emit(seen("pg-1", "Provisioning", 0, 1))
    progress.emit(seen("pg-1", "Provisioning", 1, 2))
    failed = EndpointLookFailed(addon="pg-1", reason="no connection", elapsed=30, next_look=20)
    progress.emit(failed)
    progress.emit(failed)
    progress.emit(seen("pg-1", "Operational", 300, None))
    assert stream.getvalue().splitlines() == [
        "pg-1: Provisioning",
        "pg-1: no connection; the wait goes on, after 30 s",
        "pg-1: Operational, after 5 min",
    ]


async def test_for_scripts_a_change_is_an_object(terminal: Terminal, autojump_clock: trio.testing.MockClock) -> None:
    progress = Progress(as_json=True, stream=terminal)
    for status in ("Provisioning", "Provisioning", "Operational"):
        progress.emit(seen("pg-1", status, 1, None))
    told = [json.loads(line) for line in terminal.getvalue().splitlines()]
    assert [(each["event"], each["status"]) for each in told] == [
        ("endpoint_seen", "Provisioning"),
        ("endpoint_seen", "Operational"),
    ]


async def test_warnings_of_others_clear_the_line(
    terminal: Terminal, autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(stream=terminal)
    progress.emit(NetrcExposed(path="/home/ann/.netrc"))
    assert terminal.getvalue() == ""
    progress.emit(seen("pg-1", "Provisioning", 0, 1))
    progress.emit(HerokuCallDelayed(method="GET", path="/x", reason="429", pause=9, tries=2))
    assert terminal.lines()[-1] == ""
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["warning", "warning"]
