"""What the client of Heroku's APIs tells. Paths hold names and ids of add-ons, never a secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.telemetry import Event, Level

__all__ = ["HerokuAnswered", "HerokuCallDelayed", "HerokuCallRepeated", "HerokuLookedUp"]


@dataclass(frozen=True, kw_only=True)
class HerokuAnswered(Event):
    """One request was answered, whatever the answer."""

    level: ClassVar[Level] = Level.DEBUG
    method: str
    path: str
    status: int
    request_id: str

    def sentence(self) -> str:
        """The event for people."""
        return f"Heroku: {self.method} {self.path}: {self.status} (request {self.request_id or 'without id'})"


@dataclass(frozen=True, kw_only=True)
class HerokuCallRepeated(Event):
    """A request failed, and is made again after a short pause, in seconds."""

    level: ClassVar[Level] = Level.DEBUG
    method: str
    path: str
    reason: str
    pause: float
    tries: int

    def sentence(self) -> str:
        """The event for people."""
        return f"Heroku: {self.method} {self.path}: {self.reason}; again in {self.pause:.1f} s (try {self.tries})"


@dataclass(frozen=True, kw_only=True)
class HerokuCallDelayed(HerokuCallRepeated):
    """The same, and the try or the pause is so long that a person who waits would wonder."""

    level: ClassVar[Level] = Level.WARNING


@dataclass(frozen=True, kw_only=True)
class HerokuLookedUp(Event):
    """Whether a request took effect was not known, so it was looked up."""

    level: ClassVar[Level] = Level.WARNING
    about: str
    reason: str
    found: bool

    def sentence(self) -> str:
        """The event for people."""
        told = "it has" if self.found else "it has not, so far"
        return f"Heroku: {self.about}: {self.reason}; looked up whether it took effect all the same: {told}"
