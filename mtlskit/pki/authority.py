"""A small certificate authority: one root that signs leaves and revocation lists.

The sandbox and the tests have it make pairs (`issue_server`, `issue_client`); `mtlskit ca` has it answer requests, of
which `mtlskit.pki.profiles` says what is granted (`sign_request`).

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
from cryptography.x509.oid import NameOID

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.certificates import certificates_pem, extension, load_certificates, public_key_der_of, subject_text
from mtlskit.pki.keys import KeyType, PrivateKey, generate_key, load_private_key, private_key_pem, public_key_der
from mtlskit.pki.profiles import Profile, PublicKey, grant
from mtlskit.pki.requests import load_request
from mtlskit.pki.revocation import Revoked, list_builder

__all__ = ["LIST_LIFETIME", "MAX_CERTIFICATE", "ROOT_LIFETIME", "Answer", "Authority", "Issued"]

BACKDATED = timedelta(minutes=5)
"""A certificate is valid from a little before `now`: the peer's clock may be behind ours."""

ROOT_LIFETIME = timedelta(days=3652)
LIST_LIFETIME = timedelta(days=365)
"""An out-of-date list makes OpenSSL refuse every client, so it lasts as long as a client's certificate."""

MAX_CERTIFICATE = 16 * 1024
"""Bytes of DER. TLS peers accept chains of some 100 kB at the most, and send this with every handshake."""

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
class Answer:
    """What a request has led to. `notes` are sentences for people: how it differs from what was asked for."""

    certificate: x509.Certificate
    notes: tuple[str, ...]

    @property
    def cert_pem(self) -> bytes:
        """The leaf alone: the root signed it itself."""
        return certificates_pem([self.certificate])


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
        return cls.self_signed(_common_name(common_name), now=now, lifetime=lifetime, kind=kind)

    @classmethod
    def self_signed(
        cls,
        subject: x509.Name,
        *,
        now: datetime,
        lifetime: timedelta = ROOT_LIFETIME,
        kind: KeyType = KeyType.EC_P256,
    ) -> Authority:
        """A new self-signed root with a whole name, as `requests.subject_name` reads it; not empty (`ValueError`)."""
        if not list(subject):
            raise ValueError("a CA needs a name")
        key = generate_key(kind)
        builder = _builder(subject, subject, key.public_key(), _seconds(now - BACKDATED), _seconds(now + lifetime))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(_key_identifier_of(key.public_key()), critical=False)
        return cls(builder.sign(key, _digest(key)), key)

    @classmethod
    def load(
        cls,
        cert_pem: bytes,
        key_pem: bytes,
        *,
        source: str = "the authority",
        key_source: str | None = None,
        passphrase: bytes | None = None,
    ) -> Authority:
        """A root as `cert_pem` and `key_pem` gave it. The first certificate counts.

        `source` and `key_source` name them in errors; without the second, the first stands for both.

        Raises `IdentityError`: those of the readers, PEM_WRONG_KIND when it is no CA, KEY_MISMATCH.
        """
        certificate = load_certificates(cert_pem, source=source)[0]
        key = load_private_key(key_pem, source=key_source or source, passphrase=passphrase)
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
        lifetime: timedelta = Profile.SERVER.lifetime,
        kind: KeyType = KeyType.EC_P256,
    ) -> Issued:
        """A server certificate for DNS names and IP addresses; at least one, in ASCII (`ValueError`)."""
        if not names:
            raise ValueError("a server certificate needs at least one name")
        alternatives = [_general_name(name) for name in names]
        # A name that is too long for the subject stands in the SAN alone, which is then critical (RFC 5280, 4.2.1.6).
        subject = _common_name(names[0]) if len(names[0]) <= _MAX_COMMON_NAME else x509.Name([])
        return self._issue(subject, Profile.SERVER, alternatives, now, lifetime, kind)

    def issue_client(
        self,
        common_name: str,
        *,
        now: datetime,
        lifetime: timedelta = Profile.CLIENT.lifetime,
        dns_names: Sequence[str] = (),
        kind: KeyType = KeyType.EC_P256,
    ) -> Issued:
        """A client certificate. `common_name` has 1 to 64 characters (`ValueError`)."""
        alternatives = [x509.DNSName(name) for name in dns_names]
        return self._issue(_common_name(common_name), Profile.CLIENT, alternatives, now, lifetime, kind)

    def sign_request(
        self,
        request: bytes,
        profile: Profile,
        *,
        now: datetime,
        lifetime: timedelta | None = None,
        source: str = "the request",
    ) -> Answer:
        """A certificate for a request (PEM or DER), as far as the profile's policy grants what it asks for.

        `lifetime` is at least a second (`ValueError`); the root's own end cuts it short. `source` names the request in
        errors. Raises `IdentityError`: those of `load_request`, KEY_WEAK, CA_REQUEST_REFUSED, CA_OUT_OF_DATE.
        """
        granted = grant(load_request(request, source=source), profile, source=source)
        lifetime = profile.lifetime if lifetime is None else lifetime
        if lifetime < timedelta(seconds=1):
            raise ValueError("a certificate lasts for at least a second")
        root = self.certificate
        self._check_dates(now)
        ends = min(_seconds(now + lifetime), root.not_valid_after_utc)
        notes = granted.notes
        if ends < _seconds(now + lifetime):
            notes = (*notes, f"shortened: it ends with the CA's own certificate, {ends:%Y-%m-%d %H:%M:%S} UTC")
        begins = max(_seconds(now - _backdated(lifetime)), root.not_valid_before_utc)
        certificate = self._sign(granted.subject, granted.public_key, profile, granted.alternatives, begins, ends)
        size = len(certificate.public_bytes(serialization.Encoding.DER))
        if size > MAX_CERTIFICATE:
            raise IdentityError(
                Code.CA_REQUEST_REFUSED,
                f"{source}: the request is refused: the certificate would have {size} bytes",
                f"ask for less names; {MAX_CERTIFICATE} bytes are the most",
            )
        return Answer(certificate, notes)

    def revocation_list(
        self,
        revoked: Iterable[int | Revoked],
        *,
        now: datetime,
        lifetime: timedelta = LIST_LIFETIME,
        above: int = 0,
    ) -> bytes:
        """A complete CRL as PEM. A bare serial counts as revoked just now, for no special reason.

        Its number is the time in microseconds, so a later list has a greater one; and greater than `above`, the number
        of the list before, in case the clock was put back (RFC 5280, section 5.2.3).
        """
        since = _seconds(now - BACKDATED)
        lines = [each if isinstance(each, Revoked) else Revoked(each, since) for each in revoked]
        number = max((now - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1), above + 1)
        builder = list_builder(
            self.certificate.subject, lines, begins=since, ends=_seconds(now + lifetime), number=number
        )
        builder = builder.add_extension(self._authority_key_identifier(), critical=False)
        return builder.sign(self.key, _digest(self.key)).public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        subject: x509.Name,
        profile: Profile,
        alternatives: Sequence[x509.GeneralName],
        now: datetime,
        lifetime: timedelta,
        kind: KeyType,
    ) -> Issued:
        key = generate_key(kind)
        ends = min(_seconds(now + lifetime), self.certificate.not_valid_after_utc)
        begins = _seconds(now - _backdated(lifetime))
        certificate = self._sign(subject, key.public_key(), profile, alternatives, begins, ends)
        return Issued(certificates_pem([certificate]), private_key_pem(key), certificate)

    def _sign(
        self,
        subject: x509.Name,
        key: PublicKey,
        profile: Profile,
        alternatives: Sequence[x509.GeneralName],
        begins: datetime,
        ends: datetime,
    ) -> x509.Certificate:
        builder = _builder(subject, self.certificate.subject, key, begins, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([profile.purpose]), critical=False)
        builder = builder.add_extension(_key_identifier_of(key), critical=False)
        builder = builder.add_extension(self._authority_key_identifier(), critical=False)
        if alternatives:
            san = x509.SubjectAlternativeName(alternatives)
            builder = builder.add_extension(san, critical=not list(subject))
        return builder.sign(self.key, _digest(self.key))

    def _check_dates(self, now: datetime) -> None:
        begins, ends = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        if not begins <= now < ends:
            told = f"ended on {ends:%Y-%m-%d}" if now >= ends else f"begins on {begins:%Y-%m-%d %H:%M:%S} UTC only"
            raise IdentityError(
                Code.CA_OUT_OF_DATE,
                f"the CA's own certificate, {subject_text(self.certificate)}, {told}",
                "check this host's clock; a CA that has ended is replaced: mtlskit ca init --dir NEW_DIR",
            )

    def _authority_key_identifier(self) -> x509.AuthorityKeyIdentifier:
        own = extension(self.certificate, x509.SubjectKeyIdentifier, source="the authority")
        if own is None:  # a root made by somebody else may lack it
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, begins: datetime, ends: datetime
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begins).not_valid_after(ends)


def _backdated(lifetime: timedelta) -> timedelta:
    """How long before now a leaf begins: of a short life a tenth, or it would be half over when it begins."""
    return min(BACKDATED, max(lifetime, timedelta()) / 10)


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


def _key_identifier_of(key: PublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key)


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
