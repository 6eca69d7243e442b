"""The last look at every text of a report before it leaves: what looks like a secret is taken out.

Findings hold none, by rule and by test. But they repeat what strangers have said, and a report goes into tickets: this
is the second lock on that door. It would rather take out too much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from mtlskit.telemetry.logs import printable

__all__ = ["GONE", "pasted", "redacted", "redacted_value", "told"]

GONE: Final = "[redacted]"
"""Stands where something was."""

_LONGEST: Final = 8_000
"""Characters of one text that are shown. Findings are sentences; the patterns below are not meant for more."""

_DEEPEST: Final = 8
"""Levels of a fact. Checks write two at most."""

_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----(?=\s*(?:\Z|[A-Za-z0-9+/=]{8}|Proc-Type))"
    r".*?(?:-----END [A-Z0-9 ]{0,32}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
"""With what is in it, as far as it goes. Its first line alone is no secret: hints name it."""
_USER_OF_URL: Final = re.compile(r"(?<=://)(?:[^\s\"'<>]{1,1000}|[^\s/@:]{0,200}:(?!\d+(?:[\s,/;)]|$))[^@\n]{1,200})@")
"""To the last @ of the word: a password that nobody has escaped may hold one, or blanks and quotes. What follows a
colon and is a port is no password."""
_NAMED: Final = re.compile(
    r"""((?:pass(?:word|wd|phrase)?|pwd|secret|token|api[-_]?key)["']?\s{0,4}=\s{0,4}|"""
    r"""(?:password|passwd|passphrase|secret|token|api[-_]?key)["']\s{0,4}:\s{0,4})"""
    r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s"',;&)]+)""",
    re.IGNORECASE,
)
"""``password=…`` of a connection string or a shell's line, ``"token": …`` of JSON."""
_OF_YAML: Final = re.compile(
    r"((?:^|[\n{,;])\s{0,8}(?:password|passwd|passphrase|secret|token|api[-_]?key)\s{0,4}:\s{0,4})[^\s,;}]+",
    re.IGNORECASE,
)
"""``password: …`` where it begins a line or a member; in the middle of a sentence the words are ours."""
_SECRET_KEY: Final = re.compile(r"(?:^|_)(?:password|passwd|passphrase|secret|token|api_?key)$", re.IGNORECASE)
_AUTHORIZATION: Final = re.compile(r"\b((?:bearer|basic)\s{1,4})[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_HEROKU_TOKEN: Final = re.compile(r"HRKU-[A-Za-z0-9_-]+")


def redacted(text: str) -> str:
    """`text` without what looks like a private key, a password or a token."""
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}…"
    text = _PRIVATE_KEY.sub(GONE, text)
    text = _USER_OF_URL.sub(f"{GONE}@", text)
    text = _NAMED.sub(rf"\1{GONE}", text)
    text = _OF_YAML.sub(rf"\1{GONE}", text)
    text = _AUTHORIZATION.sub(rf"\1{GONE}", text)
    return _HEROKU_TOKEN.sub(GONE, text)


def told(text: str) -> str:
    """`text` as it may be shown: redacted, and what would drive a terminal escaped."""
    return printable(redacted(text))


def pasted(commands: Iterable[str]) -> tuple[str, ...]:
    """Those lines for a shell that are shown: all but those that hold what may not be.

    A secret cannot be cut out of a line: with it a quote may go, and the rest would be read in another way.
    """
    return tuple(command for command in commands if told(command) == command)


def redacted_value(value: Any, depth: int = 0) -> Any:
    """A fact as JSON can hold it, its texts redacted. What JSON does not know becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # JSON knows no infinity, and NaN is not less than it
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {
            redacted(str(key)): GONE if _SECRET_KEY.search(str(key)) and each else redacted_value(each, depth + 1)
            for key, each in value.items()
        }
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        members = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [redacted_value(each, depth + 1) for each in members]
    moment = getattr(value, "isoformat", None)
    return redacted(str(moment() if callable(moment) else value))
