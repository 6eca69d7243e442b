"""Which certificates of a heap make a chain: the leaf, then each issuer after what it signed, and what is missing.

A file may hold its certificates in any order, twice, or with others among them. The leaf is the one that the key
belongs to; without a key, the one that signed none of the others. A root at the end is as good as none, because the
other side has its own: the chain is then open, which is no gap. A gap is where the next issuer is missing and there are
certificates left over, or one with its name that did not sign.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509

from mtlskit.errors import IdentityError
from mtlskit.pki.certificates import extension, is_issued_by, issuer_text, public_key_der_of, subject_text
from mtlskit.pki.keys import PrivateKey, public_key_der

__all__ = ["Chain", "assemble", "belongs_to", "follow", "is_ca", "is_self_signed"]

_NAMED = 5
"""Certificates that a note names; a heap may hold a hundred."""


@dataclass(frozen=True)
class Chain:
    """The chain of a heap of certificates. `certificates` begins with the leaf; each issuer follows what it signed."""

    certificates: tuple[x509.Certificate, ...]
    reordered: bool = False
    duplicates: tuple[x509.Certificate, ...] = ()
    leftovers: tuple[x509.Certificate, ...] = ()
    """What is no part of the chain."""
    gaps: tuple[str, ...] = ()
    """Sentences that name what is missing."""
    open_end: str | None = None
    """The issuer of the last certificate, where that is not in the file: the other side should have it."""

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed to get from the file to the chain, as sentences."""
        notes = []
        if self.reordered:
            notes.append(f"the certificates were put in order, {subject_text(self.leaf)} first, then its issuers")
        if self.duplicates:
            notes.append(f"certificates that stand there more than once are taken once: {_names(self.duplicates)}")
        if self.leftovers:
            notes.append(f"certificates that are no part of the chain are left out: {_names(self.leftovers)}")
        return tuple(notes)


def assemble(certificates: Sequence[x509.Certificate], key: PrivateKey | None = None) -> Chain:
    """The chain in `certificates` (at least one), from the leaf that `key` belongs to, as far as one does.

    Of several certificates for one key, the one that lasts longest is taken.
    """
    distinct = tuple(dict.fromkeys(certificates))
    matching = [certificate for certificate in distinct if key is not None and belongs_to(key, certificate)]
    leaf = max(matching, key=lambda found: found.not_valid_after_utc) if matching else _leaf_of(distinct)
    return follow(leaf, certificates)


def follow(leaf: x509.Certificate, certificates: Sequence[x509.Certificate]) -> Chain:
    """The chain from `leaf`, which is one of `certificates`.

    Every issuer found is kept, a cross-signed one in each of its forms: the other side's anchor may be above either.
    """
    distinct = tuple(dict.fromkeys(certificates))
    chain = [leaf]
    for certificate in chain:  # grows while it is walked
        if is_self_signed(certificate):
            continue  # a root; another one with its name and key is its renewal, and not its issuer
        chain.extend(other for other in distinct if other not in chain and is_issued_by(certificate, other))
    leftovers = tuple(certificate for certificate in distinct if certificate not in chain)
    counted = Counter(certificates)
    ends = [certificate for certificate in chain if not _has_issuer(certificate, chain)]
    return Chain(
        tuple(chain),
        reordered=[certificate for certificate in distinct if certificate in chain] != chain,
        duplicates=tuple(certificate for certificate in distinct if counted[certificate] > 1),
        leftovers=leftovers,
        gaps=tuple(gap for end in ends if (gap := _gap(end, leftovers))),
        open_end=issuer_text(ends[0]) if ends else None,
    )


def belongs_to(key: PrivateKey, certificate: x509.Certificate) -> bool:
    """Whether `certificate` is for `key`."""
    return public_key_der_of(certificate) == public_key_der(key)


def is_self_signed(certificate: x509.Certificate) -> bool:
    """Whether the certificate is signed with its own key, as a root is."""
    return is_issued_by(certificate, certificate)


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate may sign others (basicConstraints CA:TRUE). What cannot be read says no."""
    try:
        constraints = extension(certificate, x509.BasicConstraints, source="")
    except IdentityError:
        return False
    return constraints is not None and constraints.ca


def _leaf_of(certificates: Sequence[x509.Certificate]) -> x509.Certificate:
    """The first that signed none of the others; one that is no CA, if there is one."""
    issuers = {certificate.issuer for certificate in certificates if certificate.issuer != certificate.subject}
    tips = [certificate for certificate in certificates if certificate.subject not in issuers] or list(certificates)
    return next((tip for tip in tips if not is_ca(tip)), tips[0])


def _has_issuer(certificate: x509.Certificate, chain: Sequence[x509.Certificate]) -> bool:
    return any(is_issued_by(certificate, other) for other in chain)


def _gap(end: x509.Certificate, leftovers: Sequence[x509.Certificate]) -> str | None:
    if any(other.subject == end.issuer for other in leftovers):
        return (
            f"the certificate of {issuer_text(end)} in the file did not sign {subject_text(end)}:"
            " it has the issuer's name and another key"
        )
    if any(is_ca(other) for other in leftovers):
        return f"the issuer {issuer_text(end)} of {subject_text(end)} is not in the file"
    return None


def _names(certificates: Sequence[x509.Certificate]) -> str:
    names = [subject_text(certificate) for certificate in certificates[:_NAMED]]
    if len(certificates) > _NAMED:
        names.append(f"{len(certificates) - _NAMED} more")
    return "; ".join(names)
