"""Certificates: read from PEM in whatever shape it comes, written, and asked for the facts that others need."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from mtlskit.errors import Code, IdentityError
from mtlskit.pki import der, pem

__all__ = [
    "MAX_CERTIFICATES",
    "UNREADABLE",
    "bounded_text",
    "certificates_pem",
    "decode_certificate",
    "extension",
    "fingerprint_sha256",
    "is_issued_by",
    "issuer_text",
    "load_certificates",
    "public_key_der_of",
    "serial_number",
    "serial_text",
    "spki_sha256",
    "subject_text",
]

MAX_CERTIFICATES = 100
"""No chain is that long. OpenSSL's own limit on a peer's chain (`SSL_CTX_set_max_cert_list`) is 100 kB."""

_MAX_SUBJECT = 256  # enough for a name of a few parts of 64 characters (RFC 5280, appendix A.1), and a line in a log
_WANTED = "a certificate"
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises about bytes that decode as base64 and are no proper certificate."""

_ExtensionValue = TypeVar("_ExtensionValue", bound=x509.ExtensionType)


def load_certificates(pem_bytes: bytes, *, source: str, limit: int = MAX_CERTIFICATES) -> tuple[x509.Certificate, ...]:
    """Every certificate in `pem_bytes`, in file order, at least one and at most `limit`. Keys beside them are skipped.

    Raises `IdentityError`: PEM_WRONG_KIND, PEM_DAMAGED (with the block and its line), PEM_TOO_LARGE.
    """
    blocks = pem.scan(pem_bytes, source=source, wanted=_WANTED)
    wanted = [(number, block) for number, block in enumerate(blocks, 1) if block.label in pem.CERTIFICATE_LABELS]
    if not wanted:
        raise _no_certificate(blocks, source)
    if len(wanted) > limit:
        raise IdentityError(
            Code.PEM_TOO_LARGE,
            f"{source} holds {len(wanted)} certificates, more than the {limit} that are read",
            "keep the ones that are needed: the client's own, then its issuers",
        )
    return tuple(_decode(block, number, source) for number, block in wanted)


def _decode(block: pem.Block, number: int, source: str) -> x509.Certificate:
    where = f"{source}: block {number} (CERTIFICATE, from line {block.line})"
    return decode_certificate(block.der, where=where, source=source)


def decode_certificate(encoded: bytes, *, where: str, source: str) -> x509.Certificate:
    """The DER certificate `encoded`; what cannot be read in it comes to light here, but for its extensions.

    Raises `IdentityError` PEM_DAMAGED, which begins with `where`.
    """
    try:
        with warnings.catch_warnings():
            # cryptography warns of odd but usable certificates (a serial of zero) with words that help nobody here.
            warnings.simplefilter("ignore")
            certificate = x509.load_der_x509_certificate(encoded)
            _read_everything(certificate)
    except UNREADABLE as exc:
        raise IdentityError(
            Code.PEM_DAMAGED,
            f"{where} is damaged: it is no X.509 certificate",
            f"take the file from its origin again; to see what OpenSSL says: openssl x509 -in {source} -noout -text",
        ) from exc
    return certificate


def _read_everything(certificate: x509.Certificate) -> None:
    """cryptography decodes lazily: what it cannot read is to come to light here, and nowhere later."""
    for value in (certificate.subject, certificate.issuer):
        value.rfc4514_string()
    _ = (certificate.serial_number, certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    der.subject_public_key_info(certificate.public_bytes(serialization.Encoding.DER))


def _no_certificate(blocks: tuple[pem.Block, ...], source: str) -> IdentityError:
    labels = {block.label for block in blocks}
    hint = "give the file that holds the certificate (-----BEGIN CERTIFICATE-----)"
    if labels & {"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"}:
        hint = "give the certificate that was issued for the request"
    elif "TRUSTED CERTIFICATE" in labels:
        hint = f"convert it: openssl x509 -in {source} -out NEW_FILE"
    elif labels & {"PKCS7", "CMS"}:
        hint = f"convert it: openssl pkcs7 -in {source} -print_certs -out NEW_FILE"
    elif labels & pem.PRIVATE_KEY_LABELS:
        hint += "; are cert and key exchanged?"
    return IdentityError(Code.PEM_WRONG_KIND, f"{source} holds {pem.describe_blocks(blocks)}, not a certificate", hint)


def certificates_pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """The certificates as one PEM bundle, in the order given."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def spki_sha256(certificate: x509.Certificate) -> bytes:
    """The pin: SHA-256 over the SubjectPublicKeyInfo as it stands in the certificate (RFC 7469, section 2.4)."""
    encoded = certificate.public_bytes(serialization.Encoding.DER)
    return hashlib.sha256(der.subject_public_key_info(encoded)).digest()


def public_key_der_of(certificate: x509.Certificate) -> bytes | None:
    """The public key, re-encoded as a key of ours would be, to be compared with one; None for a kind not supported."""
    try:
        return certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except UNREADABLE:
        return None


def fingerprint_sha256(certificate: x509.Certificate) -> bytes:
    """SHA-256 over the whole DER certificate, as `openssl x509 -fingerprint -sha256` shows it."""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def subject_text(certificate: x509.Certificate) -> str:
    """The subject by RFC 4514, or the serial where the subject is empty (a name may stand in the SAN alone).

    It goes into errors and logs, and a peer chooses it: see `bounded_text`.
    """
    return bounded_text(certificate.subject.rfc4514_string() or f"serial {serial_text(certificate)}")


def issuer_text(certificate: x509.Certificate) -> str:
    """The issuer's name, as `subject_text` gives the subject's."""
    return bounded_text(certificate.issuer.rfc4514_string() or "an issuer without a name")


def bounded_text(text: str) -> str:
    """A name that somebody else chose, cut, and with what a terminal would act on escaped as RFC 4514 allows
    (backslash and hex)."""
    return "".join(char if char.isprintable() else _escaped(char) for char in text[:_MAX_SUBJECT])


def _escaped(char: str) -> str:
    return "".join(f"\\{octet:02x}" for octet in char.encode("utf-8", "replace"))


def serial_text(certificate: x509.Certificate) -> str:
    """The serial in hexadecimal: lower case, no separators, no leading zeros. One form, everywhere it is shown."""
    return f"{serial_number(certificate):x}"


def serial_number(certificate: x509.Certificate) -> int:
    """The serial. RFC 5280 wants it positive, and not all are; cryptography would warn of that at each look."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return certificate.serial_number


def extension(certificate: x509.Certificate, kind: type[_ExtensionValue], *, source: str) -> _ExtensionValue | None:
    """An extension's value, or None. Raises `IdentityError` PEM_DAMAGED when the extensions cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
    except UNREADABLE as exc:
        raise IdentityError(
            Code.PEM_DAMAGED,
            f"{source}: the extensions of {subject_text(certificate)} cannot be read",
            f"to see what OpenSSL says: openssl x509 -in {source} -noout -text; then have it issued again",
        ) from exc


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed `certificate`. Where the signature is of a kind unknown here, the names decide."""
    if certificate.issuer != issuer.subject:
        return False
    try:
        # Asked first, because the check itself calls an unknown algorithm and a key of another type the same.
        digest = certificate.signature_hash_algorithm
        if isinstance(digest, hashes.SHA1 | hashes.MD5):
            _verify_outdated(certificate, issuer, digest)
        else:
            certificate.verify_directly_issued_by(issuer)
    except UnsupportedAlgorithm:
        return True
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _verify_outdated(certificate: x509.Certificate, issuer: x509.Certificate, digest: hashes.SHA1 | hashes.MD5) -> None:
    """The check of a signature that cryptography no longer makes for certificates: whether it counts is not asked here.

    Raises as `verify_directly_issued_by`.
    """
    key = issuer.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), digest)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(digest))
    else:
        raise InvalidSignature
