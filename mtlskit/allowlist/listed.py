"""Lists of addresses that others publish, as they publish them: plain lines, JSON or CSV.

**Plain**: an address or CIDR on each line, or several parted by spaces or commas; `#` or `;` begins a comment, which is
the description of what stands before it.

**JSON**: texts, in whatever lists and objects they stand. Of an object, the first of `_KEYS` that it has holds the
CIDR, or a list of them, and the first of `_WORDS` describes it; an object without such a key is looked through. So
`["…"]`, `{"prefixes": [{"ip_prefix": "…"}]}` and `{"prefixes": [{"ipv4Prefix": "…"}]}` are all read, and the version,
the date and the region beside them are not taken for addresses.

**CSV**: the column that has one of `_KEYS` as its title, else the one with the most addresses. The one with a title
among `_WORDS` describes them.

Heroku takes IPv4 only, so IPv6 entries are left out and counted. Everything else that is not understood is refused:
half a list would let half of a vendor's hosts in, and nobody would know which. So is a list that names nothing, because
a plan made from it would take away what the last one allowed.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Final

from mtlskit.allowlist.plan import FROM_LIST, Wanted
from mtlskit.config.cidrs import parse_cidr
from mtlskit.errors import AllowlistError, Code, ConfigError

__all__ = ["LARGEST_LIST", "MOST_LISTED", "Listed", "parse_listed", "read_listed"]

LARGEST_LIST: Final = 1024 * 1024
"""Bytes. The largest that a cloud publishes for all of its services has more, and no rules for it."""

MOST_LISTED: Final = 5000
"""Entries. Heroku takes 60 rules; collapsing makes few out of many only where they lie side by side."""

_DEEPEST: Final = 16
"""Lists within lists."""

_MOST_MISSED: Final = 50
"""Texts whose line in a JSON document was searched for in vain."""

_LONGEST_WORD: Final = 100
"""Characters of a description. It has to leave room for the owner's tag."""

_KEYS: Final = (
    "ip_prefix", "ipv4prefix", "ipv4_prefix", "ipprefix", "ipv6prefix", "ipv6_prefix", "cidr", "cidrs", "prefix",
    "ip_address", "ipaddress", "ip_range", "iprange", "address", "ip", "ips", "ipv4", "ipv6", "network", "range",
    "addressprefixes", "addresses",
)  # fmt: skip
_WORDS: Final = ("description", "comment", "name", "label", "service", "region")

_QUERY: Final = re.compile(r"[?#].*", re.DOTALL)
_TAG: Final = re.compile(r"\[(?:mtlskit:)+")
"""How a tag begins; with the word twice, so that what is left when one is taken away is not another."""

_COMMENT: Final = re.compile(r"[#;]")
_PARTS: Final = re.compile(r"[\s,]+")


@dataclass(frozen=True)
class Listed:
    """What a list names. `ipv6` entries were left out."""

    wanted: tuple[Wanted, ...]
    ipv6: int = 0


@dataclass(frozen=True)
class _Entry:
    text: str
    word: str
    place: str
    """Such as `vendor.txt:3`."""


def parse_listed(content: bytes, *, source: str, wide_ok: bool = False) -> tuple[Wanted, ...]:
    """The ranges of a published list. As `read_listed`, for those who do not ask what was left out."""
    return read_listed(content, source=source, wide_ok=wide_ok).wanted


def read_listed(content: bytes, *, source: str, wide_ok: bool = False) -> Listed:
    """Read a published list; `source` names it in errors and in the origin of each range. Each CIDR is taken once.

    Of a URL, what follows its path is left out: it may hold a key, and rules are read by everybody with access to them.
    Raises `AllowlistError` (ALLOW_SOURCE) for a list that cannot be read, is too large, or names no IPv4 address;
    `ConfigError` (ALLOW_BAD_CIDR, ALLOW_PRIVATE, ALLOW_TOO_WIDE), with the line, for an entry that no rule can have.
    """
    source = _public(source)
    if len(content) > LARGEST_LIST:
        raise _unusable(source, f"larger than {LARGEST_LIST} bytes", "name a list of the hosts that connect, no more")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise _unusable(f"{source}:{line}", "not UTF-8 text") from exc
    wanted: dict[str, Wanted] = {}
    ipv6 = 0
    for number, entry in enumerate(_entries(text, source)):
        if number >= MOST_LISTED:
            raise _unusable(
                source, f"more than {MOST_LISTED} entries", "name a list of the hosts that connect, no more"
            )
        try:
            cidr = parse_cidr(entry.text, wide_ok=wide_ok)
        except ConfigError as exc:
            if exc.code is not Code.ALLOW_IPV6:
                raise ConfigError(exc.code, f"{entry.place}: {exc.sentence}", exc.hint) from exc
            ipv6 += 1
        else:
            wanted.setdefault(str(cidr), Wanted(cidr, entry.word or source[-_LONGEST_WORD:], f"{FROM_LIST}{source}"))
    if not wanted:
        only = f": all {ipv6} entries are IPv6, and Heroku's IP rules take IPv4 only" if ipv6 else ""
        raise _unusable(source, f"names no IPv4 address{only}")
    return Listed(tuple(wanted.values()), ipv6)


def _entries(text: str, source: str) -> Iterator[_Entry]:
    begins = text.lstrip()[:1]
    if begins in ("[", "{"):
        return _of_json(text, source)
    if begins == "<":
        raise _unusable(source, "a web page, not a list of addresses", "look at its address in a browser")
    rows = _rows(text)
    return _of_table(rows, source) if rows else _of_lines(text, source)


# Plain lines.


def _of_lines(text: str, source: str) -> Iterator[_Entry]:
    titled = True
    for number, line in enumerate(text.splitlines(), start=1):
        entries, *comment = _COMMENT.split(line, maxsplit=1)
        parts = [part for part in _PARTS.split(entries) if part]
        if titled and len(parts) == 1 and parts[0].strip('"').casefold() in _KEYS:
            titled = False  # a table of one column
            continue
        for part in parts:
            titled = False
            yield _Entry(part.strip('"'), _word(comment[0] if comment else ""), f"{source}:{number}")


# JSON.


def _of_json(text: str, source: str) -> Iterator[_Entry]:
    try:
        document = json.loads(text)
    except json.JSONDecodeError as exc:
        raise _unusable(
            f"{source}:{exc.lineno}", f"not JSON: {exc.msg}", "it may have been cut off: try again"
        ) from exc
    except (RecursionError, ValueError) as exc:  # ValueError: a number of too many digits
        raise _unusable(source, "not usable JSON: nested too deeply, or with numbers too long") from exc
    lines = _Lines(text)
    for found, word in _texts(document, "", depth=0, source=source):
        yield _Entry(found, _word(word), f"{source}:{lines.of(found)}")


def _texts(value: object, word: str, *, depth: int, source: str) -> Iterator[tuple[str, str]]:
    """Every text of `value` that stands where an address should, with what describes it."""
    if depth > _DEEPEST:
        raise _unusable(source, "lists within lists, too deep to be one of addresses")
    match value:
        case str():
            yield value, word
        case list():
            for item in value:
                yield from _texts(item, word, depth=depth + 1, source=source)
        case dict():
            by_key = {key.casefold(): key for key in value}
            described = (value[by_key[key]] for key in _WORDS if key in by_key)
            word = next((text for text in described if isinstance(text, str)), word)
            known = next((by_key[key] for key in _KEYS if key in by_key), None)
            # Below an unknown key only what is inside of something counts: a date is no address.
            inner = [each for each in value.values() if isinstance(each, list | dict)]
            for item in inner if known is None else [value[known]]:
                yield from _texts(item, word, depth=depth + 1, source=source)


class _Lines:
    """On which line a text of the JSON stands. Texts are met in the order of the document, mostly.

    Each that is not found as it is written (`"\\u0031"`) costs a search to the end, so after some nothing is searched.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._missed = 0

    def of(self, found: str) -> int:
        if self._missed == _MOST_MISSED:
            return self._line
        position = self._text.find(json.dumps(found), self._at)
        if position < 0:
            self._missed += 1
        else:
            self._line += self._text.count("\n", self._at, position)
            self._at = position
        return self._line


# CSV.


def _rows(text: str) -> list[tuple[int, list[str]]]:
    """The rows of a CSV with their lines; none where it is not one: each line of a table has the delimiter."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    delimiter = max(",;\t", key=lines[0].count) if lines else ","
    if not all(delimiter in line.partition("#")[0] for line in lines):
        return []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except csv.Error:
        return []  # then it is read as plain lines, whose errors name the line
    rows = [(line, row) for line, row in rows if any(row) and not row[0].startswith("#")]
    cells = [cell for _, row in rows for cell in row if cell]
    # Addresses parted by commas are plain lines, and so is what has none: there, the error names the line.
    return [] if all(map(_is_address, cells)) or not any(map(_is_address, cells)) else rows


def _of_table(rows: list[tuple[int, list[str]]], source: str) -> Iterator[_Entry]:
    (_, head), *rest = rows
    titled = not any(map(_is_address, head))
    titles: Mapping[str, int] = {title.casefold(): column for column, title in enumerate(head)} if titled else {}
    column = _column(rows, titles, source)
    words = next((titles[word] for word in _WORDS if word in titles), None)
    for line, row in rest if titled else rows:
        if cell := _cell(row, column):
            yield _Entry(cell, "" if words is None else _word(_cell(row, words)), f"{source}:{line}")


def _column(rows: list[tuple[int, list[str]]], titles: Mapping[str, int], source: str) -> int:
    """The column of the CIDRs. Raises `AllowlistError` (ALLOW_SOURCE) where two may be: the ends of ranges, say."""
    counts: Counter[int] = Counter()
    for _, row in rows:
        counts.update(column for column, cell in enumerate(row) if _is_address(cell))
    for key in _KEYS:
        if counts[titles.get(key, -1)]:
            return titles[key]
    (best, most), *others = counts.most_common(2)
    if others and others[0][1] == most:
        raise _unusable(source, "two columns hold addresses", 'call the one that is meant "cidr" in the first row')
    return best


def _cell(row: list[str], column: int) -> str:
    return row[column] if column < len(row) else ""


def _is_address(text: str) -> bool:
    """Whether this is meant as an address or a range, though it may be one that no rule can have."""
    try:
        ip_interface(text)
    except ValueError:
        return False
    return True


def _word(text: str) -> str:
    """A description on one line, and without a tag: a list must not name an owner."""
    line = "".join(character for character in " ".join(text.split()) if character.isprintable())
    return _TAG.sub("[", line)[:_LONGEST_WORD]


def _public(source: str) -> str:
    return _QUERY.sub("", source) if "://" in source else source


def _unusable(place: str, what: str, hint: str = "") -> AllowlistError:
    return AllowlistError(
        Code.ALLOW_SOURCE, f"{place}: {what}", hint or "name a file or URL with an address or CIDR on each line"
    )
