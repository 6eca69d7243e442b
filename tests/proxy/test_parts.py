"""Small parts: what the log is told of an end, and the limit of open files."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import trio

from mtlskit.net.relay import Ending, Outcome
from mtlskit.proxy.endings import SessionFacts, tell_ending
from mtlskit.proxy.events import SessionBroken, SessionClosed, SessionCrashed
from mtlskit.proxy.limits import raise_descriptor_limit
from mtlskit.telemetry import Event


async def _told(outcome: Outcome) -> list[Event]:
    events: list[Event] = []
    tell_ending(events.append, SessionFacts("t", "c", "db:5432", trio.current_time()), outcome)
    return events


async def test_a_fault_of_ours_in_the_relay_is_told_with_its_traceback() -> None:
    crashed, closed = await _told(Outcome(Ending.INTERNAL, 1, 2, ZeroDivisionError("ours")))
    assert isinstance(crashed, SessionCrashed)
    assert "ZeroDivisionError: ours" in crashed.traceback
    assert isinstance(closed, SessionClosed)
    assert (closed.ending, closed.bytes_up, closed.bytes_down) == ("internal", 1, 2)


@pytest.mark.parametrize(
    ("ending", "kinds"),
    [
        (Ending.CLIENT_LOST, [SessionClosed]),
        (Ending.CLIENT_CLOSED, [SessionClosed]),
        (Ending.UPSTREAM_LOST, [SessionBroken, SessionClosed]),
    ],
)
async def test_only_the_upstream_breaks_a_session(ending: Ending, kinds: list[type[Event]]) -> None:
    events = await _told(Outcome(ending, 0, 0, ConnectionResetError(104, "reset")))
    assert [type(event) for event in events] == kinds


def test_the_soft_limit_rises_to_the_hard_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    was: list[Any] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: was.append(limits))
    raise_descriptor_limit()
    assert was == [(4096, 4096)]

    def refuse(kind: int, limits: tuple[int, int]) -> None:
        raise ValueError("macOS names a hard limit that it then refuses")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    raise_descriptor_limit()


def test_a_platform_without_limits_has_nothing_to_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name == "resource":
            asked.append(name)
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    raise_descriptor_limit()
    assert asked == ["resource"]
