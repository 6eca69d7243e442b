"""Tables of text that fit a terminal. rich would do it too, and costs a tenth of a second at each start."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["GAP", "Cell", "Column", "cells", "table"]

GAP = 2
"""Blanks between two columns."""


@dataclass(frozen=True)
class Column:
    """A column. Where the terminal is narrow it shrinks to `least` cells at the cost of its texts' ends."""

    title: str
    least: int | None = None
    """None: it never shrinks."""
    missable: int = 0
    """Where shrinking is not enough, the column with the highest number is left out first; 0: it always stands."""
    right: bool = False
    """Numbers stand at the right."""


@dataclass(frozen=True)
class Cell:
    """A text, and how the terminal is told to show it (SGR sequence, or empty)."""

    text: str
    colour: str = ""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, width: int | None) -> Iterator[str]:
    """The lines of a table with its titles; `width` in cells of the terminal, None: as wide as it takes."""
    widths = [
        max([cells(column.title), *(cells(row[number].text) for row in rows)]) for number, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    if width is not None:
        shown = _fit(columns, widths, width)
    for row in ([Cell(column.title) for column in columns], *rows):
        line = (" " * GAP).join(_padded(row[number], widths[number], columns[number].right) for number in shown)
        yield line.rstrip()


def _fit(columns: Sequence[Column], widths: list[int], width: int) -> list[int]:
    """Shrink `widths` until the row fits, the widest column first; returns the columns that can be shown.

    Which columns can be shown is settled before any of them shrinks, so that what is left out gives its room to the
    others.
    """
    least = [min(widths[number], column.least or widths[number]) for number, column in enumerate(columns)]
    shown = list(range(len(columns)))
    while _taken(least, shown) > width:
        next_out = max(shown, key=lambda number: columns[number].missable)
        if not columns[next_out].missable:
            break
        shown.remove(next_out)
    while _taken(widths, shown) > width:
        shrinkable = [number for number in shown if widths[number] > least[number]]
        if not shrinkable:
            break
        widths[max(shrinkable, key=lambda number: widths[number])] -= 1
    return shown


def _taken(widths: Sequence[int], shown: Sequence[int]) -> int:
    """Cells that a row takes."""
    return sum(widths[number] for number in shown) + GAP * (len(shown) - 1)


def _padded(cell: Cell, width: int, right: bool) -> str:
    text = _cut(cell.text, width)
    blanks = " " * (width - cells(text))
    coloured = f"{cell.colour}{text}\x1b[0m" if cell.colour and text else text
    return blanks + coloured if right else coloured + blanks


def _cut(text: str, width: int) -> str:
    if cells(text) <= width:
        return text
    kept = ""
    for character in text:
        if cells(kept + character) > width - 1:
            break
        kept += character
    return f"{kept}…"


def cells(text: str) -> int:
    """How many cells of a terminal `text` takes: two for each wide letter of East Asia, none for a combining mark."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )
