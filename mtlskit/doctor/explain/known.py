"""A text that is known: how to recognise it, and what it means here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mtlskit.errors import Code

__all__ = ["Explanation", "Known", "known"]

_MOST_OF_A_NAME: Final = 80
"""Characters of a host, user or topic that is repeated from the text."""


@dataclass(frozen=True)
class Explanation:
    """What a text means. Nothing of the text is repeated but names that a pattern has singled out."""

    code: Code
    says: str
    """Who says so, and in short what: "libpq: connection refused"."""
    meaning: str
    hint: str
    commands: tuple[str, ...] = ()
    """Lines for a shell."""


@dataclass(frozen=True)
class Known:
    """One text of the catalogue. `says`, `meaning` and `hint` may name groups of the pattern in braces."""

    pattern: re.Pattern[str]
    code: Code
    says: str
    meaning: str
    hint: str
    commands: tuple[str, ...] = ()

    def explain(self, text: str) -> Explanation | None:
        """What `text` (on one line) means, if it holds this."""
        found = self.pattern.search(text)
        if found is None:
            return None
        names = {name: _harmless(value) for name, value in found.groupdict(default="?").items()}
        return Explanation(
            self.code,
            self.says.format_map(names),
            self.meaning.format_map(names),
            self.hint.format_map(names),
            self.commands,
        )


def known(pattern: str, code: Code, says: str, meaning: str, hint: str, *commands: str) -> Known:
    """An entry of a table. Case does not count, and all white space of a text is single spaces."""
    return Known(re.compile(pattern, re.IGNORECASE), code, says, meaning, hint, commands)


def _harmless(text: str) -> str:
    shown = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= _MOST_OF_A_NAME else f"{shown[:_MOST_OF_A_NAME]}…"
