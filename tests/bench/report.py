"""The figures as text for people and as plain values for machines."""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.book import Book, Figure, Spread
from tests.bench.contenders import DIRECT, MTLSKIT
from tests.bench.contenders.haproxy import PlainRelay
from tests.bench.targets import Verdict

__all__ = ["LIMITS", "as_json", "figures_text", "verdicts_text"]

LIMITS = frozenset({DIRECT, PlainRelay.name})
"""No rivals: what no TLS proxy can reach."""


def figures_text(book: Book) -> str:
    """Every figure: a line for each contender, medians with their spread, and mtlskit divided by it."""
    rows: list[tuple[str, ...]] = [("", "median", "min", "max", "mtlskit is … of it", "(min to max)")]
    heads: dict[int, str] = {}
    for figure in book.figures:
        heads[len(rows)] = f"{figure} ({'more' if figure.more_is_better else 'less'} is better)"
        rows += [_row(book, figure, who) for who in book.contenders(figure)]
    lines = _aligned(rows)
    return "\n".join(f"\n{heads[number]}\n{line}" if number in heads else line for number, line in enumerate(lines))


def _row(book: Book, figure: Figure, who: str) -> tuple[str, ...]:
    spread = book.spread(figure, who)
    if spread is None:
        return (who, "", "", "", "", "")
    ratio = book.ratio(figure, MTLSKIT, who) if who != MTLSKIT else None
    name = f"  {who} (limit)" if who in LIMITS else f"  {who}"
    return (name, *map(_short, (spread.median, spread.least, spread.most)), *_ratio(ratio))


def verdicts_text(verdicts: Sequence[Verdict]) -> str:
    """Every row of the targets: met or missed."""
    rows: list[tuple[str, ...]] = [("target", "beside", "measured", "(min to max)", "floor", "", "goal", "")]
    for verdict in verdicts:
        target = verdict.target
        sign = "≥" if target.figure.more_is_better else "≤"
        bounds = (f"{sign} {target.floor:g}", _word(verdict.floor), f"{sign} {target.goal:g}", _word(verdict.goal))
        rows.append((target.work, verdict.versus, *_ratio(verdict.ratio), *bounds))
    return "\n".join(_aligned(rows))


def as_json(book: Book, verdicts: Sequence[Verdict], about: dict[str, object]) -> dict[str, object]:
    """Everything: the machine, the figures with every round, the ratios, the targets, the notes."""
    figures = [
        {
            "load": figure.load,
            "case": figure.case,
            "unit": figure.unit,
            "more_is_better": figure.more_is_better,
            "contenders": {
                who: {**_json(book.spread(figure, who)), "ratio": _json(book.ratio(figure, MTLSKIT, who)) or None}
                for who in book.contenders(figure)
            },
        }
        for figure in book.figures
    ]
    told = [verdict.as_json() for verdict in verdicts]
    return {"about": about, "figures": figures, "targets": told, "notes": book.notes}


def _json(spread: Spread | None) -> dict[str, object]:
    return spread.as_json() if spread is not None else {}


def _ratio(ratio: Spread | None) -> tuple[str, str]:
    if ratio is None:
        return "", ""
    return f"{ratio.median:.2f}", f"{ratio.least:.2f} to {ratio.most:.2f}"


def _word(met: bool | None) -> str:
    return {True: "met", False: "MISSED", None: "not measured"}[met]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
