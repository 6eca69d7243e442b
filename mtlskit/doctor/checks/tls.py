"""The handshake: versions, cipher, the server's chain and names, and which `verify` would pass."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import trio
from cryptography import x509

from mtlskit.config.values import Endpoint, Verify, VerifyMode
from mtlskit.doctor.case import Case, Identified, Shaken
from mtlskit.doctor.finding import Finding, Layer, failed
from mtlskit.doctor.tls.contexts import looking
from mtlskit.doctor.tls.handshake import Target
from mtlskit.doctor.tls.looking import Contexts, look
from mtlskit.doctor.tls.telling import Teller
from mtlskit.doctor.tls.verification import Anchors
from mtlskit.errors import IdentityError
from mtlskit.net.dial import is_address
from mtlskit.net.identity import Trust, show_pair, verifying_context
from mtlskit.net.names import Address
from mtlskit.pki.certificates import load_certificates
from mtlskit.pki.identity import MAX_ANCHORS, CheckedPair

__all__ = ["anchors_of", "chain_only_context", "recording_context", "server_name_for", "shake_hands"]


async def shake_hands(case: Case, endpoint: Endpoint, address: Address, identified: Identified) -> Shaken:
    """Layer TLS. Handshakes side by side, within `case.means.step`."""
    tunnel = case.tunnel
    target = Target(
        endpoint, address, tunnel.kind, tunnel.negotiation, server_name_for(endpoint, tunnel.verify), tunnel.source
    )
    findings: tuple[Finding, ...] = ()
    verifying: ssl.SSLContext | None = None
    try:
        verifying = _verifying(case, identified, target)
    except IdentityError as exc:
        findings = (failed(Layer.TLS, "tls.verify", exc, about=str(target)),)
    trust = identified.trust
    contexts = Contexts(
        recording_context(target, identified.pair),
        verifying,
        chain_only_context(trust) if trust is not None and tunnel.verify.mode is not VerifyMode.CA else None,
    )
    seen = await look(target, contexts, step=case.means.step, known=case.means.versions)

    def tell() -> tuple[tuple[Finding, ...], bool]:
        anchors = anchors_of(trust, identified.pair) if trust is not None and verifying is not None else None
        # OpenSSL compares dates with the clock of this host, so it is the clock that counts for what it says.
        teller = Teller(target, seen, tunnel.verify, anchors, tunnel.pins, case.means.step, datetime.now(UTC))
        return tuple(teller.findings()), teller.trusted

    # Signatures are checked there, of keys that strangers have chosen.
    told, trusted = await trio.to_thread.run_sync(tell, abandon_on_cancel=True)
    shown = seen.shown
    return Shaken(
        findings=(*told, *findings),
        chain=seen.chain,
        trusted=trusted,
        version=shown.version,
        cipher=shown.cipher,
        asks_for_certificate=seen.recorded.asks,
        ca_names=seen.recorded.ca_names,
        facts={"versions": seen.versions},
    )


def server_name_for(endpoint: Endpoint, verify: Verify) -> str | None:
    """The name that a tunnel asks for (SNI) and expects."""
    if verify.mode is VerifyMode.NAME:
        return verify.name
    return None if verify.mode is VerifyMode.CA and is_address(endpoint.host) else endpoint.host


def recording_context(target: Target, pair: CheckedPair | None) -> ssl.SSLContext:
    """Verifies nothing, and shows our certificate where we have one: under TLS 1.2 a server ends it without."""
    context = looking(target.alpn)
    if pair is not None:
        try:
            show_pair(context, pair, source=Path("cert"))
        except IdentityError:  # what checks the identity says so
            return looking(target.alpn)
    return context


def chain_only_context(trust: Trust) -> ssl.SSLContext | None:
    """Verifies the chain and no name; None where OpenSSL refuses the anchors."""
    try:
        context = verifying_context(trust.anchors_pem, Verify(), source=Path("ca"))
    except IdentityError:
        return None
    context.check_hostname = False
    return context


def anchors_of(trust: Trust, pair: CheckedPair | None) -> Anchors:
    """What the chain is compared with, for sentences."""
    certificates: Sequence[x509.Certificate] = ()
    if trust.anchors_pem is not None:
        certificates = load_certificates(trust.anchors_pem.encode("ascii"), source=trust.told, limit=MAX_ANCHORS)
    return Anchors(certificates, trust.told, trust.anchors_pem is None, pair.chain[1:] if pair is not None else ())


def _verifying(case: Case, identified: Identified, target: Target) -> ssl.SSLContext | None:
    """The tunnel's context, or without a client certificate one like it. Raises IdentityError."""
    if identified.snapshot is not None:
        return identified.snapshot.context
    if identified.trust is None:
        return None
    source = case.identity.cert if case.identity is not None else Path("ca")
    return verifying_context(identified.trust.anchors_pem, case.tunnel.verify, target.alpn, source=source)
