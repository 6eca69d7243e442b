"""One identity out of several files: certificates here, the key there, an archive with both, in any combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.bundles import Bundle, read_bundle
from mtlskit.pki.certificates import certificates_pem
from mtlskit.pki.chains import belongs_to, is_ca
from mtlskit.pki.identity import MAX_ANCHORS, CheckedPair, check_loaded
from mtlskit.pki.keys import PrivateKey, spki_sha256_of_key

__all__ = ["CheckedMaterial", "gather", "read_roots"]

Named = tuple[str, bytes]
"""A source's name, and what it holds."""


@dataclass(frozen=True)
class CheckedMaterial:
    """An identity that passed the checks, with the server's CAs if they were given."""

    pair: CheckedPair
    roots: tuple[x509.Certificate, ...] = ()
    notes: tuple[str, ...] = ()
    """What was left out, put in order, or deserves a word; `pair.warnings` are among them."""
    encrypted: bool = field(default=False, repr=False)

    @property
    def cert_pem(self) -> bytes:
        """The leaf and its issuers."""
        return self.pair.chain_pem

    @property
    def key_pem(self) -> bytes:
        """The key, PKCS #8, without a passphrase. A secret."""
        return self.pair.key_pem

    @property
    def root_pem(self) -> bytes | None:
        """The CAs that the server is checked against; None where none were given."""
        return certificates_pem(self.roots) if self.roots else None


def gather(
    sources: Sequence[Named],
    *,
    now: datetime,
    passphrase: bytes | None = None,
    roots: Named | None = None,
    strict: bool = True,
) -> CheckedMaterial:
    """The identity in `sources`, checked at `now` (aware); `strict` as in `check_pair`. `roots` are the server's CAs.

    Raises `IdentityError`: those of `read_bundle` and `check_pair`; PEM_WRONG_KIND where nothing holds a key, or a
    certificate.
    """
    bundles = [(name, read_bundle(data, source=name, passphrase=passphrase)) for name, data in sources]
    certificates = [certificate for _, bundle in bundles for certificate in bundle.certificates]
    told = ", ".join(name for name, _ in bundles)
    key_source, key = _key_of(bundles, certificates, told)
    if not certificates:
        raise IdentityError(
            Code.PEM_WRONG_KIND,
            f"{told}: a private key without a certificate",
            "give the file with the certificate that was issued for it as well",
        )
    # Commands in hints take one file: the one with the certificate that is meant, as far as that can be told.
    holders = [name for name, bundle in bundles if bundle.certificates]
    owners = [name for name, bundle in bundles if any(belongs_to(key, each) for each in bundle.certificates)]
    cert_source = (owners or holders)[0]
    pair = check_loaded(certificates, key, now=now, cert_source=cert_source, key_source=key_source, strict=strict)
    notes = [note for _, bundle in bundles for note in bundle.notes]
    return CheckedMaterial(
        pair,
        () if roots is None else read_roots(roots),
        (*notes, *pair.warnings),
        any(bundle.encrypted for _, bundle in bundles),
    )


def read_roots(named: Named) -> tuple[x509.Certificate, ...]:
    """The server's CAs in a file of any form. Raises `IdentityError`: those of `read_bundle`; PEM_WRONG_KIND."""
    source, data = named
    bundle = read_bundle(data, source=source, key_optional=True, limit=MAX_ANCHORS)
    if not bundle.certificates or not any(_may_be_root(each) for each in bundle.certificates):
        raise IdentityError(
            Code.PEM_WRONG_KIND,
            f"{source} holds no CA certificate",
            "give the CA that the server's certificate leads to, such as root.crt",
        )
    return bundle.certificates


def _may_be_root(certificate: x509.Certificate) -> bool:
    """A server's self-signed certificate is its own anchor, and old roots carry no constraints."""
    return is_ca(certificate) or certificate.issuer == certificate.subject


def _key_of(
    bundles: Sequence[tuple[str, Bundle]], certificates: Sequence[x509.Certificate], told: str
) -> tuple[str, PrivateKey]:
    """The key that a certificate is for, or the only one, and where it stands."""
    keys = {spki_sha256_of_key(bundle.key): (name, bundle.key) for name, bundle in bundles if bundle.key is not None}
    if not keys:
        raise IdentityError(
            Code.PEM_WRONG_KIND,
            f"{told}: there is no private key",
            "give the file with the key as well (--key FILE), or an archive that holds both",
        )
    fitting = [
        (name, key) for name, key in keys.values() if any(belongs_to(key, certificate) for certificate in certificates)
    ]
    return fitting[0] if fitting else next(iter(keys.values()))
