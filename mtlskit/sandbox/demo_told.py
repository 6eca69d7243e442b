"""What the demo tells, as values: steps, facts and the summary. Nothing here prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mtlskit.config.values import TcpAddress
from mtlskit.sandbox.description import Space

__all__ = ["DemoFact", "DemoFinished", "DemoStep", "DemoTold", "Narrator", "Tell"]


@dataclass(frozen=True)
class DemoStep:
    """A step begins."""

    number: int
    title: str


@dataclass(frozen=True)
class DemoFact:
    """What a step has shown. `quote`: the very words of a program, or of a file."""

    text: str
    quote: str = ""


@dataclass(frozen=True)
class DemoFinished:
    """All steps have shown what they are there to show. `space` and `tunnel` stay up with `--keep`."""

    seconds: float
    shown: tuple[str, ...]
    space: Space
    tunnel: TcpAddress


DemoTold: TypeAlias = DemoStep | DemoFact | DemoFinished
Tell: TypeAlias = Callable[[DemoTold], None]


class Narrator:
    """Counts the steps, and keeps what the summary says."""

    def __init__(self, tell: Tell) -> None:
        self.shown: list[str] = []
        self._tell = tell
        self._number = 0

    def step(self, title: str) -> None:
        """A step begins."""
        self._number += 1
        self._tell(DemoStep(self._number, title))

    def fact(self, text: str, quote: str = "") -> None:
        """Something was shown."""
        self._tell(DemoFact(text, quote))

    def has_shown(self, text: str) -> None:
        """A line of the summary."""
        self.shown.append(text)
