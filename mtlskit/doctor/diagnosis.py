"""All findings about a tunnel, and which of them is the cause.

A connection depends on its layers in order, and so does the blame: the first failure explains those after it, which is
why most checks do not even run when one below them has failed. Where it is otherwise, `_BLAME` says so: a wrong clock
explains dates that do not fit, an endpoint that Heroku has taken away explains silence, a revoked certificate explains
that the server refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Final

from mtlskit.doctor.finding import Finding, Layer, Verdict
from mtlskit.errors import Code

__all__ = ["Diagnosis", "Report", "in_order", "settled", "spared"]

_BLAME: Final = (
    Layer.CONFIGURATION,
    Layer.FILES,
    Layer.CLOCK,
    Layer.IDENTITY,
    Layer.HEROKU,
    Layer.ALLOWLIST,
    Layer.DNS,
    Layer.TCP,
    Layer.NEGOTIATION,
    Layer.TLS,
    Layer.REVOCATION,
    Layer.CLIENT_CERTIFICATE,
    Layer.POSTGRES,
    Layer.KAFKA,
    Layer.LOCAL,
)
"""Whose failure explains those after it."""

_SILENCES: Final = frozenset({Code.TCP_TIMEOUT, Code.TCP_RESET, Code.TLS_TIMEOUT, Code.UPSTREAM_CLOSED})
_OF_OURS: Final = (Layer.IDENTITY, Layer.REVOCATION)
_SHOWN: Final = {layer: place for place, layer in enumerate(Layer)}


@dataclass(frozen=True)
class Diagnosis:
    """One tunnel, or a configuration that could not be read."""

    name: str
    kind: str
    """"postgres", "kafka", "tcp"; "configuration" where there is no tunnel to speak of."""
    upstream: str
    """Where it leads to, for people: endpoints, or an add-on."""
    findings: tuple[Finding, ...]
    """In the order of the layers."""
    seconds: float
    complete: bool = True
    """False: the time was up, or it was interrupted."""

    @property
    def cause(self) -> Finding | None:
        """The failure to be mended first; None where nothing fails."""
        failures = [finding for finding in self.findings if finding.verdict is Verdict.FAIL]
        return min(failures, key=lambda finding: _BLAME.index(finding.layer), default=None)

    def explains(self, finding: Finding) -> bool:
        """Whether the cause makes this other failure what it is: strangers to an allowlist are met with silence."""
        cause = self.cause
        if cause is None or finding is cause or finding.verdict is not Verdict.FAIL:
            return False
        return cause.layer in (Layer.HEROKU, Layer.ALLOWLIST) and finding.code in _SILENCES

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What deserves attention, and stops nobody."""
        return tuple(finding for finding in self.findings if finding.verdict is Verdict.WARN)

    @property
    def unseen(self) -> bool:
        """No server was shown our certificate, so nobody knows whether clients get through."""
        verdicts = {finding.verdict for finding in self.findings if finding.layer is Layer.CLIENT_CERTIFICATE}
        return verdicts == {Verdict.SKIPPED}

    @property
    def healthy(self) -> bool:
        """Nothing fails, and the way was followed to what a server makes of our certificate."""
        return self.cause is None and self.complete and not self.unseen


@dataclass(frozen=True)
class Report:
    """What the doctor says in the end."""

    diagnoses: tuple[Diagnosis, ...]
    at: datetime
    version: str
    source: str | None
    """The configuration file; None: flags."""
    seconds: float

    @property
    def healthy(self) -> bool:
        """No tunnel has a failure."""
        return all(diagnosis.healthy for diagnosis in self.diagnoses)


_PROVES: Final[Mapping[Code, frozenset[Code]]] = MappingProxyType(
    {
        Code.TLS_CLIENT_CA_UNKNOWN: frozenset({Code.CHAIN_INCOMPLETE}),
        Code.TLS_OTHER_CA_ASKED: frozenset({Code.CHAIN_INCOMPLETE}),
        Code.TLS_CLIENT_CERTIFICATE_EXPIRED: frozenset({Code.CERTIFICATE_EXPIRED}),
        Code.TLS_CLIENT_CERTIFICATE_REFUSED: frozenset({Code.CERTIFICATE_NOT_FOR_CLIENTS, Code.SIGNATURE_WEAK}),
        Code.TLS_CLIENT_CERTIFICATE_REVOKED: frozenset({Code.CERTIFICATE_REVOKED}),
    }
)
"""What a server says of our certificate, and which doubts about it that proves."""


def settled(findings: Sequence[Finding]) -> list[Finding]:
    """A warning about our certificate that the server has confirmed stops clients: it is the failure, and the cause."""
    said = {finding.code for finding in findings if finding.verdict is Verdict.FAIL}
    proven = {code for each in said if each is not None for code in _PROVES.get(each, ())}
    return [
        replace(each, verdict=Verdict.FAIL)
        if each.verdict is Verdict.WARN and each.code in proven and each.layer in _OF_OURS
        else each
        for each in findings
    ]


_ON_THE_WAY: Final = (Layer.DNS, Layer.TCP, Layer.NEGOTIATION, Layer.TLS, Layer.CLIENT_CERTIFICATE)


def spared(findings: Sequence[Finding], endpoints: Sequence[str], taken: Sequence[str]) -> list[Finding]:
    """Endpoints are tried in turn: where one of them takes us, those that do not cost clients time, and no more.

    `endpoints` are all of the tunnel, `taken` those that have taken us.
    """
    others = tuple(endpoint for endpoint in endpoints if endpoint not in taken) if taken else ()
    return [
        replace(each, verdict=Verdict.WARN)
        if each.verdict is Verdict.FAIL
        and each.layer in _ON_THE_WAY
        and any(each.about == other or each.about.startswith(f"{other} (") for other in others)
        else each
        for each in findings
    ]


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """As a report shows them: by layer, and within one as they came."""
    return tuple(sorted(findings, key=lambda finding: _SHOWN[finding.layer]))
