"""Series of numbers and how they are shown: the median to quote, with the spread that says how far to trust it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

__all__ = ["Series", "table"]


@dataclass(frozen=True)
class Series:
    """Repeated measurements of one thing."""

    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The value to quote."""
        return statistics.median(self.values)

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "runs": len(self.values),
        }


def table(series: list[Series]) -> str:
    """The series as aligned text."""
    rows = [("", "median", "min", "max", "unit", "runs")]
    rows += [
        (s.name, f"{s.median:.4g}", f"{min(s.values):.4g}", f"{max(s.values):.4g}", s.unit, str(len(s.values)))
        for s in series
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
