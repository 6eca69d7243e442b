"""What a certificate says, as plain values for people and scripts: what `openssl x509 -text` would show of it.

Nothing here refuses a certificate. What is odd (an extension that cannot be read, a kind of key that is unknown) is
named in place of the fact.
"""

from __future__ import annotations

import warnings
from base64 import b64encode
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, SignatureAlgorithmOID

from mtlskit.pki.certificates import (
    UNREADABLE,
    bounded_text,
    fingerprint_sha256,
    serial_number,
    serial_text,
    spki_sha256,
)
from mtlskit.pki.requests import alternative_text, public_key_text

__all__ = ["MAX_NAMES", "CertificateFacts", "certificate_facts"]

MAX_NAMES = 200
"""Alternative names that are told; a certificate of a content network holds a hundred."""

_DAY = 86400

_KEY_USAGES = (
    ("digital_signature", "digitalSignature"),
    ("content_commitment", "nonRepudiation"),
    ("key_encipherment", "keyEncipherment"),
    ("data_encipherment", "dataEncipherment"),
    ("key_agreement", "keyAgreement"),
    ("key_cert_sign", "keyCertSign"),
    ("crl_sign", "cRLSign"),
)
_PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth",
    ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth",
    ExtendedKeyUsageOID.CODE_SIGNING: "codeSigning",
    ExtendedKeyUsageOID.EMAIL_PROTECTION: "emailProtection",
    ExtendedKeyUsageOID.TIME_STAMPING: "timeStamping",
    ExtendedKeyUsageOID.OCSP_SIGNING: "OCSPSigning",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "anyExtendedKeyUsage",
}
_SIGNATURES = {
    SignatureAlgorithmOID.RSA_WITH_MD5: "md5WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA1: "sha1WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA256: "sha256WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "sha384WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "sha512WithRSAEncryption",
    SignatureAlgorithmOID.RSASSA_PSS: "rsassaPss",
    SignatureAlgorithmOID.ECDSA_WITH_SHA1: "ecdsa-with-SHA1",
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ecdsa-with-SHA256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ecdsa-with-SHA384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ecdsa-with-SHA512",
    SignatureAlgorithmOID.ED25519: "ED25519",
    SignatureAlgorithmOID.ED448: "ED448",
}
"""As OpenSSL calls them."""

_TOLD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
    }
)
_NAMED = {
    ExtensionOID.CERTIFICATE_POLICIES: "certificatePolicies",
    ExtensionOID.CRL_DISTRIBUTION_POINTS: "crlDistributionPoints",
    ExtensionOID.AUTHORITY_INFORMATION_ACCESS: "authorityInfoAccess",
    ExtensionOID.NAME_CONSTRAINTS: "nameConstraints",
    ExtensionOID.PRECERT_SIGNED_CERTIFICATE_TIMESTAMPS: "signedCertificateTimestamps",
    ExtensionOID.ISSUER_ALTERNATIVE_NAME: "issuerAltName",
}


@dataclass(frozen=True)
class CertificateFacts:
    """The facts of one certificate. Times are aware, in UTC; digests and identifiers are lower-case hexadecimal."""

    subject: str
    issuer: str
    serial: str
    names: tuple[str, ...]
    """Subject alternative names, each as `mtlskit csr new --san` takes it."""
    key_usages: tuple[str, ...]
    """Empty where the extension is missing: the key may then be used for anything."""
    purposes: tuple[str, ...]
    """The extended key usage; a number where it has no name here."""
    key: str
    not_before: datetime
    not_after: datetime
    days_left: int
    """Whole days; negative when it has ended, and then -1 on the first day."""
    state: str
    """"valid", "expired" or "not yet valid"."""
    signature: str
    fingerprint_sha256: str
    spki_sha256: str
    pin: str
    """The SPKI's digest as a pin of the configuration, `sha256/BASE64`."""
    is_ca: bool
    path_length: int | None
    subject_key_identifier: str | None
    authority_key_identifier: str | None
    other_extensions: tuple[str, ...]
    oddities: tuple[str, ...]
    """What cannot be read in it, or should not be so, as sentences."""

    @property
    def valid(self) -> bool:
        """Whether the moment lay between its dates."""
        return self.state == "valid"


@dataclass
class _Extensions:
    names: tuple[str, ...] = ()
    key_usages: tuple[str, ...] = ()
    purposes: tuple[str, ...] = ()
    is_ca: bool = False
    path_length: int | None = None
    subject_key_identifier: str | None = None
    authority_key_identifier: str | None = None
    others: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()


def certificate_facts(certificate: x509.Certificate, now: datetime) -> CertificateFacts:
    """The facts of a certificate that a reader of this package has read, at `now` (aware)."""
    found = _extensions(certificate)
    if serial_number(certificate) <= 0:
        found.oddities += ("its serial number is not positive",)
    spki = spki_sha256(certificate)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return CertificateFacts(
        subject=bounded_text(certificate.subject.rfc4514_string()),
        issuer=bounded_text(certificate.issuer.rfc4514_string()),
        serial=serial_text(certificate),
        names=found.names,
        key_usages=found.key_usages,
        purposes=found.purposes,
        key=_key_text(certificate),
        not_before=begins,
        not_after=ends,
        days_left=int((ends - now).total_seconds() // _DAY),
        state="expired" if now > ends else "not yet valid" if now < begins else "valid",
        signature=_SIGNATURES.get(
            certificate.signature_algorithm_oid, certificate.signature_algorithm_oid.dotted_string
        ),
        fingerprint_sha256=fingerprint_sha256(certificate).hex(),
        spki_sha256=spki.hex(),
        pin=f"sha256/{b64encode(spki).decode('ascii')}",
        is_ca=found.is_ca,
        path_length=found.path_length,
        subject_key_identifier=found.subject_key_identifier,
        authority_key_identifier=found.authority_key_identifier,
        other_extensions=found.others,
        oddities=found.oddities,
    )


def _key_text(certificate: x509.Certificate) -> str:
    try:
        return public_key_text(certificate.public_key())
    except UNREADABLE:
        return f"of an unknown kind ({certificate.public_key_algorithm_oid.dotted_string})"


def _extensions(certificate: x509.Certificate) -> _Extensions:
    found = _Extensions()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            extensions = list(certificate.extensions)
    except UNREADABLE:
        found.oddities = ("its extensions cannot be read",)
        return found
    for extension in extensions:
        _take(extension.value, found)
    found.others = tuple(_other(extension) for extension in extensions if extension.oid not in _TOLD)
    return found


def _take(value: x509.ExtensionType, found: _Extensions) -> None:
    match value:
        case x509.BasicConstraints():
            found.is_ca, found.path_length = value.ca, value.path_length
        case x509.KeyUsage():
            found.key_usages = _key_usages(value)
        case x509.ExtendedKeyUsage():
            found.purposes = tuple(_PURPOSES.get(purpose, purpose.dotted_string) for purpose in value)
        case x509.SubjectAlternativeName():
            names = list(value)
            found.names = tuple(bounded_text(alternative_text(name)) for name in names[:MAX_NAMES])
            if len(names) > MAX_NAMES:
                found.oddities += (f"{len(names) - MAX_NAMES} more of its names are not shown",)
        case x509.SubjectKeyIdentifier():
            found.subject_key_identifier = value.digest.hex()
        case x509.AuthorityKeyIdentifier() if value.key_identifier is not None:
            found.authority_key_identifier = value.key_identifier.hex()


def _key_usages(usage: x509.KeyUsage) -> tuple[str, ...]:
    names = [name for attribute, name in _KEY_USAGES if getattr(usage, attribute)]
    if usage.key_agreement:  # the two others mean something only beside it, and may not be asked for without it
        names += ["encipherOnly"] * usage.encipher_only + ["decipherOnly"] * usage.decipher_only
    return tuple(names)


def _other(extension: x509.Extension[x509.ExtensionType]) -> str:
    name = _NAMED.get(extension.oid, extension.oid.dotted_string)
    return f"{name} (critical)" if extension.critical else name
