"""What is new between looks at the same tunnels, for whoever watches.

A check is known by its tunnel, its name and what it was about. It has changed when its verdict has, or the code of what
is wrong; that a round trip took two milliseconds more is no news. Neither is that the layers behind a failure are not
looked at any more: what was known of them is remembered meanwhile, and compared with what is seen when they are back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Layer, Verdict

__all__ = ["Change", "Memory"]

_Key = tuple[str, str, str]

_TROUBLE: Final = (Verdict.FAIL, Verdict.WARN)
_MOST_UNSEEN: Final = 300
"""Checks of one tunnel that are remembered while they are out of sight. A cluster names its brokers as it likes, and
may name others in each round."""
_SEVERITY: Final = {Verdict.FAIL: 0, Verdict.WARN: 1, Verdict.PASS: 2, Verdict.SKIPPED: 3}


@dataclass(frozen=True)
class Change:
    """One check that says something else than before."""

    at: datetime
    tunnel: str
    check: str
    about: str
    before: Verdict | None
    """None: it had not been seen."""
    after: Finding | None
    """None: what was wrong is gone, and the check has nothing else to say."""


class Memory:
    """What was seen last of each check."""

    def __init__(self, first: Report) -> None:
        self._known: dict[_Key, Finding] = {}
        self._unseen: set[_Key] = set()
        """Of `_known`: what the last look could not see."""
        self.changes(first)

    def changes(self, report: Report) -> tuple[Change, ...]:
        """What is new in `report`, which is remembered: first what fails, in the end what is good again."""
        diagnoses = {diagnosis.name: diagnosis for diagnosis in report.diagnoses}
        seen = _by_key(report)
        found = [
            Change(report.at, *key, None if key not in self._known else self._known[key].verdict, finding)
            for key, finding in seen.items()
            if self._is_news(key, finding)
        ]
        found += self._gone(report.at, diagnoses, seen)
        unseen = self._last_unseen(seen)
        self._unseen = set(unseen)
        self._known = unseen | seen
        return tuple(sorted(found, key=_rank))

    def _last_unseen(self, seen: Mapping[_Key, Finding]) -> dict[_Key, Finding]:
        """What is known beside `seen`, oldest first: of each tunnel what was seen last, up to `_MOST_UNSEEN`."""
        unseen = {key: finding for key, finding in self._known.items() if key not in seen}
        for tunnel, count in Counter(key[0] for key in unseen).items():
            for key in [key for key in unseen if key[0] == tunnel][: max(count - _MOST_UNSEEN, 0)]:
                del unseen[key]
        return unseen

    def _is_news(self, key: _Key, finding: Finding) -> bool:
        before = self._known.get(key)
        if before is None or before.verdict is not finding.verdict:
            return finding.verdict in _TROUBLE or (before is not None and before.verdict in _TROUBLE)
        # Trouble that was out of sight for a while is told again, or its reader would take it for mended.
        return finding.verdict in _TROUBLE and (before.code is not finding.code or key in self._unseen)

    def _gone(self, at: datetime, diagnoses: Mapping[str, Diagnosis], seen: Mapping[_Key, Finding]) -> Iterator[Change]:
        for key, finding in list(self._known.items()):
            if key in seen or _out_of_sight(finding, diagnoses.get(key[0])):
                continue
            del self._known[key]
            if finding.verdict in _TROUBLE:
                yield Change(at, *key, finding.verdict, None)


def _out_of_sight(finding: Finding, diagnosis: Diagnosis | None) -> bool:
    """Whether the layer of `finding` was not looked at to its end, so that nobody knows what became of it."""
    if diagnosis is None and finding.layer is Layer.CONFIGURATION:
        return False  # the file itself is spoken of only while it is wrong
    if diagnosis is None or not diagnosis.complete:
        return True
    skipped = [each for each in diagnosis.findings if each.layer is finding.layer and each.verdict is Verdict.SKIPPED]
    return any(not each.about or not finding.about or each.about == finding.about for each in skipped)


def _by_key(report: Report) -> dict[_Key, Finding]:
    """What was looked at, by its key; of several with the same, the worst."""
    found: dict[_Key, Finding] = {}
    for diagnosis in report.diagnoses:
        for finding in diagnosis.findings:
            key = (diagnosis.name, finding.check, finding.about)
            if finding.verdict is Verdict.SKIPPED:
                continue
            if key not in found or _SEVERITY[finding.verdict] < _SEVERITY[found[key].verdict]:
                found[key] = finding
    return found


def _rank(change: Change) -> int:
    return _SEVERITY[Verdict.PASS if change.after is None else change.after.verdict]
