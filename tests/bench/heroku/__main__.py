"""`python -m tests.bench.heroku`: measure the commands that talk to Heroku, and print medians and spreads."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tests.bench.book import Book
from tests.bench.contenders import MTLSKIT
from tests.bench.heroku import applying, planning, starting
from tests.bench.heroku.size import FULL, Size
from tests.bench.machine import about
from tests.bench.report import as_json

LOADS: Mapping[str, Callable[[Size, Book], None]] = {
    "plan": planning.measure,
    "apply": applying.measure,
    "startup": starting.measure,
}
"""What can be measured."""


def main() -> None:
    """Parse the options, measure, print."""
    options = _parser().parse_args()
    size = replace(FULL, rounds=options.rounds)
    facts = {**about(()), "rounds": size.rounds, "latency of the API": f"{size.latency * 1000:g} ms"}
    book = Book()
    for name in options.only or LOADS:
        print(time.strftime("%H:%M:%S"), name, file=sys.stderr, flush=True)
        LOADS[name](size, book)
    facts["load_after"] = round(os.getloadavg()[0], 2)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), table(book), sep="\n\n")
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(book, (), facts), indent=2) + "\n", encoding="utf-8")


def table(book: Book) -> str:
    """A line for each figure."""
    rows = [("", "median", "min", "max", "")]
    for figure in book.figures:
        spread = book.spread(figure, MTLSKIT)
        if spread is not None:
            values = (_short(value) for value in (spread.median, spread.least, spread.most))
            rows.append((f"{figure.load}: {figure.case}", *values, figure.unit))
    wide = max(len(row[0]) for row in rows)
    return "\n".join(
        f"{what:{wide}}  {'  '.join(f'{cell:>7}' for cell in cells)}  {unit}".rstrip() for what, *cells, unit in rows
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.heroku", description=__doc__)
    parser.add_argument("--only", type=_loads, metavar="LOAD,…", help=f"of {', '.join(LOADS)} (default: all)")
    parser.add_argument("--rounds", type=_positive, default=FULL.rounds, metavar="N", help="of each (default: 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser


def _loads(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in LOADS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(LOADS)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    main()
