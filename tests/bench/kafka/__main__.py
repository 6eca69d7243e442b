"""`python -m tests.bench.kafka`: measure Kafka with and without a proxy, and print medians, spreads and ratios."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from tests.bench.contenders import DIRECT
from tests.bench.kafka import fetches, latency, metadata, throughput
from tests.bench.kafka.contenders import all_contenders
from tests.bench.kafka.lab import KafkaLab
from tests.bench.kafka.size import FULL, QUICK, Size
from tests.bench.machine import about, sources
from tests.bench.report import as_json, figures_text
from tests.services.kafka_builds import NEWEST, VERSIONS, java_version

LOADS: Mapping[str, tuple[Callable[[KafkaLab], None], str | None]] = {
    "metadata": (metadata.measure, metadata.__doc__),
    "produce": (throughput.produce, throughput.__doc__),
    "consume": (throughput.consume, throughput.__doc__),
    "latency": (latency.measure, latency.__doc__),
    "fetches": (fetches.measure, fetches.__doc__),
}
"""What can be measured, with its explanation."""
_BUSY = 1.0
"""Load average at the start, above which the reader is warned."""


def main(words: Sequence[str] | None = None, *, size: Size | None = None) -> None:
    """Parse the options, measure, print."""
    options = _parser().parse_args(words)
    if options.list:
        print(_listing())
        return
    size = size or (QUICK if options.quick else FULL)
    if options.rounds:
        size = replace(size, rounds=options.rounds, fetch_rounds=min(options.rounds, size.fetch_rounds))
    with KafkaLab(size, names=options.contenders, say=_say) as lab:
        facts = _facts(lab, quick=options.quick)
        try:
            for name in options.only or LOADS:
                _say(name)
                LOADS[name][0](lab)
        except KeyboardInterrupt:
            lab.book.note("interrupted: what was measured until then")
        _doubts(lab, facts)
        book = lab.book
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(figures_text(book), "\n".join(book.notes), sep="\n\n")
    if options.json is not None:
        options.json.write_text(json.dumps(as_json(book, (), facts), indent=2) + "\n", encoding="utf-8")
    if options.plot is not None:
        from tests.bench.kafka.picture import PANELS
        from tests.bench.plot import draw

        draw(book, facts, options.plot, PANELS)


def _facts(lab: KafkaLab, *, quick: bool) -> dict[str, object]:
    from confluent_kafka import libversion

    used = {"kafka": VERSIONS[NEWEST], "java": java_version().partition("\n")[0], "librdkafka": libversion()[0]}
    return {**about(lab.contenders), **used, "quick": quick, "rounds": lab.size.rounds}


def _doubts(lab: KafkaLab, facts: dict[str, object]) -> None:
    """What makes the figures worth less."""
    facts["load_after"] = round(os.getloadavg()[0], 2)
    if facts["sources"] != sources():
        lab.book.note("mtlskit's files were changed while it was measured: the figures are of no one version")
    busy = float(str(facts["load_before"]))
    if busy > _BUSY:
        sentence = f"the machine was busy before the run began (load {busy:g}): trust CPU times and ratios, if anything"
        lab.book.note(sentence)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.kafka", description=__doc__)
    parser.add_argument("--list", action="store_true", help="explain work loads and contenders, and end")
    parser.add_argument("--only", type=_loads, metavar="LOAD,…", help=f"of {', '.join(LOADS)} (default: all)")
    parser.add_argument("--contenders", type=_names, metavar="NAME,…", help=f"of {', '.join(_known())} (default: all)")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds of each (default: 5, quick: 3)")
    parser.add_argument("--quick", action="store_true", help="a quarter of the size: to look, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the figures (needs matplotlib)")
    return parser


def _known() -> list[str]:
    return [DIRECT, *(each.name for each in all_contenders())]


def _loads(text: str) -> list[str]:
    return _chosen(text, list(LOADS))


def _names(text: str) -> frozenset[str]:
    return frozenset(_chosen(text, _known()))


def _chosen(text: str, known: list[str]) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _listing() -> str:
    lines = [f"{name}\n{text or ''}" for name, (_, text) in LOADS.items()]
    for each in all_contenders():
        there = each.version() if each.path() is not None else "not installed"
        lines.append(f"{each.name} ({there})\n{type(each).__doc__ or ''}")
    return "\n".join(lines)


def _say(sentence: str) -> None:
    print(time.strftime("%H:%M:%S"), sentence, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)  # as with Ctrl-C, so that everything is ended in order
    main()
