"""A diagnosis arranged for people: a row for each layer, what is alike said once, what was skipped in a few words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Layer, Verdict

__all__ = ["TITLES", "Entry", "Row", "outline", "reason", "summary", "title"]

TITLES = MappingProxyType(
    {
        Layer.CONFIGURATION: "configuration",
        Layer.FILES: "files",
        Layer.IDENTITY: "client identity",
        Layer.CLOCK: "clock",
        Layer.HEROKU: "Heroku",
        Layer.ALLOWLIST: "allowlist",
        Layer.DNS: "DNS",
        Layer.TCP: "TCP",
        Layer.NEGOTIATION: "first answer",
        Layer.TLS: "TLS",
        Layer.CLIENT_CERTIFICATE: "client certificate",
        Layer.REVOCATION: "revocation",
        Layer.POSTGRES: "PostgreSQL",
        Layer.KAFKA: "Kafka",
        Layer.LOCAL: "local side",
    }
)
"""The layers as people call them."""

_TELLING = frozenset(
    {
        "identity.dates",
        "heroku.endpoint",
        "tls.handshake",
        "postgres.login",
        "kafka.cluster",
        "local.client",
    }
)
"""Of the checks of a layer, the one that says most to whoever reads a line of it."""

_WORST_FIRST = (Verdict.FAIL, Verdict.WARN, Verdict.PASS, Verdict.SKIPPED)


@dataclass(frozen=True)
class Entry:
    """A finding, or several that say the same of several things."""

    finding: Finding
    abouts: tuple[str, ...] = ()
    """What it was seen of; empty where it is of the tunnel as a whole."""


@dataclass(frozen=True)
class Row:
    """A layer and what was found there; or several layers that were skipped for one reason."""

    layers: tuple[Layer, ...]
    verdict: Verdict
    """The worst of its entries."""
    entries: tuple[Entry, ...]

    @property
    def passes(self) -> tuple[str, ...]:
        """What passes, the most telling first."""
        seen = [each.finding for each in self.entries if each.finding.verdict is Verdict.PASS]
        return tuple(finding.seen for finding in sorted(seen, key=lambda finding: finding.check not in _TELLING))

    @property
    def title(self) -> str:
        """`TLS, client certificate`."""
        return ", ".join(TITLES[layer] for layer in self.layers)


def outline(diagnosis: Diagnosis) -> tuple[Row, ...]:
    """The rows of a tunnel, in the order of the layers."""
    rows: list[Row] = []
    findings = _first_reasons(diagnosis.findings)
    for layer in Layer:
        found = [finding for finding in findings if finding.layer is layer]
        if not found:
            continue
        verdict = min((finding.verdict for finding in found), key=_WORST_FIRST.index)
        row = Row((layer,), verdict, _merged(found))
        if verdict is Verdict.SKIPPED and (same := _skipped_alike(rows, row)) is not None:
            rows[same] = replace(rows[same], layers=(*rows[same].layers, layer))
        else:
            rows.append(row)
    return tuple(rows)


def reason(finding: Finding) -> str:
    """Why a skipped finding was skipped: `needs TCP`, or the words that it has itself."""
    layer = finding.because.partition(".")[0]
    if layer == Layer.REVOCATION:
        return "the server's certificate is revoked"
    return f"needs {TITLES[Layer(layer)]}" if layer in set(Layer) else finding.because


def title(diagnosis: Diagnosis) -> str:
    """What a diagnosis is of, behind its name: `postgres to db.example.com:5432`."""
    if diagnosis.kind == "configuration":
        return "the configuration file"
    return f"{diagnosis.kind} to {diagnosis.upstream}" if diagnosis.upstream else diagnosis.kind


def summary(report: Report) -> str:
    """All of it in one sentence, without a full stop."""
    tunnels = [diagnosis for diagnosis in report.diagnoses if diagnosis.kind != "configuration"]
    troubles = [diagnosis for diagnosis in tunnels if diagnosis.cause is not None or not diagnosis.complete]
    number, troubled = len(tunnels), len(troubles)
    warnings = sum(len(_merged(diagnosis.warnings)) for diagnosis in report.diagnoses)
    counted = f", with {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    who = ["the configuration"] if len(tunnels) < len(report.diagnoses) else []
    if troubled:
        who.append(f"{troubled} of {number} tunnels" if number > 1 else tunnels[0].name)
    if who:
        verb = "needs" if len(who) == 1 and (troubled < 2 or number == 1) else "need"
        return f"{' and '.join(who)} {verb} attention{counted}"
    if not number:
        return "there was nothing to look at"
    if any(diagnosis.unseen for diagnosis in tunnels):
        return f"nothing fails, but no server has seen our certificate{counted}"
    if any(_without_login(diagnosis) for diagnosis in tunnels):
        return f"nothing fails; no login to PostgreSQL was tried{counted}"
    if counted:
        return f"nothing fails{counted}"
    all_of_them = "both" if number == 2 else f"all {number}"
    return f"{all_of_them} tunnels are well" if number > 1 else "all is well"


def _without_login(diagnosis: Diagnosis) -> bool:
    """Nobody knows whether a password fits, and that is where many connections end."""
    of_login = [finding for finding in diagnosis.findings if finding.layer is Layer.POSTGRES]
    return any(finding.verdict is Verdict.SKIPPED for finding in of_login) and not any(
        finding.check == "postgres.login" and finding.verdict is Verdict.PASS for finding in of_login
    )


def _first_reasons(findings: Sequence[Finding]) -> list[Finding]:
    """With the reason that stands behind a reason: a layer that waits for another that was skipped waits for its."""
    reasons = {finding.layer.value: finding.because for finding in findings if finding.verdict is Verdict.SKIPPED}
    failing = {finding.layer.value for finding in findings if finding.verdict is Verdict.FAIL}
    failing.add(Layer.REVOCATION.value)  # what was skipped there is about lists, and no reason for what waits for it
    found = []
    for finding in findings:
        because = finding.because
        for _ in Layer:  # a chain is no longer than there are layers
            layer = because.partition(".")[0]
            if layer in failing or layer not in reasons:
                break
            because = reasons[layer]
        found.append(replace(finding, because=because) if because != finding.because else finding)
    return found


def _skipped_alike(rows: Sequence[Row], row: Row) -> int | None:
    """The place of a row that was skipped for the same reasons."""
    reasons = {reason(entry.finding) for entry in row.entries}
    for place, other in enumerate(rows):
        if other.verdict is Verdict.SKIPPED and {reason(entry.finding) for entry in other.entries} == reasons:
            return place
    return None


def _merged(findings: Sequence[Finding]) -> tuple[Entry, ...]:
    """What says the same of several things, once; the worst first."""
    alike: dict[tuple[object, ...], Entry] = {}
    for finding in findings:
        seen = "" if finding.verdict is Verdict.SKIPPED else finding.seen
        key = (finding.check, finding.verdict, seen, finding.code, finding.hint, finding.commands, finding.because)
        before = alike.get(key)
        about = (finding.about,) if finding.about else ()
        alike[key] = Entry(finding, about) if before is None else replace(before, abouts=(*before.abouts, *about))
    return tuple(sorted(alike.values(), key=lambda entry: _WORST_FIRST.index(entry.finding.verdict)))
