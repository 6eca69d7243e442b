"""What an event is. Each layer defines its own events as frozen dataclasses, named in the past tense.

An event carries facts (its fields) and can say itself in one sentence; sinks decide what becomes of it. Whoever emits
is handed an `Emit`; the default is `silent`, so that nothing below the command line ever prints by itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, TypeAlias

__all__ = ["Emit", "Event", "Level", "silent"]


class Level(IntEnum):
    """How much an event matters. The numbers are those of `logging`, so that they can be compared with it."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened. Fields must be plain values (text, numbers, tuples of them) and never a secret."""

    level: ClassVar[Level] = Level.INFO

    @property
    def name(self) -> str:
        """The event's name for machines: `SessionClosed` is `session_closed`."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    def sentence(self) -> str:
        """The event for people, on one line."""
        raise NotImplementedError


Emit: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """The default sink: nobody listens."""
