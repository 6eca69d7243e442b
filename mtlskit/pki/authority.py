"""A small certificate authority: one root that signs leaves and a revocation list. The sandbox and the tests use it.

Its certificates keep the strict reading of RFC 5280 (`openssl verify -x509_strict` passes them): the root is critical
CA:TRUE with path length 0 and may sign certificates and lists and nothing else; every certificate names its own key
and its issuer's; a leaf is for servers or for clients, never for both, and never outlives its root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.certificates import certificates_pem, extension, load_certificates, public_key_der_of, subject_text
from mtlskit.pki.keys import KeyType, PrivateKey, generate_key, load_private_key, private_key_pem, public_key_der

__all__ = ["Authority", "Issued"]

BACKDATED = timedelta(minutes=5)
"""A certificate is valid from a little before `now`: the peer's clock may be behind ours."""

ROOT_LIFETIME = timedelta(days=3652)
SERVER_LIFETIME = timedelta(days=397)
CLIENT_LIFETIME = timedelta(days=365)
LIST_LIFETIME = timedelta(days=365)
"""An out-of-date list makes OpenSSL refuse every client, so it lasts as long as a client's certificate."""

_MAX_COMMON_NAME = 64  # ub-common-name, RFC 5280, appendix A.1


@dataclass(frozen=True)
class Issued:
    """A certificate with its key. `cert_pem` holds the leaf, then intermediates if there are any; never the root."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    certificate: x509.Certificate

    @property
    def serial(self) -> int:
        """What `Authority.revocation_list` takes."""
        return self.certificate.serial_number


@dataclass(frozen=True)
class Authority:
    """A root certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)

    @classmethod
    def create(
        cls,
        common_name: str,
        *,
        now: datetime,
        lifetime: timedelta = ROOT_LIFETIME,
        kind: KeyType = KeyType.EC_P256,
    ) -> Authority:
        """A new self-signed root. `now` is an aware datetime; `common_name` has 1 to 64 characters (`ValueError`)."""
        key = generate_key(kind)
        name = _common_name(common_name)
        builder = _builder(name, name, key, _seconds(now - BACKDATED), _seconds(now + lifetime))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(_key_identifier_of(key), critical=False)
        return cls(builder.sign(key, _digest(key)), key)

    @classmethod
    def load(
        cls, cert_pem: bytes, key_pem: bytes, *, source: str = "the authority", passphrase: bytes | None = None
    ) -> Authority:
        """A root as `cert_pem` and `key_pem` gave it. The first certificate counts.

        Raises `IdentityError`: those of the readers, PEM_WRONG_KIND when it is no CA, KEY_MISMATCH.
        """
        certificate = load_certificates(cert_pem, source=source)[0]
        key = load_private_key(key_pem, source=source, passphrase=passphrase)
        constraints = extension(certificate, x509.BasicConstraints, source=source)
        if constraints is None or not constraints.ca:
            raise IdentityError(
                Code.PEM_WRONG_KIND,
                f"{source}: {subject_text(certificate)} is not a CA certificate",
                "give the certificate of the CA itself (basicConstraints CA:TRUE)",
            )
        if public_key_der_of(certificate) != public_key_der(key):
            raise IdentityError(
                Code.KEY_MISMATCH,
                f"{source}: the key does not belong to the certificate {subject_text(certificate)}",
                "give the certificate and the key that were made together",
            )
        return cls(certificate, key)

    @property
    def cert_pem(self) -> bytes:
        """The root certificate: the trust anchor to hand out."""
        return certificates_pem([self.certificate])

    @property
    def key_pem(self) -> bytes:
        """The root's private key, PKCS #8, not encrypted. A secret."""
        return private_key_pem(self.key)

    def issue_server(
        self,
        names: Sequence[str],
        *,
        now: datetime,
        lifetime: timedelta = SERVER_LIFETIME,
        kind: KeyType = KeyType.EC_P256,
    ) -> Issued:
        """A server certificate for DNS names and IP addresses; at least one, in ASCII (`ValueError`)."""
        if not names:
            raise ValueError("a server certificate needs at least one name")
        alternatives = [_general_name(name) for name in names]
        # A name that is too long for the subject stands in the SAN alone, which is then critical (RFC 5280, 4.2.1.6).
        subject = _common_name(names[0]) if len(names[0]) <= _MAX_COMMON_NAME else x509.Name([])
        return self._issue(subject, ExtendedKeyUsageOID.SERVER_AUTH, alternatives, now, lifetime, kind)

    def issue_client(
        self,
        common_name: str,
        *,
        now: datetime,
        lifetime: timedelta = CLIENT_LIFETIME,
        dns_names: Sequence[str] = (),
        kind: KeyType = KeyType.EC_P256,
    ) -> Issued:
        """A client certificate. `common_name` has 1 to 64 characters (`ValueError`)."""
        alternatives = [x509.DNSName(name) for name in dns_names]
        return self._issue(
            _common_name(common_name), ExtendedKeyUsageOID.CLIENT_AUTH, alternatives, now, lifetime, kind
        )

    def revocation_list(self, serials: Iterable[int], *, now: datetime, lifetime: timedelta = LIST_LIFETIME) -> bytes:
        """A complete CRL as PEM. Its number is the time in microseconds, so a later list has a greater one."""
        since = _seconds(now - BACKDATED)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.certificate.subject)
        builder = builder.last_update(since).next_update(_seconds(now + lifetime))
        for serial in sorted(set(serials)):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
            builder = builder.add_revoked_certificate(entry.build())
        number = (now - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        builder = builder.add_extension(self._authority_key_identifier(), critical=False)
        return builder.sign(self.key, _digest(self.key)).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        subject: x509.Name,
        usage: x509.ObjectIdentifier,
        alternatives: Sequence[x509.GeneralName],
        now: datetime,
        lifetime: timedelta,
        kind: KeyType,
    ) -> Issued:
        key = generate_key(kind)
        ends = min(_seconds(now + lifetime), self.certificate.not_valid_after_utc)
        builder = _builder(subject, self.certificate.subject, key, _seconds(now - BACKDATED), ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(_key_identifier_of(key), critical=False)
        builder = builder.add_extension(self._authority_key_identifier(), critical=False)
        if alternatives:
            san = x509.SubjectAlternativeName(alternatives)
            builder = builder.add_extension(san, critical=not list(subject))
        certificate = builder.sign(self.key, _digest(self.key))
        return Issued(certificates_pem([certificate]), private_key_pem(key), certificate)

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = extension(self.certificate, x509.SubjectKeyIdentifier, source="the authority")
        if own is None:  # a root made by somebody else may lack it
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)


def _seconds(moment: datetime) -> datetime:
    """X.509 knows no fractions of a second, and no zone but UTC. A naive datetime is a `ValueError`."""
    if moment.tzinfo is None:
        raise ValueError("an aware datetime is needed")
    return moment.astimezone(UTC).replace(microsecond=0)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(name)
    except ValueError:
        return x509.DNSName(name)
    return x509.IPAddress(address)


def _key_identifier_of(key: PrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    """Ed25519 brings its own digest."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    """A root signs certificates and lists; a leaf signs handshakes, and no key exchange encrypts keys."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
