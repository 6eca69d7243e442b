"""How a report is shown to people: for each tunnel the cause and what to type, then the layers in their order.

Tunnels that fail for the same cause stand together beneath it, and it is said once.

Sentences are wrapped at the width of the terminal. Commands never are, and nothing stands on their line: they are there
to be copied.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mtlskit.cli.render import Colour, line, painted
from mtlskit.cli.table import cells

if TYPE_CHECKING:
    from mtlskit.doctor.diagnosis import Diagnosis, Report
    from mtlskit.doctor.explain.known import Explanation
    from mtlskit.doctor.finding import Finding
    from mtlskit.doctor.report.changes import Change
    from mtlskit.doctor.report.folding import Group
    from mtlskit.doctor.report.outline import Entry, Row

__all__ = ["show_change", "show_explanations", "show_report"]

_PIPED = 80
"""Columns where nobody tells how wide the output is."""
_WIDEST = 120
"""Longer lines are hard to follow."""
_NARROW = 64
"""Below this a layer's words stand beneath its name, not beside it."""
_MARGIN = 2
_TITLE = 21
"""Columns of a layer's name, with its mark and the blank behind it."""
_LABEL = 7
"""Columns of "Cause" and "To do" with the blanks behind them."""

_MARKS = {"pass": "✓", "warn": "!", "fail": "✗", "skipped": "–"}  # noqa: RUF001 - an en dash is meant
_ASCII_MARKS = {"pass": "+", "warn": "!", "fail": "x", "skipped": "-"}
_COLOURS = {"pass": Colour.GREEN, "warn": Colour.YELLOW, "fail": Colour.RED, "skipped": Colour.DIM}
_PLAIN_LETTERS = str.maketrans({"→": "->", "…": "...", "–": "-"})  # noqa: RUF001 - as above
_LABELS = {"Cause": Colour.RED, "To do": Colour.BOLD, "More": Colour.DIM}
_ASKED_FOR = frozenset({"kafka.write-test"})
"""What somebody has asked for by a flag is told in full."""
_STATES = {"pass": "now passes", "warn": "now warns", "fail": "now fails", "skipped": "is not looked at any more"}


@dataclass(frozen=True)
class _Style:
    """How much is shown, and on what."""

    width: int
    quiet: bool = False
    verbose: bool = False
    folded: bool = False
    """The cause stands above, said of several tunnels."""


def show_report(report: Report, *, quiet: bool = False, verbose: bool = False, interrupted: bool = False) -> None:
    """All tunnels, and one line in the end. `quiet`: only what is wrong; nothing where nothing is."""
    from mtlskit.doctor.report.folding import grouped
    from mtlskit.doctor.report.outline import summary
    from mtlskit.doctor.report.redaction import told

    style = _Style(_width(), quiet, verbose)
    shown = [each for each in report.diagnoses if not quiet or not each.healthy or each.warnings]
    for group in grouped(shown):
        for block in _group_blocks(group, style):
            for text in block:
                _print(text)
            line()
    if interrupted:
        _print(painted("interrupted: this is what was seen so far", Colour.YELLOW))
    elif shown or not quiet:
        for text in _wrapped(f"{told(summary(report))}; {report.seconds:.1f} s", style.width, 0):
            _print(painted(text, Colour.GREEN if report.healthy else Colour.RED))


def show_change(change: Change) -> None:
    """`16:02:11 reporting: tcp.connect (db.example.com:5432) now passes: answers in 12 ms`, in local time."""
    from mtlskit.doctor.report.redaction import told

    style = _Style(_width())
    verdict = "pass" if change.after is None else change.after.verdict.value
    about = f" ({told(change.about)})" if change.about else ""
    if change.after is None:
        said = "is not wrong any more"
    else:
        code = f" [{change.after.code}]" if change.after.code else ""
        said = f"{_STATES[verdict]}: {told(change.after.seen)}{code}"
    head = f"{_clock(change.at)} {_mark(verdict)} "
    for text in _wrapped(f"{told(change.tunnel)}: {change.check}{about} {said}", style.width, cells(head)):
        _print(f"{painted(head, _COLOURS[verdict])}{text}")
        head = " " * cells(head)
    if verdict == "fail" and change.after is not None:
        for text in _remedy(change.after, style, cells(head)):
            _print(head + text)


def show_explanations(explanations: Sequence[Explanation]) -> None:
    """What a text means: the most telling answer first."""
    from mtlskit.doctor.explain.pages import place
    from mtlskit.doctor.report.redaction import told

    style = _Style(_width())
    for number, each in enumerate(explanations):
        if number:
            line()
        for text in _wrapped(f"{told(each.says)} [{each.code}]", style.width, 0):
            _print(painted(text, Colour.BOLD))
        for text in _labelled("Cause", told(each.meaning), style):
            _print(text)
        for text in _labelled("To do", told(each.hint), style) if each.hint else ():
            _print(text)
        for text in _command_lines(each.commands, _MARGIN + _LABEL):
            _print(text)
        for text in _labelled("More", place(each.code), style):
            _print(text)


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M:%S}"


def _group_blocks(group: Group, style: _Style) -> Iterator[Iterator[str]]:
    """A block for each tunnel; before those of several that have one cause, one with that."""
    cause = group.shared
    if cause is not None:
        yield _shared_lines(group, cause, style)
        style = replace(style, folded=True)
    for diagnosis in group.diagnoses:
        yield _diagnosis_lines(diagnosis, style)


def _shared_lines(group: Group, cause: Finding, style: _Style) -> Iterator[str]:
    """`reporting, events: one cause for 2 tunnels`, the cause, and what to do."""
    from mtlskit.doctor.report.redaction import told

    names = ", ".join(told(each.name) for each in group.diagnoses)
    for text in _wrapped(f"{names}: one cause for {len(group.diagnoses)} tunnels", style.width, 0):
        yield painted(text, Colour.BOLD)
    yield ""
    yield from _said_and_to_do(cause, style)


def _diagnosis_lines(diagnosis: Diagnosis, style: _Style) -> Iterator[str]:
    from mtlskit.doctor.report.outline import outline, title
    from mtlskit.doctor.report.redaction import told

    name = told(diagnosis.name)
    *between, last = _wrapped(f"{name}: {told(title(diagnosis))}", style.width, 0)
    for place, text in enumerate([*between, last]):
        yield painted(name, Colour.BOLD) + text.removeprefix(name) if place == 0 else text
    if not style.folded:
        yield from _cause_lines(diagnosis, style)
    rows = [
        text
        for row in outline(diagnosis)
        if not style.quiet or row.verdict in ("warn", "fail")
        for text in _row_lines(row, diagnosis, style)
    ]
    if rows:
        yield ""
        yield from rows


def _cause_lines(diagnosis: Diagnosis, style: _Style) -> Iterator[str]:
    cause = diagnosis.cause
    if cause is None and diagnosis.complete:
        return
    yield ""
    if cause is None:
        said = "not known: it ended before everything had been looked at; see below what was not reached"
        yield from _labelled("Cause", said, style)
        yield from _labelled("To do", "give it more time, such as --timeout 60", style)
        return
    yield from _said_and_to_do(cause, style)


def _said_and_to_do(cause: Finding, style: _Style) -> Iterator[str]:
    from mtlskit.doctor.report.redaction import told

    yield from _labelled("Cause", f"{told(cause.seen)} [{cause.code}]", style)
    yield from _labelled("To do", told(cause.hint), style)
    yield from _command_lines(cause.commands, _MARGIN + _LABEL)


def _labelled(label: str, text: str, style: _Style) -> Iterator[str]:
    """A sentence behind its label; its further lines stand beneath it."""
    indent = _MARGIN + _LABEL
    head = f"{' ' * _MARGIN}{painted(label, _LABELS[label])}{' ' * (_LABEL - len(label))}"
    for each in _wrapped(text, style.width, indent):
        yield head + each
        head = " " * indent


def _row_lines(row: Row, diagnosis: Diagnosis, style: _Style) -> Iterator[str]:
    """A layer: its mark, its name, and what was seen; under it what to do."""
    mark = f"{' ' * _MARGIN}{_mark(row.verdict)} "
    head = painted(mark, _COLOURS[row.verdict])
    if row.verdict == "skipped":
        yield from _skipped_lines(row, mark, style)
        return
    shown = ("pass", "warn", "fail", "skipped") if style.verbose else ("warn", "fail")
    entries = [entry for entry in row.entries if entry.finding.verdict in shown]
    name = f"{row.title:<{_TITLE - 2}} "
    indent = cells(mark) + len(name)
    if style.width < _NARROW:
        yield f"{head}{row.title}"
        indent = _MARGIN + 4
        head, name = " " * indent, ""
    if not entries:
        for text in _short(row, style.width - indent, indent):
            yield f"{head}{name}{text}"
            head, name = " " * indent, ""
    for entry in entries:
        for text in _entry_lines(entry, diagnosis, style, indent, marked=style.verbose or len(entries) > 1):
            yield f"{head}{name}{text}"
            head, name = " " * indent, ""


def _short(row: Row, room: int, indent: int) -> Iterator[str]:
    """What passes, in one line that may end early; beneath it what was left out."""
    from mtlskit.doctor.report.outline import reason
    from mtlskit.doctor.report.redaction import told

    yield _cut("; ".join(map(told, row.passes)), room)
    for entry in row.entries:
        if entry.finding.check in _ASKED_FOR and entry.finding.verdict == "pass":
            yield from _wrapped(told(entry.finding.seen), indent + room, indent)
    left_out = dict.fromkeys(reason(each.finding) for each in row.entries if each.finding.verdict == "skipped")
    for each in left_out:
        if each == f"needs {row.title}":
            continue
        for text in _wrapped(f"not all was looked at: {told(each)}", indent + room, indent):
            yield painted(text, Colour.DIM)


def _entry_lines(entry: Entry, diagnosis: Diagnosis, style: _Style, indent: int, *, marked: bool) -> Iterator[str]:
    """What was seen, what to do, and the facts; without the indentation that all of it has."""
    from mtlskit.doctor.report.redaction import told

    finding, cause = entry.finding, diagnosis.cause
    mark = f"{_mark(finding.verdict)} " if marked else ""
    if finding is cause and not style.verbose:
        own = style.folded and finding.shared  # what stands above is said of several, and leaves something out
        said = f"the cause, above: {told(finding.seen)}" if own else f"{finding.check}: the cause, above"
        for text in _wrapped(said, style.width, indent + len(mark)):
            yield mark + text
            mark = " " * len(mark)
        return
    first = mark
    for text in _wrapped(_said(entry, diagnosis), style.width, indent + len(mark)):
        yield painted(first + text, Colour.DIM) if finding.verdict == "skipped" else first + text
        first = " " * len(mark)
    if diagnosis.explains(finding):
        yield " " * len(mark) + "the cause explains it"
    elif finding is not cause and finding.hint and (cause is None or finding.hint != cause.hint):
        if cause is not None and finding.layer == "local" and finding.verdict == "fail":
            finding = replace(finding, hint=f"when the cause is mended: {finding.hint}")
        yield from _remedy(finding, style, indent, len(mark))
    if style.verbose:
        yield from (" " * len(mark) + text for text in _fact_lines(finding, style, indent + len(mark)))


def _said(entry: Entry, diagnosis: Diagnosis) -> str:
    """A finding in one sentence, with its code, and of what it was seen where it does not say so itself."""
    from mtlskit.doctor.report.outline import reason
    from mtlskit.doctor.report.redaction import told

    finding = entry.finding
    if finding.verdict == "skipped":
        what = ", ".join(map(told, entry.abouts)) or finding.check.partition(".")[2]
        return f"{what}: {told(finding.seen)}: {told(reason(finding))}"
    code = f" [{finding.code}]" if finding.code else ""
    of = [about for about in entry.abouts if about not in finding.seen and about != diagnosis.upstream]
    return f"{told(finding.seen)}{code}" + (f" ({', '.join(map(told, of))})" if of else "")


def _remedy(finding: Finding, style: _Style, indent: int, deeper: int = 0) -> Iterator[str]:
    """What to do, `deeper` than what was seen; `indent` is what the lines get in front."""
    from mtlskit.doctor.report.redaction import told

    for text in _wrapped(told(finding.hint), style.width, indent + deeper):
        yield " " * deeper + text
    yield from _command_lines(finding.commands, deeper)


def _command_lines(commands: Sequence[str], indent: int) -> Iterator[str]:
    """Each on a line of its own, whole."""
    from mtlskit.doctor.report.redaction import pasted

    for command in pasted(commands):
        yield f"{' ' * (indent + 2)}{painted(command, Colour.BOLD)}"


def _fact_lines(finding: Finding, style: _Style, indent: int) -> Iterator[str]:
    """The check's stable name, how long it took, and its facts; `indent` is what the lines get in front."""
    from mtlskit.doctor.report.redaction import redacted_value, told

    took = "" if finding.seconds is None else f", {finding.seconds * 1000:.0f} ms"
    yield painted(f"{finding.check}{took}", Colour.DIM)
    facts: dict[str, Any] = redacted_value(finding.facts)
    for key, value in facts.items():
        several = isinstance(value, list) and any(isinstance(each, dict) for each in value)
        for each in value if several else [value]:
            for text in _wrapped(f"{told(key)}: {told(_plain(each))}", style.width, indent + 2):
                yield "  " + painted(text, Colour.DIM)


def _plain(value: Any) -> str:
    """A fact in words."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    if isinstance(value, list):
        return ", ".join(_plain(each) for each in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    return str(value)


def _skipped_lines(row: Row, mark: str, style: _Style) -> Iterator[str]:
    from mtlskit.doctor.report.outline import reason
    from mtlskit.doctor.report.redaction import told

    reasons = dict.fromkeys(told(reason(entry.finding)) for entry in row.entries)
    said = f"not looked at: {'; '.join(reasons)}"
    if len(row.title) < _TITLE - 1 and style.width >= _NARROW:
        head = f"{mark}{row.title:<{_TITLE - 2}} "
    else:
        head, said = mark, f"{row.title}: {said}"
    indent = cells(head)
    for text in _wrapped(said, style.width, indent):
        yield painted(head + text, Colour.DIM)
        head = " " * indent


def _mark(verdict: str) -> str:
    return (_MARKS if _writable("✓✗–…") else _ASCII_MARKS)[verdict]  # noqa: RUF001 - as above


def _width() -> int:
    if not sys.stdout.isatty():
        return _PIPED
    return max(20, min(_WIDEST, shutil.get_terminal_size().columns))


def _wrapped(text: str, width: int, indent: int) -> list[str]:
    """`text` in lines of at most `width - indent` columns, parted at blanks; a longer word (a path, a name) is left."""
    room = max(16, width - indent)
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cells(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _cut(text: str, room: int) -> str:
    if cells(text) <= room:
        return text
    more = "…" if _writable("…") else "..."
    kept = ""
    for character in text:
        if cells(kept + character) > room - len(more):
            break
        kept += character
    return kept.rstrip() + more


def _writable(text: str) -> bool:
    """Whether standard output can write these letters."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeError, LookupError):
        return False
    return True


def _print(text: str) -> None:
    """One line; letters that the output has not are escaped, where Python would end with an error."""
    if not _writable(text):
        encoding = sys.stdout.encoding or "ascii"
        text = text.translate(_PLAIN_LETTERS).encode(encoding, "backslashreplace").decode(encoding)
    line(text)
