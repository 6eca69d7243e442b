"""How long a person waits: for help, for the list of one add-on's rules, and for a sandbox.

A sandbox is ready when `sandbox.json` is there; the line by which it is recognised here is written just after that. Its
first start makes a database and a CA, a later one finds them.
"""

from __future__ import annotations

import time
from pathlib import Path

from tests.bench.book import Book, Figure
from tests.bench.contenders import MTLSKIT
from tests.bench.errors import BenchError
from tests.bench.heroku.size import Size
from tests.bench.heroku.space import home, running, typed
from tests.support.command_process import clean_environment

__all__ = ["FIRST", "HELP", "LATER", "LIST", "measure"]

HELP = {
    words: Figure("startup", " ".join((MTLSKIT, *words, "--help")), "ms")
    for words in ((), ("allowlist",), ("proxy",), ("heroku",))
}
LIST = Figure("startup", "mtlskit allowlist list, one add-on", "ms")
FIRST = Figure("startup", "mtlskit sandbox, its first start", "ms")
LATER = Figure("startup", "mtlskit sandbox, a later start", "ms")


def measure(size: Size, book: Book) -> None:
    """All of them in each round; the sandbox without latency."""
    for turn in range(-1, size.rounds):  # the first fills caches, of the disk and of compiled modules
        taken = _round()
        if turn >= 0:
            for figure, seconds in taken.items():
                book.add(figure, MTLSKIT, turn, seconds * 1000)


def _round() -> dict[Figure, float]:
    with home() as folder:
        plain = clean_environment(folder, COLUMNS="100")
        taken = {figure: typed((*words, "--help"), folder, plain).wall for words, figure in HELP.items()}
        taken[FIRST] = _start(folder)[0]
        taken[LATER], taken[LIST] = _start(folder)
    return taken


def _start(folder: Path) -> tuple[float, float]:
    """Seconds until the sandbox is ready, and those of a list of its add-on's rules."""
    began = time.perf_counter()
    with running(folder) as sandbox:
        ready = time.perf_counter() - began
        if not sandbox.file.exists():
            raise BenchError(f"the sandbox says that it is ready, and {sandbox.file.name} is not there")
        words = ("allowlist", "list", "--addon", sandbox.addon)
        return ready, typed(words, folder, sandbox.environment).wall
