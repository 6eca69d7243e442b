"""`mtlskit allowlist apply` of some rules to some add-ons: beside the slowest rule, and beside the sum of them all.

Every turn adds other ranges: one that was just deleted cannot be added again for a while. In the third kind of turn the
rules of one add-on are under way already when the command begins, and act later than those that it adds to the others:
the sandbox slows down what is added while the fault `slow-rules` is on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.book import Book, Figure
from tests.bench.contenders import MTLSKIT
from tests.bench.heroku.size import Size
from tests.bench.heroku.space import HERE, allowlist, home, postgres_addons, running, typed
from tests.support.sandbox_command import Sandbox

__all__ = ["ADDING", "ALIKE", "SLOWER", "Case", "measure"]


@dataclass(frozen=True)
class Case:
    """The figures of one kind of turn."""

    whole: Figure
    more: Figure
    of_slowest: Figure
    of_sum: Figure


def _case(words: str) -> Case:
    return Case(
        Figure("apply", words, "s"),
        Figure("apply", f"{words}: more than the slowest rule", "s"),
        Figure("apply", f"{words}: of the slowest rule", "ratio"),
        Figure("apply", f"{words}: of the sum of all rules", "ratio"),
    )


ADDING = Figure("apply", "adding only (--no-wait)", "s")
ALIKE = _case("rules alike")
SLOWER = _case("one add-on slower")

_HEROKUS_RULE = 600.0
"""Seconds that a rule takes at the speed-up 1."""


def measure(size: Size, book: Book) -> None:
    """All turns of all rounds at one sandbox, whose rules are removed after each."""
    speed_up, latency = f"{_HEROKUS_RULE / size.rule:g}", f"{size.latency}s"
    flags = ("--speed-up", speed_up, "--latency", latency, "--addons", str(size.apply_addons))
    with home() as folder, running(folder, *flags) as sandbox:
        addons = postgres_addons(sandbox)
        for turn in range(size.rounds):
            places = range(turn * size.apply_rules, (turn + 1) * size.apply_rules)
            ranges = [f"{{}}.{place % 250}/32" for place in places]
            _write(sandbox, "all", addons, [each.format("203.0.113") for each in ranges])
            book.add(ADDING, MTLSKIT, turn, _apply(sandbox, "all", "--no-wait"))
            _empty(sandbox, addons)
            _write(sandbox, "all", addons, [each.format("198.51.100") for each in ranges])
            _note(book, ALIKE, turn, _apply(sandbox, "all"), [size.rule] * len(addons), size)
            _empty(sandbox, addons)
            slow = [each.format("192.0.2") for each in ranges]
            _write(sandbox, "all", addons, slow)
            left = _begin_slowly(sandbox, addons[-1], slow, size)
            _note(book, SLOWER, turn, _apply(sandbox, "all"), [size.rule] * (len(addons) - 1) + [left], size)
            _empty(sandbox, addons)


def _begin_slowly(sandbox: Sandbox, addon: str, cidrs: Sequence[str], size: Size) -> float:
    """Add slow rules to one add-on. The seconds that the last of them needs from now on: so many, or a few tenths less.

    The rules are made just before the command ends; so the time is counted from there.
    """
    _write(sandbox, "one", [addon], cidrs)
    sandbox.fault("slow-rules", value=f"{size.slow_rule:.0f}")
    _apply(sandbox, "one", "--no-wait")
    ended = time.perf_counter()
    sandbox.no_faults()
    return size.slow_rule - (time.perf_counter() - ended)


def _write(sandbox: Sandbox, name: str, addons: Sequence[str], cidrs: Sequence[str]) -> None:
    allowlist(sandbox.folder / f"{name}.toml", addons, cidrs)


def _apply(sandbox: Sandbox, name: str, *flags: str) -> float:
    words = ("allowlist", "apply", "--config", f"{name}.toml", "--yes", *flags)
    return typed(words, sandbox.folder, sandbox.environment).wall


def _empty(sandbox: Sandbox, addons: Sequence[str]) -> None:
    for addon in addons:
        for rule in sandbox.rules(addon):
            if rule["cidr"] != HERE:
                sandbox.call("DELETE", f"/postgres/v0/databases/{addon}/tls-endpoint/ip-rules/{rule['id']}")


def _note(book: Book, case: Case, turn: int, whole: float, rules: Sequence[float], size: Size) -> None:
    """`rules`: the seconds that a rule takes, by add-on."""
    slowest = max(rules)
    book.add(case.whole, MTLSKIT, turn, whole)
    book.add(case.more, MTLSKIT, turn, whole - slowest)
    book.add(case.of_slowest, MTLSKIT, turn, whole / slowest)
    book.add(case.of_sum, MTLSKIT, turn, whole / (sum(rules) * size.apply_rules))
