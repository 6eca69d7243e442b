"""`mtlskit certs show --connect`: what a server presents, and how it shakes hands, whatever we think of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from mtlskit.cli.certs_words import certificate_json, tell_certificates
from mtlskit.cli.render import Colour, line, painted, print_json
from mtlskit.cli.usage import harmless
from mtlskit.config.values import Verify, VerifyMode
from mtlskit.doctor.case import Case, Means
from mtlskit.doctor.checks.tls import anchors_of, chain_only_context, recording_context
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_flags
from mtlskit.doctor.tls.handshake import Target
from mtlskit.doctor.tls.looking import Contexts, Look, look
from mtlskit.doctor.tls.telling import Teller
from mtlskit.errors import Code, ConfigError
from mtlskit.net.faults import dns_fault
from mtlskit.net.identity import Trust, pair_of, trust_of, verifying_context
from mtlskit.net.names import Names
from mtlskit.pki.facts import certificate_facts
from mtlskit.telemetry.logs import printable

if TYPE_CHECKING:
    from mtlskit.pki.identity import CheckedPair

__all__ = ["show_connected"]

_STEP = 5.0
"""Seconds for the name, and for all handshakes together."""

_COLOURS = {Verdict.FAIL: Colour.RED, Verdict.WARN: Colour.YELLOW}


def show_connected(connect: str, flags: Mapping[str, Any], server_name: str | None, *, as_json: bool) -> bool:
    """Print it; whether nothing fails. Raises MtlskitError for a wrong flag, and where nobody can be reached."""
    given = {**flags, "upstream": [connect], "verify": None}
    (case,) = from_flags(given, Means(environ=os.environ, step=_STEP)).cases
    if len(case.tunnel.upstream) != 1:
        raise ConfigError(
            Code.USAGE, f"--connect {harmless(connect)} is not one server", "name one: --connect HOST:PORT"
        )
    teller, findings = trio.run(_looked, case, server_name)
    good = not any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        print_json(_json(teller, findings, good=good))
    else:
        _tell(teller, findings)
    return good


async def _looked(case: Case, server_name: str | None) -> tuple[Teller, tuple[Finding, ...]]:
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
    return teller, await trio.to_thread.run_sync(lambda: tuple(teller.findings()), abandon_on_cancel=True)


def _contexts(target: Target, trust: Trust | None, pair: CheckedPair | None) -> Contexts:
    recording = recording_context(target, pair)
    if trust is None:
        return Contexts(recording)
    verifying = verifying_context(trust.anchors_pem, Verify(), target.alpn, source=Path("ca"))
    return Contexts(recording, verifying, chain_only_context(trust))


def _json(teller: Teller, findings: Sequence[Finding], *, good: bool) -> dict[str, object]:
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


def _tell(teller: Teller, findings: Sequence[Finding]) -> None:
    line(printable(str(teller.target)))
    tell_certificates([certificate_facts(each, teller.now) for each in teller.look.chain])
    shown = teller.look.shown
    if shown.more:
        line()
        line(f"  and {shown.more} more certificates, which are not looked at")
    line()
    if shown.asks is not None:
        named = "; ".join(shown.ca_names) or "it names no CA"
        asked = f"the server asks for a client certificate ({named})" if shown.asks else "it asks for none"
        line(printable(f"  {'client cert':<14}{asked}"))
    for finding in findings:
        if finding.check == "tls.chain":
            continue
        label = finding.check.removeprefix("tls.")
        code = f" [{finding.code}]" if finding.code else ""
        seen = f"not compared: {finding.because}" if finding.verdict is Verdict.SKIPPED else finding.seen
        line(f"  {label:<14}" + painted(printable(f"{seen}{code}"), _COLOURS.get(finding.verdict)))
        if finding.hint:
            line(printable(f"  {'':<14}{finding.hint}"))
