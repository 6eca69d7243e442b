"""What the control socket tells the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.telemetry import Event, Level

__all__ = ["ControlAsked", "ControlCrashed", "ControlOpened", "ControlRefused", "ControlUnavailable"]


@dataclass(frozen=True, kw_only=True)
class ControlOpened(Event):
    """`mtlskit status`, `reload` and `stop` can reach this proxy."""

    level: ClassVar[Level] = Level.DEBUG

    path: str

    def sentence(self) -> str:
        return f"control socket: {self.path}"


@dataclass(frozen=True, kw_only=True)
class ControlAsked(Event):
    """Somebody has asked over the control socket that something be done: `reload` or `stop`."""

    do: str

    def sentence(self) -> str:
        return f"asked over the control socket: {self.do}"


@dataclass(frozen=True, kw_only=True)
class ControlUnavailable(Event):
    """There is no control socket, and the proxy runs without."""

    level: ClassVar[Level] = Level.WARNING

    code: str
    reason: str
    hint: str

    def sentence(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"no control socket, so `mtlskit status` cannot see this proxy: {self.reason} [{self.code}]{hint}"


@dataclass(frozen=True, kw_only=True)
class ControlRefused(Event):
    """Somebody who is neither the proxy's user nor root has connected to the control socket."""

    level: ClassVar[Level] = Level.WARNING

    client: str

    def sentence(self) -> str:
        return f"control socket: refused {self.client}"


@dataclass(frozen=True, kw_only=True)
class ControlCrashed(Event):
    """A fault of ours ended one request."""

    level: ClassVar[Level] = Level.ERROR

    do: str
    traceback: str

    def sentence(self) -> str:
        last = self.traceback.strip().splitlines()[-1]
        return f"control socket: a fault in mtlskit ended the request {self.do}: {last}; please report it"
