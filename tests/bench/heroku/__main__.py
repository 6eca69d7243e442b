"""`python -m tests.bench.heroku`: measure the commands that talk to Heroku, and print medians and spreads."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.bench.book import Book
from tests.bench.contenders import MTLSKIT
from tests.bench.heroku import applying, planning, starting
from tests.bench.heroku.size import FULL, Size
from tests.bench.machine import about, sources
from tests.bench.report import as_json

LOADS: Mapping[str, Callable[[Size, Book], None]] = {
    "plan": planning.measure,
    "apply": applying.measure,
    "startup": starting.measure,
}
"""What can be measured."""


def main(words: Sequence[str] | None = None, *, size: Size = FULL) -> None:
    """Parse the options, measure, print."""
    options = _parser().parse_args(words)
    size = replace(size, rounds=options.rounds or size.rounds)
    facts = {**about(()), "rounds": size.rounds, "latency": f"{size.latency * 1000:g} ms"}
    book = Book()
    for name in options.only or LOADS:
        print(time.strftime("%H:%M:%S"), name, file=sys.stderr, flush=True)
        LOADS[name](size, book)
    facts["load_after"] = round(os.getloadavg()[0], 2)
    if facts["sources"] != sources():
        book.note("mtlskit's files were changed while it was measured: the figures are of no one version")
    print("\n".join(f"{name}: {value}" for name, value in facts.items() if value))
    print(table(book), *book.notes, sep="\n\n")
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(book, (), facts), indent=2) + "\n", encoding="utf-8")


def table(book: Book) -> str:
    """A line for each figure."""
    rows = [("", ("median", "min", "max"), "")]
    for figure in book.figures:
        if (spread := book.spread(figure, MTLSKIT)) is not None:
            values = (_short(spread.median), _short(spread.least), _short(spread.most))
            rows.append((f"{figure.load}: {figure.case}", values, figure.unit))
    wide = max(len(what) for what, _, _ in rows)
    return "\n".join(
        f"{what:{wide}}  {'  '.join(f'{value:>7}' for value in values)}  {unit}".rstrip() for what, values, unit in rows
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.heroku", description=__doc__)
    parser.add_argument("--only", type=_loads, metavar="LOAD,…", help=f"of {', '.join(LOADS)} (default: all)")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="of each (default: 5)")
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
