"""`python -m tests.bench`: measure mtlskit beside its peers, and print medians, spreads, ratios and the targets."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType

from tests.bench.book import Book
from tests.bench.contenders import DIRECT, all_contenders
from tests.bench.lab import Lab
from tests.bench.loads import LOADS
from tests.bench.machine import about, sources
from tests.bench.report import as_json, figures_text, verdicts_text
from tests.bench.scale import FULL, QUICK
from tests.bench.targets import verdicts

_BUSY = 1.0
"""Load average at the start, above which the reader is warned."""


def main() -> None:
    """Parse the options, measure, print."""
    options = _parser().parse_args()
    if options.list:
        print(_listing())
        return
    scale = QUICK if options.quick else FULL
    if options.rounds:
        scale = replace(scale, rounds=options.rounds, idle_rounds=min(options.rounds, scale.idle_rounds))
    signal.signal(signal.SIGTERM, _interrupt)  # as with Ctrl-C, so that everything is ended in order
    with Lab(scale, names=options.contenders, warm=options.warm, say=_say) as lab:
        facts = {**about(lab.contenders), "quick": options.quick, "rounds": scale.rounds, "warm": options.warm}
        try:
            for name in options.only or LOADS:
                _say(name)
                LOADS[name](lab)
        except KeyboardInterrupt:
            lab.book.note("interrupted: what was measured until then")
        _doubts(lab.book, facts)
        book = lab.book
    rows = verdicts(book)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(figures_text(book), verdicts_text(rows), "\n".join(book.notes), sep="\n\n")
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(book, rows, facts), indent=2) + "\n")
    if options.plot is not None:
        from tests.bench.plot import draw

        draw(book, facts, options.plot)


def _doubts(book: Book, facts: Mapping[str, object]) -> None:
    """What makes the figures worth less."""
    if facts["sources"] != sources():
        book.note("mtlskit's files were changed while it was measured: the figures are of no one version")
    busy = float(str(facts["load_before"]))
    if busy > _BUSY:
        book.note(f"the machine was busy before the run began (load {busy:g}): trust CPU times and ratios, if anything")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--list", action="store_true", help="explain work loads and contenders, and end")
    parser.add_argument("--only", type=_loads, metavar="LOAD,…", help="these work loads (default: all)")
    parser.add_argument("--contenders", type=_names, metavar="NAME,…", help="these contenders and limits only")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds of each (default: 5, quick: 3)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the size or less: to look, not to quote")
    parser.add_argument("--warm", type=_number, default=10, metavar="N", help="connections in advance, in first-row")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the figures (needs matplotlib)")
    return parser


def _loads(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in LOADS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(LOADS)}")
    return names


def _names(text: str) -> frozenset[str]:
    known = {DIRECT, *(each.name for each in all_contenders())}
    names = frozenset(text.split(","))
    if names - known:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(names - known)}; there are {', '.join(sorted(known))}")
    return names


def _number(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return number


def _positive(text: str) -> int:
    number = _number(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _listing() -> str:
    lines = ["Work loads:"]
    for name, measure in LOADS.items():
        lines.append(f"\n{name}\n{sys.modules[measure.__module__].__doc__ or ''}")
    lines.append("Contenders:")
    for each in all_contenders():
        there = each.version() if each.path() is not None else "not installed"
        lines.append(f"\n{each.name} ({there})\n{type(each).__doc__ or ''}")
    return "\n".join(lines)


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
