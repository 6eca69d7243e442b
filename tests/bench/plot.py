"""The figures that matter most, as bars with their spread: one PNG for the documentation. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.book import Book, Figure
from tests.bench.contenders import MTLSKIT
from tests.bench.loads import bulk, connect, echo, fairness, first_row, idle, pgbench
from tests.bench.report import LIMITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PANELS", "draw"]

PANELS: tuple[tuple[str, Figure], ...] = (
    ("bulk down, one stream", bulk.speed("down", 1)),
    ("bulk up, one stream", bulk.speed("up", 1)),
    ("bulk down, 8 streams", bulk.speed("down", 8)),
    ("bulk down, CPU", bulk.cpu("down", 1)),
    ("64-byte round trip", echo.P50),
    ("pgbench -S, 8 clients", pgbench.rate("trust", 8)),
    ("pgbench -S, CPU, 8 clients", pgbench.cpu("trust", 8)),
    ("new connections", connect.RATE),
    ("first row, 50 ms away", first_row.median_of_burst(0.050, 1)),
    ("memory of an idle connection", idle.RESIDENT),
    ("p99 of 30 sessions beside COPY out", fairness.BESIDE["out"]),
)
_OURS, _THEIRS, _LIMIT = "#1f6feb", "#9aa4b2", "#dfe3e8"
_COLUMNS = 3


def draw(book: Book, about: dict[str, object], path: Path, panels: Sequence[tuple[str, Figure]] = PANELS) -> None:
    """Draw what was measured of the panels (titles with figures). Raises ImportError without matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [(title, figure) for title, figure in panels if book.contenders(figure)]
    rows = max(1, -(-len(panels) // _COLUMNS))
    sheet, grid = pyplot.subplots(rows, _COLUMNS, figsize=(13, 2.3 * rows + 0.9), squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (title, figure) in zip(grid.flat, panels, strict=False):
        _panel(axes, title, figure, book)
    sheet.suptitle("mtlskit beside its peers: medians, with smallest and largest value")
    where = (
        f"{about['processor']}, {about['cores']} cores, {about['system']}, Python {about['python']}, {about['date']}"
    )
    sheet.text(0.01, 0.005, where, fontsize=8, color="#555555")
    sheet.tight_layout(rect=(0, 0.02, 1, 1))
    sheet.savefig(path, dpi=110)
    pyplot.close(sheet)


def _panel(axes: Axes, title: str, figure: Figure, book: Book) -> None:
    spreads = {who: spread for who in book.contenders(figure) if (spread := book.spread(figure, who)) is not None}
    names = sorted(spreads, key=lambda who: spreads[who].median, reverse=figure.more_is_better)
    medians = [spreads[who].median for who in names]
    below = [spreads[who].median - spreads[who].least for who in names]
    above = [spreads[who].most - spreads[who].median for who in names]
    colours = [_OURS if who.startswith(MTLSKIT) else _LIMIT if who in LIMITS else _THEIRS for who in names]
    axes.set_visible(True)
    axes.barh(names, medians, xerr=[below, above], color=colours, ecolor="#444444", capsize=2)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_title(f"{title} ({'more' if figure.more_is_better else 'less'} is better)", fontsize=9)
    axes.set_xlabel(figure.unit, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
