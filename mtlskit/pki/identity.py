"""Whether a certificate and a key make a client identity, and whether a file of trust anchors is one.

Hard checks are few, because the server decides in the end: the key belongs to a certificate, the dates hold, and an
extended key usage, where there is one, allows clients. All else that a person may want to know is a remark: an error
that nobody raises, whose sentence is a warning in the proxy's log and a finding of the doctor's. A bundle
may hold its certificates in any order: the leaf is the one that the key belongs to, and its issuers follow it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, SignatureAlgorithmOID

from mtlskit.config.values import RenewBefore
from mtlskit.errors import Code, IdentityError
from mtlskit.pki.certificates import (
    certificates_pem,
    extension,
    issuer_text,
    load_certificates,
    serial_text,
    spki_sha256,
    subject_text,
)
from mtlskit.pki.chains import belongs_to, follow, is_ca, is_self_signed
from mtlskit.pki.keys import PrivateKey, load_private_key, private_key_pem, spki_sha256_of_key
from mtlskit.pki.renewal import due_at

__all__ = [
    "MAX_ANCHORS",
    "CheckedPair",
    "anchor_remarks",
    "anchor_warnings",
    "chain_remarks",
    "check_anchors",
    "check_dates",
    "check_loaded",
    "check_pair",
    "check_usage",
    "ends_soon",
    "find_leaf",
    "leaf_remarks",
    "weak_signature",
]

MAX_ANCHORS = 1000
"""Systems' trust stores hold 120 to 160 roots; a company's own may hold some more."""

_WEAK_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "MD5",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "SHA-1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "SHA-1",
}
_RENEW = "have a new certificate issued, and put it and its key in place of the old ones"
_FOR_CLIENTS = "have a client certificate issued (extendedKeyUsage = clientAuth)"
_STRONGER = "have it issued again, signed with SHA-256 or better"
_SET_CLOCK = "if it was issued just now, set this machine's clock (date -u shows it)"


@dataclass(frozen=True)
class CheckedPair:
    """A client identity that passed the checks. `chain` begins with the leaf; each issuer follows what it signed."""

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def serial(self) -> str:
        """The leaf's serial, lower-case hexadecimal."""
        return serial_text(self.leaf)

    @property
    def not_after(self) -> datetime:
        """The leaf's last second, aware, UTC."""
        return self.leaf.not_valid_after_utc

    @property
    def chain_pem(self) -> bytes:
        """What to load into OpenSSL: exactly the certificates that were checked, in the order they are sent."""
        return certificates_pem(self.chain)

    @property
    def key_pem(self) -> bytes:
        """The key as PKCS #8 without passphrase. A secret: it goes to OpenSSL and nowhere else."""
        return private_key_pem(self.key)


def check_pair(
    cert_pem: bytes,
    key_pem: bytes,
    *,
    now: datetime,
    cert_source: str,
    key_source: str,
    passphrase: bytes | None = None,
    strict: bool = False,
) -> CheckedPair:
    """The pair, checked at `now` (aware). The sources name the bytes in errors and warnings.

    `strict` is for a pair that is only now being taken in: what is a warning about one that serves already, because
    the server decides, is refused then (a signature with SHA-1, a CA's certificate as the leaf).

    Raises `IdentityError`: those of the two readers, KEY_MISMATCH, CERTIFICATE_EXPIRED, CERTIFICATE_NOT_YET_VALID,
    CERTIFICATE_NOT_FOR_CLIENTS; `strict` also SIGNATURE_WEAK.
    """
    certificates = load_certificates(cert_pem, source=cert_source)
    key = load_private_key(key_pem, source=key_source, passphrase=passphrase)
    return check_loaded(certificates, key, now=now, cert_source=cert_source, key_source=key_source, strict=strict)


def check_loaded(
    certificates: Sequence[x509.Certificate],
    key: PrivateKey,
    *,
    now: datetime,
    cert_source: str,
    key_source: str,
    strict: bool = False,
) -> CheckedPair:
    """`check_pair` for what has been read already, from whatever files and forms."""
    leaf = find_leaf(certificates, key, now=now, cert_source=cert_source, key_source=key_source)
    check_dates(leaf, now=now, source=cert_source)
    check_usage(leaf, source=cert_source)
    found = follow(leaf, certificates)
    chain = found.certificates
    if strict:
        _check_strictly(chain, source=cert_source)
    # What stands there twice is not worth a word.
    notes = [f"{cert_source}: {note}" for note in replace(found, duplicates=()).notes]
    remarks = [
        *(IdentityError(Code.CHAIN_INCOMPLETE, f"{cert_source}: {gap}") for gap in found.gaps),
        *leaf_remarks(leaf, now=now, source=cert_source),
        *chain_remarks(chain, now=now, source=cert_source),
    ]
    return CheckedPair(chain, key, (*notes, *(remark.sentence for remark in remarks)))


def check_anchors(pem: bytes, *, now: datetime, source: str) -> tuple[x509.Certificate, ...]:
    """The trust anchors in a file, at least one of them valid at `now` (aware). Expired ones among them stay.

    Raises `IdentityError`: those of the reader; CERTIFICATE_EXPIRED or CERTIFICATE_NOT_YET_VALID when no anchor is
    valid. `anchor_warnings` tells of the single ones.
    """
    anchors = load_certificates(pem, source=source, limit=MAX_ANCHORS)
    if all(_date_trouble(anchor, now) for anchor in anchors):
        # The one that is most nearly usable tells best what is wrong.
        latest = max(anchors, key=lambda anchor: anchor.not_valid_after_utc)
        check_dates(latest, now=now, source=source, role="trust anchor ")
    return anchors


def anchor_warnings(anchors: Sequence[x509.Certificate], *, now: datetime, source: str) -> tuple[str, ...]:
    """The sentences of `anchor_remarks`."""
    return tuple(remark.sentence for remark in anchor_remarks(anchors, now=now, source=source))


def anchor_remarks(anchors: Sequence[x509.Certificate], *, now: datetime, source: str) -> Iterator[IdentityError]:
    """One for each anchor through which no server will be trusted: not valid at `now`, or no CA at all."""
    for anchor in anchors:
        name = f"{source}: the trust anchor {subject_text(anchor)}"
        if trouble := _date_trouble(anchor, now):
            yield IdentityError(_date_code(anchor, now), f"{name} {trouble}", _anchor_hint(source))
        elif trouble := _no_anchor(anchor, source):
            yield IdentityError(Code.PEM_WRONG_KIND, f"{name} {trouble}", _anchor_hint(source))


def _anchor_hint(source: str) -> str:
    return f"give the server's current CA certificate in {source}"


def _no_anchor(anchor: x509.Certificate, source: str) -> str | None:
    """A leaf is taken for an anchor only when it has signed itself; words that follow the subject, or None."""
    if anchor.issuer == anchor.subject:
        return None
    with suppress(IdentityError):  # what cannot be read is OpenSSL's to judge
        constraints = extension(anchor, x509.BasicConstraints, source=source)
        if constraints is None or not constraints.ca:
            return f"is no CA certificate, and trusts nobody: give its issuer's instead ({issuer_text(anchor)})"
    return None


def find_leaf(
    certificates: Sequence[x509.Certificate], key: PrivateKey, *, now: datetime, cert_source: str, key_source: str
) -> x509.Certificate:
    """The certificate that the key belongs to. Of several (renewed with the same key) the one that lasts longest.

    Raises `IdentityError` (KEY_MISMATCH).
    """
    matching = [certificate for certificate in certificates if belongs_to(key, certificate)]
    if matching:
        return max(matching, key=lambda found: (not _date_trouble(found, now), found.not_valid_after_utc))
    first = certificates[0]
    theirs = f"its certificate is for {spki_sha256(first).hex()[:16]}…"
    if len(certificates) > 1:
        theirs = f"of its {len(certificates)} certificates the first is for {spki_sha256(first).hex()[:16]}…"
    hint = "give the two files that were issued together"
    if all(is_ca(certificate) for certificate in certificates):
        hint = f"{cert_source} holds a CA's certificate only: give the one that the CA issued for this key"
    raise IdentityError(
        Code.KEY_MISMATCH,
        f"the key in {key_source} does not belong to {cert_source}: the key's fingerprint (SPKI SHA-256) is "
        f"{spki_sha256_of_key(key).hex()[:16]}…, {theirs}",
        f"{hint}; whether another key fits: mtlskit certs show {cert_source} --key OTHER_KEY",
    )


def _date_trouble(certificate: x509.Certificate, now: datetime) -> str | None:
    """What is wrong with the dates, as words that follow the subject; None when `now` lies between them."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now > ends:
        return f"expired on {_utc(ends)}, {_span(now - ends)} ago"
    if now < begins:
        return f"is not valid before {_utc(begins)}, {_span(begins - now)} from now"
    return None


def _date_code(certificate: x509.Certificate, now: datetime) -> Code:
    expired = now > certificate.not_valid_after_utc
    return Code.CERTIFICATE_EXPIRED if expired else Code.CERTIFICATE_NOT_YET_VALID


def check_dates(certificate: x509.Certificate, *, now: datetime, source: str, role: str = "") -> None:
    """Raises `IdentityError`: CERTIFICATE_EXPIRED, CERTIFICATE_NOT_YET_VALID. `role` is "trust anchor " for one."""
    trouble = _date_trouble(certificate, now)
    if trouble is None:
        return
    code = _date_code(certificate, now)
    expired = code is Code.CERTIFICATE_EXPIRED
    raise IdentityError(
        code,
        f"{source}: {role}{subject_text(certificate)} {trouble}",
        (_anchor_hint(source) if role else _RENEW) if expired else _SET_CLOCK,
    )


def check_usage(leaf: x509.Certificate, *, source: str) -> None:
    """Raises `IdentityError` (CERTIFICATE_NOT_FOR_CLIENTS) where an extended key usage leaves out clients."""
    usages = extension(leaf, x509.ExtendedKeyUsage, source=source)
    if usages is None or {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usages):
        return
    names = ", ".join(_usage_name(usage) for usage in usages)
    raise IdentityError(
        Code.CERTIFICATE_NOT_FOR_CLIENTS,
        f"{source}: {subject_text(leaf)} is not for clients: its extended key usage is {names}, without clientAuth",
        _FOR_CLIENTS,
    )


def _usage_name(usage: x509.ObjectIdentifier) -> str:
    known = {ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth", ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning"}
    return known.get(usage, usage.dotted_string)


def _check_strictly(chain: Sequence[x509.Certificate], *, source: str) -> None:
    leaf = chain[0]
    if is_ca(leaf):
        raise IdentityError(
            Code.CERTIFICATE_NOT_FOR_CLIENTS,
            f"{source}: {subject_text(leaf)} is a CA certificate, and stands where a client's belongs",
            "give the certificate that the CA issued for the client; a CA's own is for `ca`",
        )
    for certificate in chain:
        digest = _WEAK_SIGNATURES.get(certificate.signature_algorithm_oid)
        # Nobody looks at the signature of a root.
        if digest and (certificate is leaf or not is_self_signed(certificate)):
            raise IdentityError(
                Code.SIGNATURE_WEAK,
                f"{source}: {subject_text(certificate)} is signed with {digest}, which can be forged",
                _STRONGER,
            )


def ends_soon(
    certificate: x509.Certificate, *, now: datetime, source: str, wish: RenewBefore | None = None, role: str = ""
) -> IdentityError | None:
    """A remark where a certificate is due for renewal by `wish`, as `mtlskit.pki.renewal` understands it."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now <= due_at(begins, ends, wish):
        return None
    return IdentityError(
        Code.CERTIFICATE_ENDS_SOON,
        f"{source}: {role}{subject_text(certificate)} expires on {_utc(ends)}, in {_span(ends - now)}",
        _anchor_hint(source) if role else _RENEW,
    )


def leaf_remarks(
    leaf: x509.Certificate, *, now: datetime, source: str, wish: RenewBefore | None = None
) -> Iterator[IdentityError]:
    """What is no reason to refuse the client's certificate, because the server decides, and may be one for it."""
    name = f"{source}: {subject_text(leaf)}"
    code = Code.CERTIFICATE_NOT_FOR_CLIENTS
    if remark := ends_soon(leaf, now=now, source=source, wish=wish):
        yield remark
    constraints = extension(leaf, x509.BasicConstraints, source=source)
    if constraints is not None and constraints.ca:
        yield IdentityError(code, f"{name} is a CA certificate; servers may refuse it from a client", _FOR_CLIENTS)
    usage = extension(leaf, x509.KeyUsage, source=source)
    if usage is not None and not usage.digital_signature:
        yield IdentityError(
            code, f"{name} has a key usage without digitalSignature; servers may refuse it", _FOR_CLIENTS
        )
    extended = extension(leaf, x509.ExtendedKeyUsage, source=source)
    if extended is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in extended:
        yield IdentityError(
            code,
            f"{name} names no clientAuth, only anyExtendedKeyUsage; servers that use OpenSSL refuse it",
            _FOR_CLIENTS,
        )
    if remark := weak_signature(leaf, source=source):
        yield remark


def weak_signature(certificate: x509.Certificate, *, source: str) -> IdentityError | None:
    """A remark where the signature's digest is one that can be forged."""
    digest = _WEAK_SIGNATURES.get(certificate.signature_algorithm_oid)
    if digest is None:
        return None
    sentence = f"{source}: {subject_text(certificate)} is signed with {digest}; servers may refuse it"
    return IdentityError(Code.SIGNATURE_WEAK, sentence, _STRONGER)


def chain_remarks(chain: Sequence[x509.Certificate], *, now: datetime, source: str) -> Iterator[IdentityError]:
    """Of the issuers that go with a leaf, which stands first."""
    for issuer in chain[1:]:
        if trouble := _date_trouble(issuer, now):
            sentence = f"{source}: the issuer {subject_text(issuer)} {trouble}"
            yield IdentityError(_date_code(issuer, now), sentence, _RENEW)


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(length: timedelta) -> str:
    """A length of time as people say it, in its one largest unit."""
    seconds = int(length.total_seconds())
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
