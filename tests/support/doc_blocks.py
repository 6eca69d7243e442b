"""The fenced blocks of the documentation, each with what its author says about running it.

A comment before a block decides, and is invisible on the page: ``<!-- run -->``, ``<!-- run: status 2 -->``,
``<!-- run: stays up -->`` or ``<!-- not run: REASON -->``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNABLE = frozenset({"console", "python", "sh"})
"""Languages whose blocks must say whether they are run."""

_FENCE = re.compile(r"```(\w*)")
_COMMENT = re.compile(r"<!-- (.*) -->")
_RUN = re.compile(r"run(?:: status (\d+)|: (stays up))?")
_NOT_RUN = re.compile(r"not run: \w.{9,}")


@dataclass(frozen=True)
class Run:
    """The block is run and ends with this status, or stays up until it is stopped."""

    status: int = 0
    stays_up: bool = False


@dataclass(frozen=True)
class NotRun:
    """The block is not run; the comment gives the reason."""


@dataclass(frozen=True)
class Block:
    """One fenced block. `how` is None where nothing that we understand is said."""

    page: str
    line: int
    language: str
    text: str
    how: Run | NotRun | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README.md and every page of docs/, relative to the root."""
    return ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]


def guides() -> list[str]:
    """The pages whose commands a reader follows. The reference shows fragments."""
    return [page for page in pages() if not page.startswith("docs/reference/")]


@cache
def blocks_of(page: str) -> tuple[Block, ...]:
    """The blocks of a page, in order."""
    return tuple(_blocks(page, (ROOT / page).read_text(encoding="utf-8").splitlines()))


def _blocks(page: str, lines: list[str]) -> Iterator[Block]:
    comment = language = ""
    inside: list[str] | None = None
    began = 0
    for number, line in enumerate(lines, 1):
        if inside is not None:
            if line == "```":
                yield Block(page, began, language, "\n".join(inside) + "\n", what_is_said(comment))
                inside, comment = None, ""
            else:
                inside.append(line)
        elif fence := _FENCE.fullmatch(line):
            language, inside, began = fence[1], [], number
        elif line.strip():
            found = _COMMENT.fullmatch(line)
            comment = found[1] if found else ""
    assert inside is None, f"{page}:{began}: the block has no end"


def what_is_said(comment: str) -> Run | NotRun | None:
    """What a comment says about the block that follows. None: nothing that we understand."""
    if found := _RUN.fullmatch(comment):
        return Run(status=int(found[1] or 0), stays_up=found[2] is not None)
    return NotRun() if _NOT_RUN.fullmatch(comment) else None
