"""A file of certificates looked into for a person: each one's facts, the chain they make, and whether a key fits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from mtlskit.pki.bundles import Bundle, Form, read_bundle
from mtlskit.pki.chains import Chain, assemble, belongs_to, is_ca, is_self_signed
from mtlskit.pki.facts import CertificateFacts, certificate_facts
from mtlskit.pki.identity import MAX_ANCHORS
from mtlskit.pki.keys import PrivateKey, spki_sha256_of_key
from mtlskit.pki.requests import public_key_text

__all__ = ["Inspection", "KeyFacts", "inspect"]


@dataclass(frozen=True)
class KeyFacts:
    """A private key, as far as one may speak of it."""

    source: str
    kind: str
    spki_sha256: str
    """Lower-case hexadecimal."""
    fits: str | None
    """The subject of the certificate that it belongs to; None: of none."""


@dataclass(frozen=True)
class Inspection:
    """What was found. `certificates` stand in the order of the chain, then what is no part of it."""

    source: str
    form: Form
    certificates: tuple[CertificateFacts, ...]
    chain: tuple[str, ...] = ()
    """The subjects of the chain, leaf first; empty where the file is a collection of CAs."""
    root_included: bool = False
    open_end: str | None = None
    gaps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    key: KeyFacts | None = None

    @property
    def good(self) -> bool:
        """No key that fits nothing, and all certificates within their dates."""
        fits = self.key is None or not self.certificates or self.key.fits is not None
        return fits and all(facts.valid for facts in self.certificates)


def inspect(
    data: bytes,
    *,
    source: str,
    now: datetime,
    passphrase: bytes | None = None,
    key: tuple[str, bytes] | None = None,
) -> Inspection:
    """What `data` holds, at `now` (aware). `key` names and holds a key from elsewhere, which must then be readable.

    Raises `IdentityError`, as `read_bundle` does.
    """
    bundle = read_bundle(data, source=source, passphrase=passphrase, key_optional=True, limit=MAX_ANCHORS)
    notes = bundle.notes
    private, key_source = bundle.key, source
    if key is not None:
        key_source = key[0]
        other = read_bundle(key[1], source=key_source, passphrase=passphrase)
        private = other.key
        notes += other.notes if private else (f"{key_source}: there is no private key in it",)
    chain = _chain(bundle, private)
    certificates = bundle.certificates
    if chain is not None:
        certificates = (*chain.certificates, *chain.leftovers)
        notes += chain.notes
    facts = {certificate: certificate_facts(certificate, now) for certificate in certificates}
    return Inspection(
        source=source,
        form=bundle.form,
        certificates=tuple(facts.values()),
        chain=() if chain is None else tuple(facts[certificate].subject for certificate in chain.certificates),
        root_included=chain is not None and is_self_signed(chain.certificates[-1]),
        open_end=None if chain is None else chain.open_end,
        gaps=() if chain is None else chain.gaps,
        notes=notes,
        key=None if private is None else _key_facts(private, key_source, certificates, facts),
    )


def _chain(bundle: Bundle, key: PrivateKey | None) -> Chain | None:
    """The chain, but of a collection of CAs (a trust store), which is none."""
    if not bundle.certificates:
        return None
    chain = assemble(bundle.certificates, key)
    collection = chain.leftovers and all(is_ca(each) or is_self_signed(each) for each in bundle.certificates)
    return None if collection and not (key and belongs_to(key, chain.leaf)) else chain


def _key_facts(
    key: PrivateKey,
    source: str,
    certificates: tuple[x509.Certificate, ...],
    facts: dict[x509.Certificate, CertificateFacts],
) -> KeyFacts:
    owner = next((certificate for certificate in certificates if belongs_to(key, certificate)), None)
    return KeyFacts(
        source=source,
        kind=public_key_text(key.public_key()),
        spki_sha256=spki_sha256_of_key(key).hex(),
        fits=None if owner is None else facts[owner].subject or f"serial {facts[owner].serial}",
    )
