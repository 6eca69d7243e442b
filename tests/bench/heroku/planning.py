"""`mtlskit allowlist plan` over many add-ons whose rules are all taken: nothing to do, and half of the rules to change.

The rules are made at a speed at which they act at once. Then the sandbox is started again in the same folder, at
Heroku's own pace and as far away as Heroku is.
"""

from __future__ import annotations

from tests.bench.book import Book, Figure
from tests.bench.contenders import MTLSKIT
from tests.bench.heroku.size import Size
from tests.bench.heroku.space import HERE, allowlist, home, postgres_addons, running, typed
from tests.support.sandbox_command import Sandbox

__all__ = ["CHANGES", "CPU", "SAME", "measure"]

SAME = Figure("plan", "nothing to do", "s")
CHANGES = Figure("plan", "half of the rules change", "s")
CPU = Figure("plan", "nothing to do, CPU", "s")
_AT_ONCE = "100000"


def measure(size: Size, book: Book) -> None:
    """Fill, start again, plan in turns."""
    with home() as folder:
        with running(folder, "--speed-up", _AT_ONCE, "--addons", str(size.plan_addons)) as sandbox:
            _fill(sandbox, size)
        with running(folder, "--speed-up", "1", "--latency", f"{size.latency}s") as sandbox:
            for turn in range(-1, size.rounds):  # the first fills caches, of the disk and of compiled modules
                same = typed(("allowlist", "plan", "--config", "same.toml"), folder, sandbox.environment)
                words = ("allowlist", "plan", "--config", "half.toml", "--allow-gap")
                half = typed(words, folder, sandbox.environment, status=3)
                if turn >= 0:
                    book.add(SAME, MTLSKIT, turn, same.wall)
                    book.add(CPU, MTLSKIT, turn, same.cpu)
                    book.add(CHANGES, MTLSKIT, turn, half.wall)


def _fill(sandbox: Sandbox, size: Size) -> None:
    names = postgres_addons(sandbox)
    offices = [f"203.0.113.{n}/32" for n in range(1, size.plan_rules)]
    others = [f"198.51.100.{n}/32" for n in range(len(offices) // 2)]
    allowlist(sandbox.folder / "same.toml", names, [HERE, *offices])
    allowlist(sandbox.folder / "half.toml", names, [HERE, *others, *offices[len(others) :]])
    typed(("allowlist", "apply", "--config", "same.toml", "--yes"), sandbox.folder, sandbox.environment)
