"""`mtlskit allowlist apply` of some rules to some add-ons: beside the slowest rule, and beside the sum of them all.

Every round adds other ranges: one that was just deleted cannot be added again for a while. In the third turn the rules
of one add-on are under way already when the command begins, and take longer than all the others: the sandbox slows
down what is added while the fault `slow-rules` is on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.book import Book, Figure
from tests.bench.contenders import MTLSKIT
from tests.bench.heroku.size import Size
from tests.bench.heroku.space import Took, allowlist, home, running, typed
from tests.support.sandbox_command import Sandbox

__all__ = ["ADDING", "ALIKE", "SLOWER", "measure"]


@dataclass(frozen=True)
class Case:
    """The figures of one kind of turn."""

    whole: Figure
    over_slowest: Figure
    over_sum: Figure
    more: Figure


def _case(words: str) -> Case:
    return Case(
        Figure("apply", words, "s"),
        Figure("apply", f"{words}, of the slowest rule", "×"),
        Figure("apply", f"{words}, of the sum of all rules", "×"),
        Figure("apply", f"{words}, more than the slowest rule", "s"),
    )


ADDING = Figure("apply", "adding, without waiting", "s")
ALIKE = _case("all rules alike")
SLOWER = _case("one add-on slower")

_HEROKUS_RULE = 600.0
"""Seconds that a rule takes at the speed-up 1."""
_HERE = "127.0.0.1/32"


def measure(size: Size, book: Book) -> None:
    """All turns of all rounds at one sandbox, which is emptied between them."""
    speed_up = f"{_HEROKUS_RULE / size.rule:g}"
    flags = ("--speed-up", speed_up, "--latency", f"{size.latency}s", "--addons", str(size.apply_addons))
    with home() as folder, running(folder, *flags) as sandbox:
        names = [name for name in sandbox.addons() if name != sandbox.kafka]
        for turn in range(size.rounds):
            _write(sandbox, names, size, "203.0.113", turn)
            book.add(ADDING, MTLSKIT, turn, _apply(sandbox, "--no-wait").wall)
            _empty(sandbox, names)
            _write(sandbox, names, size, "198.51.100", turn)
            _note(book, ALIKE, turn, _apply(sandbox).wall, [size.rule] * len(names), size)
            _empty(sandbox, names)
            _write(sandbox, names, size, "192.0.2", turn)
            left = _begin_slowly(sandbox, names[-1], size)
            _note(book, SLOWER, turn, _apply(sandbox).wall, [size.rule] * (len(names) - 1) + [left], size)
            _empty(sandbox, names)


def _begin_slowly(sandbox: Sandbox, addon: str, size: Size) -> float:
    """Add the rules of one add-on, slow ones, and return the seconds that the last of them still needs, at least."""
    allowlist(sandbox.folder / "one.toml", [addon], _ranges(sandbox))
    sandbox.fault("slow-rules", value=f"{size.slow_rule:.0f}")
    began = time.perf_counter()
    _apply(sandbox, "--no-wait", config="one.toml")
    sandbox.no_faults()
    return size.slow_rule - (time.perf_counter() - began)


def _note(book: Book, case: Case, turn: int, whole: float, addons: list[float], size: Size) -> None:
    """`addons`: the seconds that each rule takes, by add-on."""
    slowest = max(addons)
    book.add(case.whole, MTLSKIT, turn, whole)
    book.add(case.over_slowest, MTLSKIT, turn, whole / slowest)
    book.add(case.over_sum, MTLSKIT, turn, whole / (sum(addons) * size.apply_rules))
    book.add(case.more, MTLSKIT, turn, whole - slowest)
