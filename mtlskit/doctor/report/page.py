"""A report as one page of HTML, to be attached to a ticket: nothing is loaded from elsewhere, and nothing runs.

Every text goes through the redactor and is escaped. The page's own policy (CSP) allows its one style sheet, by its
hash, and nothing else, so that a text which slipped through could still do nothing. Host names and addresses stay,
since whoever reads the ticket needs them; the reader's home folder does not.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.report.outline import Entry, Row, outline, reason, summary, title
from mtlskit.doctor.report.page_style import STYLE
from mtlskit.doctor.report.redaction import pasted, redacted_value, told

__all__ = ["page"]

_WORDS: Final = {Verdict.PASS: "pass", Verdict.WARN: "warning", Verdict.FAIL: "fails", Verdict.SKIPPED: "not looked at"}
_MARKS: Final = {Verdict.PASS: "✓", Verdict.WARN: "!", Verdict.FAIL: "✗", Verdict.SKIPPED: "–"}  # noqa: RUF001 - a dash


def page(report: Report) -> str:
    """The whole document."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    said = _text(summary(report))
    state = "good" if report.healthy else "bad"
    body = "\n".join(part for diagnosis in report.diagnoses for part in _tunnel(diagnosis))
    source = f"<dt>Configuration</dt><dd>{_text(report.source)}</dd>" if report.source else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>mtlskit doctor: {said}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>mtlskit doctor</h1>
<p class="summary {state}">{said[:1].upper()}{said[1:]}</p>
<dl class="about"><dt>Looked at</dt><dd>{_moment(report.at)}</dd><dt>Took</dt><dd>{report.seconds:.1f} s</dd>
<dt>mtlskit</dt><dd>{_text(report.version)}</dd>{source}</dl>
</header>
<main>
{body}
</main>
</body>
</html>
"""


def _tunnel(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"<section><h2>{_text(diagnosis.name)} <small>{_text(title(diagnosis))}</small></h2>"
    yield from _cause(diagnosis)
    yield '<div class="layers">'
    for row in outline(diagnosis):
        yield from _row(row, diagnosis.cause)
    yield "</div></section>"


def _cause(diagnosis: Diagnosis) -> Iterator[str]:
    cause = diagnosis.cause
    if cause is not None:
        yield f'<div class="cause"><p><strong>Cause</strong> {_text(cause.seen)} {_code(cause)}</p>'
        yield f"<p><strong>To do</strong> {_text(cause.hint)}</p>{_commands(cause)}</div>"
    elif not diagnosis.complete:
        said = "it ended before everything had been looked at"
        yield f'<div class="cause"><p><strong>Not finished</strong> {said}</p></div>'
    elif not diagnosis.warnings:
        yield '<p class="well">Nothing is wrong.</p>'


def _row(row: Row, cause: Finding | None) -> Iterator[str]:
    """A layer. What needs attention stands open; what is well can be opened."""
    opened = " open" if row.verdict in (Verdict.FAIL, Verdict.WARN) else ""
    name = f"<b>{_text(row.title)}</b>"
    word = f'<span class="word">{_WORDS[row.verdict]}</span>'
    yield f'<details class="{row.verdict.value}"{opened}>'
    yield f"<summary>{_mark(row.verdict)}{name}{_in_short(row)}{word}</summary><ul>"
    for entry in row.entries:
        yield from _entry(entry, row, cause)
    yield "</ul></details>"


def _in_short(row: Row) -> str:
    """What stands beside a layer that is not opened."""
    texts = row.passes or tuple(dict.fromkeys(reason(entry.finding) for entry in row.entries))
    return f'<span class="seen">{_text("; ".join(texts))}</span>'


def _mark(verdict: Verdict) -> str:
    return f'<span class="mark {verdict.value}" aria-hidden="true">{_MARKS[verdict]}</span>'


def _entry(entry: Entry, row: Row, cause: Finding | None) -> Iterator[str]:
    finding = entry.finding
    skipped = finding.verdict is Verdict.SKIPPED
    said = f"{_text(finding.seen)}: {_text(reason(finding))}" if skipped else _text(finding.seen)
    mark = (
        f'<span class="mark {finding.verdict.value}">{_MARKS[finding.verdict]}</span>' if len(row.entries) > 1 else ""
    )
    yield f"<li><p>{mark}{said} {_code(finding)}</p>"
    if finding is not cause and finding.hint:
        yield f'<p class="hint">{_text(finding.hint)}</p>{_commands(finding)}'
    about = "".join(f"<span>{_text(each)}</span>" for each in entry.abouts)
    took = "" if finding.seconds is None else f"<span>{finding.seconds * 1000:.0f} ms</span>"
    yield f'<p class="check"><span>{_text(finding.check)}</span>{about}{took}</p>'
    facts: dict[str, Any] = redacted_value(finding.facts)
    if facts:
        rows = "".join(f"<dt>{_text(key)}</dt><dd>{_value(value)}</dd>" for key, value in facts.items())
        yield f'<dl class="facts">{rows}</dl>'
    yield "</li>"


def _code(finding: Finding) -> str:
    return f'<span class="code">{_text(finding.code.value)}</span>' if finding.code else ""


def _commands(finding: Finding) -> str:
    lines = "\n".join(_text(each) for each in pasted(finding.commands))
    return f"<pre>{lines}</pre>" if lines else ""


def _value(value: Any) -> str:
    """A fact: texts as they are, everything else as JSON writes it."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        return "<br>".join(_text(each) for each in value)
    return _text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _moment(moment: datetime) -> str:
    return f'<time datetime="{moment.isoformat()}">{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC</time>'


def _text(text: str) -> str:
    """A text for the page: without secrets, without the reader's home folder, escaped."""
    return html.escape(_without_home(told(text)))


def _without_home(text: str) -> str:
    try:
        home = str(Path.home())
    except RuntimeError:  # nobody knows where it is
        return text
    if len(home) < 2:
        return text
    return re.sub(rf"{re.escape(home)}(?=[/\\]|\W|$)", "~", text)
