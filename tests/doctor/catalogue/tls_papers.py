"""Certificates for the faults of TLS, each wrong in one way, as files."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.pki.keys import PrivateKey, generate_key
from tests.services.pki import Pair
from tests.support.openssl import openssl
from tests.support.x509_builder import Made, make_certificate

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LOCAL = ("localhost", "127.0.0.1")


def authority(
    name: str,
    issuer: Made | None = None,
    *,
    ends: datetime = NOW + 900 * DAY,
    begins: datetime = NOW - 100 * DAY,
    key: PrivateKey | None = None,
) -> Made:
    """A CA: a root, unless there is an issuer."""
    key = key or generate_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return make_certificate(
        name,
        issuer=issuer,
        key=key,
        begins=begins,
        ends=ends,
        ca=True,
        usages=None,
        digital_signature=False,
        further=(identifier,),
    )


def server(
    issuer: Made | None,
    *,
    names: Sequence[str] = LOCAL,
    ends: datetime = NOW + 300 * DAY,
    begins: datetime = NOW - 50 * DAY,
    key: PrivateKey | None = None,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Made:
    """A server's leaf; self-signed where there is no issuer."""
    alternatives = [x509.SubjectAlternativeName([_general(name) for name in names])] if names else []
    return make_certificate(
        "localhost", issuer=issuer, key=key, begins=begins, ends=ends, usages=(usage,), further=alternatives
    )


def client(issuer: Made, common_name: str = "client", *, ends: datetime = NOW + 300 * DAY) -> Made:
    """A client's leaf."""
    return make_certificate(common_name, issuer=issuer, begins=NOW - 50 * DAY, ends=ends)


def small_rsa() -> PrivateKey:
    """A key that OpenSSL takes for a server at security level 1 and no client takes at level 2."""
    return rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - it must be weak


def sha1_server(folder: Path, root: Made) -> Pair:
    """A leaf that is signed with SHA-1, which `cryptography` no longer makes."""
    leaf = server(root)
    pair = written(folder, "sha1", leaf)
    ca = written(folder, "sha1-ca", root)
    extensions = folder / "sha1.ext"
    extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    request = openssl("req", "-new", "-key", pair.key, "-subj", "/CN=localhost")
    made = openssl(
        "x509", "-req", "-sha1", "-days", "90", "-CA", ca.cert, "-CAkey", ca.key, "-extfile", extensions, stdin=request
    )
    pair.cert.write_bytes(made)
    return pair


def written(folder: Path, name: str, made: Made, *above: Made) -> Pair:
    """The pair as files, with certificates above it in its file."""
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.cert.write_bytes(made.cert_pem + b"".join(each.cert_pem for each in above))
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(made.key_pem)
    return pair


def anchors(folder: Path, *roots: Made) -> Path:
    """A file of trust anchors."""
    path = folder / "anchors.pem"
    path.write_bytes(b"".join(each.cert_pem for each in roots))
    return path


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
