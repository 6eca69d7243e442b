"""What is true of every event in the house, and that docs/reference/logging.md tells of each."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mtlskit
from mtlskit.telemetry import Event

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "logging.md"
RESERVED = {"time", "level", "event", "message"}


def _every_event() -> Iterator[type[Event]]:
    for module in pkgutil.walk_packages(mtlskit.__path__, "mtlskit."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting = list(Event.__subclasses__())
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        base = kind.__name__.startswith("_") or kind.__module__.endswith(".bases")
        if kind.__module__.startswith("mtlskit.") and not base:
            yield kind


EVENTS = sorted(set(_every_event()), key=lambda kind: kind.__qualname__)
PROXY_EVENTS = [kind for kind in EVENTS if not kind.__module__.startswith("mtlskit.sandbox")]


def _sample(kind: type[Event]) -> Event:
    values: dict[str, object] = {"str": "text", "int": 2, "float": 1.5, "bool": True, "tuple[str, ...]": ("a", "b")}
    return kind(**{field.name: values.get(str(field.type), "text") for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_an_event_is_frozen_says_itself_on_one_line_and_has_no_reserved_field(kind: type[Event]) -> None:
    event = _sample(kind)
    assert event.sentence().isprintable()
    assert not event.sentence().endswith(".")
    assert not RESERVED & {field.name for field in dataclasses.fields(kind)}
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]  # what dataclass leaves behind


def _told() -> dict[str, tuple[str, list[str]]]:
    """From the tables of the page: event → level and fields."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", PAGE.read_text(), re.MULTILINE)
    return {name: (level, re.findall(r"`(\w+)`", fields)) for name, level, fields in rows}


def test_the_page_tells_of_every_event_with_its_level_and_fields() -> None:
    expected = {
        _sample(kind).name: (kind.level.name.lower(), [field.name for field in dataclasses.fields(kind)])
        for kind in PROXY_EVENTS
    }
    assert _told() == expected


@pytest.mark.parametrize(
    ("number", "sentence"),
    [(0, "stopped; every session had ended by itself"), (1, "1 session cut off"), (2, "2 sessions cut off")],
)
def test_a_count_of_one_is_singular(number: int, sentence: str) -> None:
    from mtlskit.proxy.events import DrainFinished

    assert DrainFinished(cut=number).sentence().endswith(sentence)
