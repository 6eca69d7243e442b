"""What happens in the sandbox's API, as events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.telemetry import Event, Level

__all__ = ["ApiCallAnswered", "ApiCallFailed"]


@dataclass(frozen=True, kw_only=True)
class ApiCallAnswered(Event):
    """A call was answered, or not: `status` is 0 where the connection was cut or the client had left."""

    level: ClassVar[Level] = Level.DEBUG
    peer: str
    method: str
    path: str
    status: int

    def sentence(self) -> str:
        return f"{self.peer} called {self.method} {self.path}: {self.status or 'no answer'}"


@dataclass(frozen=True, kw_only=True)
class ApiCallFailed(Event):
    """A call could not be answered because something of the space failed; the client got a 500."""

    level: ClassVar[Level] = Level.ERROR
    method: str
    path: str
    reason: str

    def sentence(self) -> str:
        return f"the API's call {self.method} {self.path} failed: {self.reason}"
