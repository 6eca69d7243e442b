"""The two log formats, which are contracts: lines for people, and JSON objects for machines."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

import pytest

from mtlskit.telemetry import Event, Level, json_log, people_log, silent
from mtlskit.telemetry.logs import printable

NOW = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class ThingHappened(Event):
    level: ClassVar[Level] = Level.WARNING

    what: str
    where: tuple[str, ...] = ("here", "there")
    number: int = 7
    message: str = "a field of this name does not become the sentence"

    def sentence(self) -> str:
        return f"it happened: {self.what}"


@dataclass(frozen=True, kw_only=True)
class Detail(Event):
    level: ClassVar[Level] = Level.DEBUG

    def sentence(self) -> str:
        return "a detail"


@dataclass(frozen=True, kw_only=True)
class Failure(Event):
    level: ClassVar[Level] = Level.ERROR

    def sentence(self) -> str:
        return "it failed"


def people(event: Event, *, level: Level = Level.INFO, colour: bool = False) -> str:
    stream = io.StringIO()
    people_log(stream, level=level, colour=colour, clock=lambda: NOW)(event)
    return stream.getvalue()


def machines(event: Event, *, level: Level = Level.INFO) -> str:
    stream = io.StringIO()
    json_log(stream, level=level, clock=lambda: NOW)(event)
    return stream.getvalue()


def test_a_line_for_people() -> None:
    assert people(ThingHappened(what="now")) == "2026-01-31T12:00:00Z warning it happened: now\n"
    assert people(Failure()) == "2026-01-31T12:00:00Z error   it failed\n"


def test_a_line_for_machines() -> None:
    line = machines(ThingHappened(what="now"))
    assert line.endswith("}\n")
    assert list(json.loads(line).items()) == [
        ("time", "2026-01-31T12:00:00.250+00:00"),
        ("level", "warning"),
        ("event", "thing_happened"),
        ("message", "it happened: now"),
        ("what", "now"),
        ("where", ["here", "there"]),
        ("number", 7),
    ]


@pytest.mark.parametrize("log", [people, machines])
def test_levels_below_the_chosen_one_are_left_out(log: object) -> None:
    assert callable(log)
    assert log(Detail()) == ""
    assert log(Detail(), level=Level.DEBUG) != ""
    assert log(ThingHappened(what="x"), level=Level.ERROR) == ""
    assert log(Failure(), level=Level.ERROR) != ""


def test_colours_are_by_level_and_end_with_the_line() -> None:
    assert people(Failure(), colour=True) == "\x1b[31m2026-01-31T12:00:00Z error   it failed\x1b[0m\n"
    assert people(ThingHappened(what="x"), colour=True).startswith("\x1b[33m")
    assert "\x1b" not in people(Failure())


@pytest.mark.parametrize(
    "attack",
    [
        "x\n2026-01-31T12:00:00Z info    forged",
        "x\r\x1b[2K\x1b[1Aforged",
        "\x1b]0;title\x07",
        "\x9b31m",
        "\u202eright to left",
        "\u2028line separator",
        "\x00",
        "\udcff lone surrogate",
        "\x85",
    ],
)
def test_nobody_forges_a_line_or_drives_a_terminal(attack: str) -> None:
    line = people(ThingHappened(what=attack))
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    assert len(line.splitlines()) == 1
    told = machines(ThingHappened(what=attack))
    assert told.isascii()
    assert told[:-1].isprintable()
    assert json.loads(told)["what"] == attack
    assert json.loads(told)["message"].isprintable()


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable("Zoë's 数据库 → done\\n") == "Zoë's 数据库 → done\\n"
    assert printable("a\tb\x1b\udcff") == "a\\tb\\x1b\\udcff"


class _Broken(io.StringIO):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")])
def test_a_stream_that_breaks_stops_nobody(error: Exception) -> None:
    people_log(_Broken(error))(Failure())
    json_log(_Broken(error))(Failure())


def test_the_real_clock_tells_utc() -> None:
    stream = io.StringIO()
    json_log(stream)(Failure())
    told = datetime.fromisoformat(json.loads(stream.getvalue())["time"])
    assert told.utcoffset() is not None
    assert abs((datetime.now(UTC) - told).total_seconds()) < 3600


def test_events_have_names_for_machines_and_the_silent_sink_takes_them() -> None:
    event = ThingHappened(what="x")
    assert event.name == "thing_happened"
    silent(event)
    with pytest.raises(NotImplementedError):
        Event().sentence()
