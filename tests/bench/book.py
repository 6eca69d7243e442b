"""What was measured: for each figure and contender one value a round, and what is quoted of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Book", "Figure", "Spread", "percentile"]


@dataclass(frozen=True)
class Figure:
    """One thing that is measured. `load` is the work load's name, `case` its variant, `unit` what is counted."""

    load: str
    case: str
    unit: str
    more_is_better: bool = False

    def __str__(self) -> str:
        return f"{self.load}: {self.case}, {self.unit}"


@dataclass(frozen=True)
class Spread:
    """Values of some rounds: the median to quote, with the extremes that say how far to trust it."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The value to quote."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest."""
        return max(self.values)

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {"median": self.median, "min": self.least, "max": self.most, "values": list(self.values)}


class Book:
    """Collects the values. Figures and contenders keep the order in which they first came."""

    def __init__(self) -> None:
        self._values: dict[Figure, dict[str, dict[int, float]]] = {}
        self.notes: list[str] = []

    def add(self, figure: Figure, who: str, turn: int, value: float) -> None:
        """Write down one value of the round `turn`."""
        self._values.setdefault(figure, {}).setdefault(who, {})[turn] = value

    def note(self, sentence: str) -> None:
        """Write down what a reader of the figures has to know, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    @property
    def figures(self) -> list[Figure]:
        """All that was measured."""
        return list(self._values)

    def contenders(self, figure: Figure) -> list[str]:
        """Who has values of this figure."""
        return list(self._values.get(figure, {}))

    def spread(self, figure: Figure, who: str) -> Spread | None:
        """All values of one contender, or None where there are none."""
        values = self._values.get(figure, {}).get(who)
        return Spread(tuple(values.values())) if values else None

    def best(self, figure: Figure, among: Iterable[str]) -> str | None:
        """Who of these has the best median; None where none of them was measured."""
        medians = {who: spread.median for who in among if (spread := self.spread(figure, who)) is not None}
        if not medians:
            return None
        return (max if figure.more_is_better else min)(medians, key=lambda who: medians[who])

    def ratio(self, figure: Figure, who: str, other: str, other_figure: Figure | None = None) -> Spread | None:
        """`who` divided by `other`, round by round; None where they have no round in common.

        `other_figure` compares with another figure: the same work under other circumstances.
        """
        over = self._values.get(figure, {}).get(who, {})
        under = self._values.get(other_figure or figure, {}).get(other, {})
        shared = [over[turn] / under[turn] for turn in over if under.get(turn)]
        return Spread(tuple(shared)) if shared else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed (nearest rank: a value that was really seen)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
