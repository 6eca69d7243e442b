"""Certificates of any shape, the bad ones above all: what `mtlskit.pki.authority` would never issue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.pki.certificates import certificates_pem
from mtlskit.pki.keys import PrivateKey, generate_key, private_key_pem

__all__ = ["DAY", "NOW", "Made", "make_certificate", "make_request"]

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
"""The moment at which the tests of the pki package stand."""

DAY = timedelta(days=1)
_CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True)
class Made:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey

    @property
    def cert_pem(self) -> bytes:
        return certificates_pem([self.certificate])

    @property
    def key_pem(self) -> bytes:
        return private_key_pem(self.key)


def make_certificate(
    common_name: str = "someone",
    *,
    issuer: Made | None = None,
    key: PrivateKey | None = None,
    begins: datetime = NOW - 100 * DAY,
    ends: datetime = NOW + 265 * DAY,
    usages: Sequence[x509.ObjectIdentifier] | None = _CLIENT,
    ca: bool | None = False,
    digital_signature: bool | None = True,
    further: Sequence[x509.ExtensionType] = (),
    before: Sequence[x509.NameAttribute[str]] = (),
) -> Made:
    """A certificate, self-signed unless there is an issuer. None leaves an extension out.

    `further` are extensions besides the usual ones, `before` attributes that stand in front of the common name.
    """
    key = key or generate_key()
    name = x509.Name([*before, x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    signer = issuer.key if issuer else key
    builder = x509.CertificateBuilder(
        issuer_name=issuer.certificate.subject if issuer else name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begins,
        not_valid_after=ends,
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if digital_signature is not None:
        builder = builder.add_extension(_key_usage(digital_signature=digital_signature), critical=True)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    for value in further:
        builder = builder.add_extension(value, critical=False)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Made(builder.sign(signer, algorithm), key)


def make_request(key: ec.EllipticCurvePrivateKey) -> x509.CertificateSigningRequest:
    """A certificate request: the file that people give in place of the certificate."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "asker")])
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())


def _key_usage(*, digital_signature: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not digital_signature,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
