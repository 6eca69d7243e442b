"""What was seen of a server's TLS, as findings: handshake, versions, chain, names, and what `verify` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from mtlskit.config.values import Verify, VerifyMode
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.tls.handshake import Target
from mtlskit.doctor.tls.looking import OFFERED, OLD, Look
from mtlskit.doctor.tls.names import ServerNames, server_names
from mtlskit.doctor.tls.signatures import Signatures, TooCostlyError
from mtlskit.doctor.tls.verification import Anchors, Shown, nearer
from mtlskit.errors import Code, DoctorError, UpstreamError, UpstreamProtocolError, UpstreamRefusedUs
from mtlskit.net.dial import POSTGRES_ALPN
from mtlskit.net.faults import pin_fault
from mtlskit.net.presented import presented
from mtlskit.pki.certificates import UNREADABLE, bounded_text, spki_sha256, subject_text
from mtlskit.pki.facts import certificate_facts

__all__ = ["Teller", "version_text"]

SOON: Final = timedelta(days=14)
"""Time enough to renew a server's certificate by hand. One that lives for weeks only has a third of its life."""

_WEAK_BITS: Final = 2048
_NAMES_TOLD: Final = 5

_MEND_VERSIONS = (
    "update the server's TLS settings (ssl_min_protocol_version in PostgreSQL, ssl.enabled.protocols in Kafka)"
)


def version_text(version: str) -> str:
    """``TLSv1.2`` as people write it; ``TLSv1`` is 1.0."""
    return {"TLSv1": "TLS 1.0"}.get(version, version.replace("TLSv", "TLS "))


@dataclass(frozen=True)
class Teller:
    """Puts a look into words."""

    target: Target
    look: Look
    verify: Verify
    anchors: Anchors | None
    """None: there is nothing to compare with, and another check says why."""
    pins: tuple[bytes, ...]
    step: float
    now: datetime

    def findings(self) -> Iterator[Finding]:
        """All of them; where there was no handshake, only why. To be called in a thread: it computes."""
        yield self._handshake()
        if self.look.shown.answered:
            yield self._versions()
        if not self.look.chain:
            return
        yield self._chain()
        yield from self._weak()
        yield from self._ends_soon()
        yield from self._verification()
        if self.pins:
            yield self._pins()

    @property
    def trusted(self) -> bool:
        """A session may begin."""
        return bool(self.look.shaken and self.look.passes and self._pinned and self._alpn_fits)

    @property
    def _about(self) -> str:
        return str(self.target)

    # The handshake.

    def _handshake(self) -> Finding:
        recorded = self.look.recorded
        facts = self._handshake_facts()
        if not self.look.shaken:
            return failed(
                Layer.TLS, "tls.handshake", self._no_handshake(), about=self._about, seconds=recorded.seconds, **facts
            )
        if not self._alpn_fits and recorded.done:
            error = UpstreamProtocolError(
                Code.TLS_ALPN,
                f"{self.target} did not agree to ALPN `{POSTGRES_ALPN}`",
                'direct TLS needs PostgreSQL 17 or later; use negotiation = "sslrequest"',
            )
            return failed(Layer.TLS, "tls.handshake", error, about=self._about, **facts)
        seen = f"{version_text(recorded.version)}, {recorded.cipher or 'cipher unknown'}"
        if recorded.alpn:
            seen += f", ALPN {recorded.alpn}"
        if not recorded.done:
            seen += ", as far as it goes without a client certificate that is taken"
        seen += f"; in {recorded.seconds * 1000:.0f} ms"
        return passed(Layer.TLS, "tls.handshake", seen, about=self._about, seconds=recorded.seconds, **facts)

    def _handshake_facts(self) -> dict[str, Any]:
        recorded = self.look.recorded
        return {
            "version": recorded.version,
            "cipher": recorded.cipher,
            "alpn": recorded.alpn,
            "server_name": self.target.server_name,
            "asks_for_certificate": recorded.asks,
            "ca_names": list(recorded.ca_names),
        }

    @property
    def _alpn_fits(self) -> bool:
        recorded = self.look.recorded
        return not self.target.direct or not recorded.done or recorded.alpn == POSTGRES_ALPN

    def _no_handshake(self) -> UpstreamError:
        """Why there is none, with what the other handshakes have shown."""
        offered = [version for version, state in self.look.versions.items() if state == OFFERED]
        recorded = self.look.recorded
        error = recorded.fault(self.target, self.step, self.verify)
        if offered and set(offered) <= set(OLD):
            return UpstreamRefusedUs(
                Code.TLS_VERSION,
                f"{self.target} speaks no TLS version that we accept (1.2 and 1.3): it offers"
                f" {' and '.join(map(version_text, offered))} only",
                _MEND_VERSIONS,
            )
        others = [each for each in self.look.alone.values() if each.answered and each.version in offered]
        if not recorded.answered and not recorded.silent and others and error.code is Code.TLS_HANDSHAKE_FAILED:
            other = others[-1]
            return UpstreamRefusedUs(
                Code.TLS_HANDSHAKE_FAILED,
                f"{self.target} has no cipher in common with us: of those that we do not offer it takes"
                f" {other.cipher} ({version_text(other.version)})",
                "let the server offer the ciphers of today, ECDHE with AES-GCM or ChaCha20 (PostgreSQL: ssl_ciphers;"
                " Kafka: ssl.cipher.suites)",
            )
        return error

    def _versions(self) -> Finding:
        states = self.look.versions
        old = [version_text(version) for version in OLD if states[version] == OFFERED]
        facts: dict[str, Any] = {"versions": states}
        new = any(states[version] == OFFERED for version in states if version not in OLD)
        if old and new:
            error = DoctorError(
                Code.TLS_OLD_VERSIONS,
                f"{self.target} still offers {' and '.join(old)}, which are not safe any more",
                _MEND_VERSIONS,
            )
            return warned(Layer.TLS, "tls.versions", error, about=self._about, **facts)
        told = "; ".join(
            f"{state}: {', '.join(version_text(version) for version, its in states.items() if its == state)}"
            for state in dict.fromkeys(reversed(states.values()))
        )
        return passed(Layer.TLS, "tls.versions", told, about=self._about, **facts)

    # The chain.

    def _chain(self) -> Finding:
        chain = self.look.chain
        facts = [certificate_facts(each, self.now) for each in chain]
        told = "; ".join(
            f"{each.subject or 'no subject'} ({each.key}, {_left(each.days_left)}), issued by {each.issuer}"
            for each in facts
        )
        count, more = len(chain), self.look.shown.more
        counted = f"{count} certificate{'' if count == 1 else 's'}"
        counted += f", and {more} more that are not looked at" if more else ""
        return passed(
            Layer.TLS,
            "tls.chain",
            f"{counted}: {told}",
            about=self._about,
            certificates=[
                {
                    "subject": each.subject,
                    "issuer": each.issuer,
                    "serial": each.serial,
                    "names": list(each.names),
                    "key": each.key,
                    "signature": each.signature,
                    "not_before": each.not_before.isoformat(),
                    "not_after": each.not_after.isoformat(),
                    "days_left": each.days_left,
                    "fingerprint_sha256": each.fingerprint_sha256,
                    "pin": each.pin,
                }
                for each in facts
            ],
            unreadable=self.look.shown.unreadable,
            more=more,
        )

    def _weak(self) -> Iterator[Finding]:
        """Only what OpenSSL lets pass here: what it refuses is a failure of `verify`."""
        if not self.look.passes:
            return
        signatures = Signatures()
        for certificate in self.look.chain:
            if why := _weakness(certificate, signatures):
                error = DoctorError(
                    Code.TLS_SERVER_WEAK,
                    f"{self.target} presents {subject_text(certificate)}, which is weak: {why}",
                    "the server needs a certificate with an RSA key of 2048 bits or more, or an EC key, signed with"
                    " SHA-256",
                )
                yield warned(Layer.TLS, "tls.server-weak", error, about=self._about)

    def _ends_soon(self) -> Iterator[Finding]:
        for certificate in self.look.chain:  # that of the trust anchors is told where the files are looked at
            begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
            if self.now < ends < self.now + min(SOON, (ends - begins) / 3):
                error = DoctorError(
                    Code.TLS_SERVER_ENDS_SOON,
                    f"{self.target}: {subject_text(certificate)} ends on {ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC,"
                    f" {_left((ends - self.now).days)}",
                    "ask whoever runs the server to renew it; if the CA changes, replace the file given as `ca`, too",
                )
                yield warned(Layer.TLS, "tls.server-ends-soon", error, about=self._about, days=(ends - self.now).days)

    # What verify says.

    def _verification(self) -> Iterator[Finding]:
        names = server_names(self.look.chain[0])
        expected = self._expected
        fits = names.stand_for(expected)
        yield passed(
            Layer.TLS,
            "tls.names",
            f"the certificate is for {_told_names(names)}"
            + ("" if fits else f", and not for {expected}")
            + (" (its common name: it has no subject alternative names)" if names.only_common else ""),
            about=self._about,
            names=[bounded_text(name) for name in (*names.dns, *names.addresses)],
            common_name=bounded_text(names.common),
        )
        if self.anchors is None or self.look.verified is None:
            yield skipped(Layer.TLS, "tls.verify", "no trust anchors", about=self._about)
            return
        facts = self._modes(names)
        errors = list(self._failures())
        if not errors:
            passing = ", ".join(
                _mode_text(mode, passes) for mode, passes in facts["modes"].items() if passes is not None
            )
            yield passed(
                Layer.TLS,
                "tls.verify",
                f"verify = {self.verify} passes, compared with {self.anchors.told} (of all modes: {passing})",
                about=self._about,
                **facts,
            )
        for error in errors:
            yield failed(Layer.TLS, "tls.verify", error, about=self._about, commands=self._commands(error), **facts)

    @property
    def _expected(self) -> str:
        return self.verify.name or self.target.endpoint.host

    def _modes(self, names: ServerNames) -> dict[str, Any]:
        """Which `verify` would pass; None where it is not known, or not to be had without a CA file."""
        chain = self.look.chain_passes
        host = self.target.endpoint.host
        modes: dict[str, bool | None] = {
            "full": chain and names.stand_for(host),
            "ca": None if self.anchors is None or self.anchors.of_system else chain,
        }
        if self.verify.mode is VerifyMode.NAME and self.verify.name is not None:
            modes[str(self.verify)] = chain and names.stand_for(self.verify.name)
        return {"verify": str(self.verify), "modes": modes, "passes": bool(self.look.passes)}

    def _failures(self) -> Iterator[UpstreamError]:
        """The chain first: a name that does not fit matters only where the chain does."""
        verified, chain_only = self.look.verified, self.look.chain_only
        if self.anchors is None or verified is None or self.look.passes:
            return
        leaf = presented(_der(self.look.chain[0]))
        shown = Shown(self.look.chain, self.look.shown.more)
        for handshake in (chain_only, verified):
            if handshake is None or (handshake is chain_only and self.look.chain_passes):
                continue
            error = handshake.fault(self.target, self.step, self.verify, self.anchors.told, leaf)
            yield nearer(error, str(self.target), shown, self.anchors, self.now)

    def _commands(self, error: UpstreamError | None = None) -> tuple[str, ...]:
        line = f"mtlskit certs show --connect {self.target.endpoint} --kind {self.target.kind}"
        line += " --negotiation direct" if self.target.direct else ""
        if error is not None and error.code is Code.TLS_CHAIN_NOT_TRUSTED:
            return (line, f"{line} --ca OTHER_CA.crt")
        return (line,)

    # Pins.

    @property
    def _pinned(self) -> bool:
        return not self.pins or bool(self.look.chain and spki_sha256(self.look.chain[0]) in self.pins)

    def _pins(self) -> Finding:
        leaf = self.look.chain[0]
        found = spki_sha256(leaf)
        facts: dict[str, Any] = {
            "pin": certificate_facts(leaf, self.now).pin,
            "matches": [pin == found for pin in self.pins],
        }
        if found not in self.pins:
            error = pin_fault(str(self.target), found, len(self.pins))
            return failed(Layer.TLS, "tls.pins", error, about=self._about, commands=self._commands(), **facts)
        return passed(Layer.TLS, "tls.pins", f"the server's key {facts['pin']} is pinned", about=self._about, **facts)


def _mode_text(mode: str, passes: bool) -> str:
    return f"{mode} passes" if passes else f"{mode} does not"


def _der(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def _left(days: int) -> str:
    return f"{days} day{'' if days == 1 else 's'} left" if days >= 0 else "expired"


def _told_names(names: ServerNames) -> str:
    found = [bounded_text(name) for name in (*names.dns, *names.addresses)]
    if not found:
        return bounded_text(names.common) or "nobody by name"
    more = len(found) - _NAMES_TOLD
    return ", ".join(found[:_NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")


def _weakness(certificate: x509.Certificate, signatures: Signatures) -> str:
    try:
        key = certificate.public_key()
        digest = certificate.signature_hash_algorithm
    except UNREADABLE:
        return ""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _WEAK_BITS:
        return f"an RSA key of {key.key_size} bits"
    if digest is None or digest.name not in ("sha1", "md5"):
        return ""
    try:
        # Nobody looks at the signature of a root.
        return "" if signatures.self_signed(certificate) else f"a signature with {digest.name.upper()}"
    except TooCostlyError:
        return ""
