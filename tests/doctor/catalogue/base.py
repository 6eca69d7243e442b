"""What a fault of the catalogue is, and what has to hold of it.

A fault sets something up that is broken in one way, for real, and says what the doctor must name first. Whatever else
the doctor calls a failure must be true as well (`also`); anything beyond is a false alarm.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import Gathered, diagnose
from mtlskit.errors import Code
from tests.support.elsewhere import Elsewhere


@dataclass(frozen=True)
class Stage:
    """What a fault may use: a folder of its own, and the fixtures of the test."""

    folder: Path
    request: pytest.FixtureRequest

    def fixture(self, name: str) -> Any:
        """A fixture by its name, made when it is first asked for: ``stage.fixture("postgres")``."""
        return self.request.getfixturevalue(name)


@dataclass(frozen=True)
class Fault:
    """One way to be broken."""

    id: str
    """Short and in words: ``tls-other-name``."""
    title: str
    """What is wrong, for the table in the documentation: one line, a sentence without a full stop."""
    code: Code
    """What the doctor must name first."""
    build: Callable[[Stage], AbstractContextManager[Gathered]]
    """Breaks it; what it yields is examined; at the end all is put right again."""
    also: frozenset[Code] = frozenset()
    """Failures that are true besides the first."""
    verdict: Verdict = Verdict.FAIL
    """WARN: nothing may fail, and the warning must be there."""
    seen: str = ""
    """A part of the sentence that names the cause: the file, the name, the address."""
    warnings: frozenset[Code] = field(default_factory=frozenset)
    """Warnings that are right here; all others are false alarms."""


def check_fault(fault: Fault, stage: Stage) -> Report:
    """Break it, examine it, and hold what is said against what is true."""
    with fault.build(stage) as gathered:
        report = gathered.examine() if isinstance(gathered, Elsewhere) else trio.run(diagnose, gathered)
    hold_against(fault, report)
    return report


def hold_against(fault: Fault, report: Report) -> None:
    """Fails where something else is said than what is true."""
    diagnosis, *others = report.diagnoses  # a configuration of which one part is wrong, and the tunnels that are right
    for other in others:
        assert {finding.code for finding in other.findings if finding.code} <= fault.also | fault.warnings, told_of(
            other
        )
    told = told_of(diagnosis)
    failures = {finding.code for finding in diagnosis.findings if finding.verdict is Verdict.FAIL}
    warnings = {finding.code for finding in diagnosis.warnings}
    if fault.verdict is Verdict.WARN:
        assert not failures, told
        assert fault.code in warnings, told
        named = next(finding for finding in diagnosis.warnings if finding.code is fault.code)
    else:
        assert diagnosis.cause is not None, told
        named = diagnosis.cause
        assert named.code is fault.code, told
        assert failures <= {fault.code} | fault.also, told
    assert warnings <= fault.warnings | {fault.code}, told
    assert fault.seen in named.seen, told
    assert named.hint, told


def told_of(diagnosis: Diagnosis) -> str:
    """All findings, for the message of an assertion."""
    return "\n".join([f"{diagnosis.name} to {diagnosis.upstream}:", *(_line(each) for each in diagnosis.findings)])


def _line(finding: Finding) -> str:
    code = f" [{finding.code}]" if finding.code else ""
    because = f" because of {finding.because}" if finding.because else ""
    return f"  {finding.verdict:7} {finding.check} {finding.about}: {finding.seen}{code}{because}"
