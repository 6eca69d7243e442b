"""The certificates of the tests, written as files: a CA for servers, another for clients, and each way to be wrong.

Made with `cryptography` alone, not with `mtlskit.pki`: what the tests believe must not come from what they test.
The server's CA and the clients' CA are different on purpose, as they are at providers that issue client certificates.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# Opens `Pki.client_locked`, the only private key that is encrypted.
PASSPHRASE = "open sesame"

SERVER_NAMES = ("localhost", "127.0.0.1", "::1")
OTHER_NAMES = ("other.example",)

_DAY = timedelta(days=1)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True)
class Pair:
    """A certificate (with its intermediates, leaf first) and its key (PKCS#8, mode 0600), as paths.

    `key_der` is the same key, never encrypted, as pgjdbc reads it.
    """

    cert: Path
    key: Path

    @property
    def key_der(self) -> Path:
        """The key as PKCS#8 DER."""
        return self.key.with_suffix(".pk8")


@dataclass(frozen=True)
class Pki:
    """Every file of the tests' PKI. Servers: names of `SERVER_NAMES`. Clients: CN=client unless the name says more."""

    directory: Path
    server_ca: Path
    client_ca: Path
    client_crl: Path  # of the clients' CA and of its intermediate: PostgreSQL wants one for each CA of a chain
    stranger_ca: Path

    server: Pair
    server_other_name: Pair  # good, but for `OTHER_NAMES`
    server_expired: Pair
    server_stranger: Pair  # right names, signed by the stranger

    client: Pair
    client_chained: Pair  # leaf and intermediate in one file
    client_locked: Pair  # the key is encrypted with `PASSPHRASE`
    client_expired: Pair
    client_not_yet_valid: Pair
    client_revoked: Pair
    client_stranger: Pair  # signed by the stranger
    certuser: Pair  # CN=certuser
    clients: _Ca = field(repr=False)

    def ending_client(self, folder: Path, ends: datetime) -> Pair:
        """One more client, whose certificate lives for a day and ends then; written into that folder."""
        return _Writer(folder).pair("client-ending", self.clients.client("client", (ends - _DAY, ends)))

    @property
    def absent(self) -> Path:
        """A path where nothing is: as ``sslcert`` it keeps libpq from using the certificate of the user's home."""
        return self.directory / "absent"


def make_pki(directory: Path, now: datetime | None = None) -> Pki:
    """Write the whole PKI into a folder that exists. `now` is the moment that "expired" and "not yet" refer to."""
    now = now or datetime.now(UTC)
    writer = _Writer(directory)
    valid = (now - _DAY, now + 30 * _DAY)
    past = (now - 30 * _DAY, now - _DAY)
    future = (now + _DAY, now + 30 * _DAY)

    servers = _Ca.root("mtlskit tests server CA", valid)
    clients = _Ca.root("mtlskit tests client CA", valid)
    intermediate = clients.subordinate("mtlskit tests client intermediate CA", valid)
    stranger = _Ca.root("mtlskit tests stranger CA", valid)
    revoked = clients.client("client", valid)

    return Pki(
        directory=directory,
        server_ca=writer.certificates("server-ca", [servers.certificate]),
        client_ca=writer.certificates("client-ca", [clients.certificate]),
        client_crl=writer.write(
            "client-ca.crl", clients.crl([revoked.chain[0].serial_number], valid) + intermediate.crl([], valid)
        ),
        stranger_ca=writer.certificates("stranger-ca", [stranger.certificate]),
        server=writer.pair("server", servers.server(SERVER_NAMES, valid)),
        server_other_name=writer.pair("server-other-name", servers.server(OTHER_NAMES, valid)),
        server_expired=writer.pair("server-expired", servers.server(SERVER_NAMES, past)),
        server_stranger=writer.pair("server-stranger", stranger.server(SERVER_NAMES, valid)),
        client=writer.pair("client", clients.client("client", valid)),
        client_chained=writer.pair("client-chained", intermediate.client("client", valid)),
        client_locked=writer.pair("client-locked", clients.client("client", valid), passphrase=PASSPHRASE),
        client_expired=writer.pair("client-expired", clients.client("client", past)),
        client_not_yet_valid=writer.pair("client-not-yet-valid", clients.client("client", future)),
        client_revoked=writer.pair("client-revoked", revoked),
        client_stranger=writer.pair("client-stranger", stranger.client("client", valid)),
        certuser=writer.pair("certuser", clients.client("certuser", valid)),
        clients=clients,
    )


_Validity = tuple[datetime, datetime]


@dataclass(frozen=True)
class _Issued:
    chain: Sequence[x509.Certificate]
    key: ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class _Ca:
    """One issuing certificate. `chain` is what a leaf of its must carry along: empty under a root."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...] = ()

    @classmethod
    def root(cls, name: str, validity: _Validity) -> _Ca:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _authority(_builder(_name(name), _name(name), key.public_key(), key.public_key(), validity))
        return cls(builder.sign(key, hashes.SHA256()), key)

    def subordinate(self, name: str, validity: _Validity) -> _Ca:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _authority(self._child(_name(name), key, validity)).sign(self.key, hashes.SHA256())
        return _Ca(certificate, key, (certificate, *self.chain))

    def server(self, names: Sequence[str], validity: _Validity) -> _Issued:
        alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
        return self._leaf(names[0], ExtendedKeyUsageOID.SERVER_AUTH, validity, alternatives)

    def client(self, common_name: str, validity: _Validity) -> _Issued:
        return self._leaf(common_name, ExtendedKeyUsageOID.CLIENT_AUTH, validity, None)

    def crl(self, serials: Sequence[int], validity: _Validity) -> bytes:
        since, until = validity
        builder = x509.CertificateRevocationListBuilder(self.certificate.subject, since, until)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder(serial, since).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(_PEM)

    def _leaf(
        self,
        common_name: str,
        usage: x509.ObjectIdentifier,
        validity: _Validity,
        alternatives: x509.SubjectAlternativeName | None,
    ) -> _Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._child(_name(common_name), key, validity)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(authority=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return _Issued((builder.sign(self.key, hashes.SHA256()), *self.chain), key)

    def _child(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, validity: _Validity
    ) -> x509.CertificateBuilder:
        return _builder(subject, self.certificate.subject, key.public_key(), self.key.public_key(), validity)


@dataclass(frozen=True)
class _Writer:
    directory: Path

    def write(self, name: str, content: bytes, mode: int = 0o644) -> Path:
        path = self.directory / name
        path.touch(mode=mode)  # before the key is in it
        path.write_bytes(content)
        return path

    def certificates(self, name: str, chain: Sequence[x509.Certificate]) -> Path:
        return self.write(f"{name}.crt", b"".join(certificate.public_bytes(_PEM) for certificate in chain))

    def pair(self, name: str, issued: _Issued, *, passphrase: str | None = None) -> Pair:
        plain = serialization.NoEncryption()
        lock = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else plain
        pkcs8 = serialization.PrivateFormat.PKCS8
        key = self.write(f"{name}.key", issued.key.private_bytes(_PEM, pkcs8, lock), 0o600)
        self.write(f"{name}.pk8", issued.key.private_bytes(serialization.Encoding.DER, pkcs8, plain), 0o600)
        return Pair(self.certificates(name, issued.chain), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer_key: ec.EllipticCurvePublicKey,
    validity: _Validity,
) -> x509.CertificateBuilder:
    """The identifiers are there because Python 3.13 checks strictly (RFC 5280) by default."""
    since, until = validity
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), since, until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )


def _authority(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.add_extension(_key_usage(authority=True), critical=True)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
