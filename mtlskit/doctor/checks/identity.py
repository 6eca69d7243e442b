"""Files and rights, and what is in them: key, certificate, chain, dates, usages, strength.

The parts are looked at one by one, so that all that is wrong is told. In the end the identity is loaded as the proxy
loads it: what that refuses is a FAIL, whether or not one of the looks has seen it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from mtlskit.config.values import IssuerKind, Negotiation, TunnelKind
from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, skipped
from mtlskit.doctor.identity.anchors import anchors_in, look_at_anchors
from mtlskit.doctor.identity.files import read_files, rotate_command
from mtlskit.doctor.identity.pair import look_at_pair
from mtlskit.errors import Code, IdentityError
from mtlskit.net.dial import POSTGRES_ALPN
from mtlskit.net.identity import IdentitySnapshot, load_snapshot, pair_of, resolved
from mtlskit.pki.identity import CheckedPair

__all__ = ["identify"]


def identify(case: Case) -> Identified:
    """Layers FILES and IDENTITY. Blocks on the disk; run in a thread."""
    now = case.means.now()
    config = case.tunnel.identity
    with_pair = case.identity is not None
    files = read_files(config, case.config, with_pair=with_pair)
    trust, of_anchors = look_at_anchors(config, files, now=now)
    findings = list(files.findings)
    if with_pair:
        anchors = None if config.ca is None else (config.ca, anchors_in(files, str(config.ca)))
        renew = "" if config.issuer.kind is IssuerKind.FILES else rotate_command(config, case.config)
        findings += look_at_pair(config, _followed(case), files, anchors, now=now, renew=renew)
    else:
        findings.append(skipped(Layer.IDENTITY, "identity.certificate", "no certificate given"))
    findings += of_anchors
    if not with_pair:
        return Identified(tuple(findings), trust=trust)
    snapshot, refused = _loaded(case, now)
    if refused is not None:
        findings = _with_refusal(findings, refused)
    return Identified(tuple(findings), _pair(case, snapshot, now), trust, snapshot if trust is not None else None)


def _followed(case: Case) -> Path:
    try:
        return resolved(case.tunnel.identity).cert
    except IdentityError:
        return case.tunnel.identity.cert


def _loaded(case: Case, now: datetime) -> tuple[IdentitySnapshot | None, IdentityError | None]:
    tunnel = case.tunnel
    direct = tunnel.kind is TunnelKind.POSTGRES and tunnel.negotiation is Negotiation.DIRECT
    try:
        alpn = (POSTGRES_ALPN,) if direct else ()
        return load_snapshot(tunnel.identity, verify=tunnel.verify, alpn=alpn, now=now), None
    except IdentityError as exc:
        return None, exc


def _pair(case: Case, snapshot: IdentitySnapshot | None, now: datetime) -> CheckedPair | None:
    """Also where the trust anchors alone are of no use."""
    if snapshot is not None:
        return snapshot.pair
    try:
        return pair_of(case.tunnel.identity, now=now)
    except IdentityError:
        return None


def _with_refusal(findings: list[Finding], refused: IdentityError) -> list[Finding]:
    """What the proxy says, unless something is a FAIL already; OpenSSL that refuses a weak signature is one of it."""
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        return findings
    if refused.code is Code.OPENSSL_REFUSED:
        weak = [finding for finding in findings if finding.code is Code.SIGNATURE_WEAK]
        if weak:
            told = replace(weak[0], verdict=Verdict.FAIL, seen=f"{weak[0].seen}; OpenSSL on this host refuses it")
            return [told if finding is weak[0] else finding for finding in findings]
    return [*findings, failed(Layer.IDENTITY, "identity.load", refused, about=str(refused.sentence.partition(": ")[0]))]
