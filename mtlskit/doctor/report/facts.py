"""A report as plain values for JSON. The keys are a contract: report.schema.json, and docs/reference/doctor.md."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.report.changes import Change
from mtlskit.doctor.report.redaction import pasted, redacted, redacted_value

__all__ = ["SCHEMA", "change_facts", "finding_facts", "report_facts"]

SCHEMA: Final = 1
"""Grows when a key changes its meaning or goes away; not when one is added."""


def report_facts(report: Report) -> dict[str, Any]:
    """All of a report."""
    return {
        "type": "report",
        "schema": SCHEMA,
        "version": report.version,
        "at": _moment(report.at),
        "source": _text_or_null(report.source),
        "seconds": round(report.seconds, 3),
        "healthy": report.healthy,
        "tunnels": [_diagnosis_facts(diagnosis) for diagnosis in report.diagnoses],
    }


def change_facts(change: Change) -> dict[str, Any]:
    """One change between two looks."""
    return {
        "type": "change",
        "schema": SCHEMA,
        "at": _moment(change.at),
        "tunnel": redacted(change.tunnel),
        "check": change.check,
        "about": redacted(change.about),
        "before": None if change.before is None else change.before.value,
        "after": None if change.after is None else change.after.verdict.value,
        "finding": None if change.after is None else finding_facts(change.after),
    }


def finding_facts(finding: Finding) -> dict[str, Any]:
    """One check's result."""
    return {
        "layer": finding.layer.value,
        "check": finding.check,
        "verdict": finding.verdict.value,
        "seen": redacted(finding.seen),
        "about": redacted(finding.about),
        "code": None if finding.code is None else finding.code.value,
        "hint": redacted(finding.hint),
        "commands": list(pasted(finding.commands)),
        "because": redacted(finding.because),
        "facts": redacted_value(finding.facts),
        "seconds": None if finding.seconds is None else round(finding.seconds, 6),
    }


def _diagnosis_facts(diagnosis: Diagnosis) -> dict[str, Any]:
    cause = diagnosis.cause
    return {
        "name": redacted(diagnosis.name),
        "kind": diagnosis.kind,
        "upstream": redacted(diagnosis.upstream),
        "healthy": diagnosis.healthy,
        "complete": diagnosis.complete,
        "seconds": round(diagnosis.seconds, 3),
        "counts": {
            verdict.value: sum(finding.verdict is verdict for finding in diagnosis.findings) for verdict in Verdict
        },
        "cause": None if cause is None else finding_facts(cause),
        "findings": [finding_facts(finding) for finding in diagnosis.findings],
    }


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _text_or_null(text: str | None) -> str | None:
    return None if text is None else redacted(text)
