"""`mtlskit certs show --connect`: what a server presents, how it shakes hands, and whether it takes our certificate,
whatever we think of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from mtlskit.cli.certs_words import certificate_json, tell_certificates
from mtlskit.cli.render import Colour, line, painted, print_json
from mtlskit.cli.usage import harmless
from mtlskit.config.values import Verify, VerifyMode
from mtlskit.doctor.case import Case, Identified, Means, Shaken
from mtlskit.doctor.checks.client_certificate import present
from mtlskit.doctor.checks.tls import anchors_of, chain_only_context, recording_context
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_flags
from mtlskit.doctor.tls.contexts import looking
from mtlskit.doctor.tls.handshake import Handshake, Target
from mtlskit.doctor.tls.looking import Contexts, Look, look
from mtlskit.doctor.tls.telling import Teller
from mtlskit.errors import Code, ConfigError
from mtlskit.net.faults import dns_fault
from mtlskit.net.identity import IdentitySnapshot, Trust, pair_of, show_pair, trust_of, verifying_context
from mtlskit.net.names import Names
from mtlskit.pki.certificates import subject_text
from mtlskit.pki.facts import certificate_facts
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.pki.identity import CheckedPair

__all__ = ["show_connected"]

_STEP = 5.0
"""Seconds for the name, and for all handshakes together."""

_COLOURS = {Verdict.FAIL: Colour.RED, Verdict.WARN: Colour.YELLOW}

_REFUSALS: Final = frozenset(
    {
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
        Code.TLS_CLIENT_CA_UNKNOWN,
        Code.TLS_CLIENT_CERTIFICATE_EXPIRED,
        Code.TLS_CLIENT_CERTIFICATE_REVOKED,
        Code.TLS_OTHER_CA_ASKED,
        Code.TLS_HANDSHAKE_FAILED,
    }
)
"""What says that ours was not taken. Silence and a closed connection may have other reasons."""


@dataclass(frozen=True)
class _Ours:
    """What the server makes of the client certificate that was given."""

    subject: str
    taken: bool | None
    """None: it was not asked for, or it is not known."""
    findings: tuple[Finding, ...] = ()


def show_connected(connect: str, flags: Mapping[str, Any], server_name: str | None, *, as_json: bool) -> bool:
    """Print it; whether nothing fails. Raises MtlskitError for a wrong flag, and where nobody can be reached."""
    given = {**flags, "upstream": [connect], "verify": None}
    (case,) = from_flags(given, Means(environ=os.environ, step=_STEP)).cases
    if len(case.tunnel.upstream) != 1:
        raise ConfigError(
            Code.USAGE, f"--connect {harmless(connect)} is not one server", "name one: --connect HOST:PORT"
        )
    teller, findings, ours = trio.run(_looked, case, server_name)
    every = (*findings, *(() if ours is None else ours.findings))
    good = not any(finding.verdict is Verdict.FAIL for finding in every)
    if as_json:
        print_json(_json(teller, every, ours, good=good))
    else:
        _tell(teller, findings, ours)
    return good


async def _looked(case: Case, server_name: str | None) -> tuple[Teller, tuple[Finding, ...], _Ours | None]:
    """Look at the first address that takes a connection, and say what is found."""
    now = datetime.now(UTC)
    (endpoint,) = case.tunnel.upstream
    config = case.tunnel.identity
    trust = await trio.to_thread.run_sync(partial(trust_of, config, now=now)) if config.ca is not None else None
    pair = await trio.to_thread.run_sync(partial(pair_of, config, now=now)) if case.identity is not None else None
    verify = Verify(VerifyMode.NAME, server_name) if server_name is not None else Verify()
    name = server_name or endpoint.host
    try:
        with trio.fail_after(_STEP):
            addresses = await Names().addresses(endpoint.host, endpoint.port)
    except (OSError, trio.TooSlowError) as exc:
        reason = exc if isinstance(exc, OSError) else TimeoutError(f"the resolver did not answer within {_STEP:.3g} s")
        raise dns_fault(endpoint.host, reason) from exc
    for address in addresses:
        target = Target(endpoint, address, case.kind, case.tunnel.negotiation, name)
        seen = await look(target, _contexts(target, trust, pair), step=_STEP)
        if seen.shown.answered or address is addresses[-1]:
            break
    if not seen.shown.answered:
        raise seen.recorded.fault(target, _STEP, verify)
    anchors = None if trust is None else anchors_of(trust, pair)
    teller = Teller(target, seen, verify, anchors, (), _STEP, now)
    findings = await trio.to_thread.run_sync(lambda: tuple(teller.findings()), abandon_on_cancel=True)
    ours = None if pair is None else await _shown(case, teller, pair, verify)
    return teller, findings, ours


async def _shown(case: Case, teller: Teller, pair: CheckedPair, verify: Verify) -> _Ours:
    """Show our certificate, and wait for the first answer: under TLS 1.3 it is no part of the handshake.

    Like everything here it is done whether the server is trusted or not. It is told the name in the certificate, which
    it has seen before, and no password.
    """
    target, seen = teller.target, teller.look
    subject = subject_text(pair.leaf)
    if not seen.shaken:
        return _Ours(subject, None)
    context = looking(target.alpn)
    show_pair(context, pair, source=case.tunnel.identity.cert)
    snapshot = IdentitySnapshot(case.tunnel.identity.name, pair, context, verify, ())
    shaken = Shaken(asks_for_certificate=seen.recorded.asks, ca_names=seen.recorded.ca_names)
    said = await present(case, target.endpoint, target.address, Identified(pair=pair, snapshot=snapshot), shaken)
    taken: bool | None = None
    if shaken.asks_for_certificate is not False:
        refused = any(finding.code in _REFUSALS for finding in said.findings)
        taken = True if said.accepted else False if refused else None
    return _Ours(subject, taken, said.findings)


def _contexts(target: Target, trust: Trust | None, pair: CheckedPair | None) -> Contexts:
    recording = recording_context(target, pair)
    if trust is None:
        return Contexts(recording)
    verifying = verifying_context(trust.anchors_pem, Verify(), target.alpn, source=Path("ca"))
    return Contexts(recording, verifying, chain_only_context(trust))


def _json(teller: Teller, findings: Sequence[Finding], ours: _Ours | None, *, good: bool) -> dict[str, object]:
    seen: Look = teller.look
    shown = seen.shown
    return {
        "good": good,
        "server": str(teller.target.endpoint),
        "address": teller.target.address[1][0],
        "server_name": teller.target.server_name,
        "version": shown.version,
        "cipher": shown.cipher,
        "alpn": shown.alpn,
        "versions": seen.versions,
        "asks_for_certificate": shown.asks,
        "ca_names": list(shown.ca_names),
        "certificate_taken": None if ours is None else ours.taken,
        "certificates": [certificate_json(certificate_facts(each, teller.now)) for each in seen.chain],
        "more_certificates": shown.more,
        "findings": [
            {
                "check": finding.check,
                "verdict": finding.verdict.value,
                "code": None if finding.code is None else finding.code.value,
                "seen": finding.seen,
                "hint": finding.hint,
            }
            for finding in findings
        ],
    }


def _tell(teller: Teller, findings: Sequence[Finding], ours: _Ours | None) -> None:
    """The verdicts first: what a person has asked for is seldom in the certificates."""
    line(printable(f"what the server at {teller.target} shows:"))
    line()
    _tell_findings([finding for finding in findings if finding.check == "tls.verify"])
    _tell_ours(teller.look.shown, ours)
    _tell_findings([finding for finding in findings if finding.check not in ("tls.verify", "tls.chain")])
    tell_certificates([certificate_facts(each, teller.now) for each in teller.look.chain])
    if more := teller.look.shown.more:
        line()
        line(f"  and {more} more certificates, which are not looked at")


def _tell_ours(shown: Handshake, ours: _Ours | None) -> None:
    """Whether the server asks for a client certificate, and what it makes of ours."""
    if shown.asks is None:
        _row("client cert", "it is not known whether the server asks for a client certificate")
    elif shown.asks:
        named = "; ".join(shown.ca_names) or "it names no CA"
        _row("client cert", f"the server asks for a client certificate ({named})")
    else:
        _row("client cert", "the server asks for no client certificate")
    if ours is None:
        if shown.asks:
            _row("ours", "none was given: with --cert FILE --key FILE it is seen whether the server takes it")
        return
    verdict = {True: "taken", False: "not taken", None: "not known"}[ours.taken]
    if shown.asks is False:
        verdict = "not asked for"
    for finding in ours.findings:
        code = f" [{finding.code}]" if finding.code else ""
        _row("ours", f"{verdict} ({ours.subject}): {finding.seen}{code}", _COLOURS.get(finding.verdict))
        _row("", finding.hint)
    if not ours.findings:
        _row("ours", f"{verdict} ({ours.subject}): there was no handshake in which it could be shown")


def _tell_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        code = f" [{finding.code}]" if finding.code else ""
        skipped = finding.verdict is Verdict.SKIPPED  # nothing but the comparison ever is
        seen = "not compared: no CA was given (--ca FILE)" if skipped else finding.seen
        _row(finding.check.removeprefix("tls."), f"{seen}{code}", _COLOURS.get(finding.verdict))
        _row("", finding.hint)


def _row(label: str, text: str, colour: Colour | None = None) -> None:
    if text:
        line(f"  {label:<14}" + painted(printable(text), colour))
