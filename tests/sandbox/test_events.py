"""Every event of the sandbox can say itself on one line."""

from __future__ import annotations

from dataclasses import fields

import pytest

from mtlskit.sandbox import events
from mtlskit.telemetry import Event


@pytest.mark.parametrize("name", events.__all__)
def test_an_event_says_itself_and_names_what_it_carries(name: str) -> None:
    kind = getattr(events, name)
    values = {field.name: 4711 if field.type == "int" else f"<{field.name}>" for field in fields(kind)}
    event = kind(**values)
    assert isinstance(event, Event)
    sentence = event.sentence()
    assert "\n" not in sentence
    assert all(str(value) in sentence for value in values.values())


def test_a_ready_sandbox_says_what_to_type_next() -> None:
    said = events.SandboxReady(file="/srv/my space/sandbox.json").sentence()
    assert said.endswith("""in another terminal: . '/srv/my space/sandbox.env' && psql "$DATABASE_URL\"""")
