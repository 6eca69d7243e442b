"""Revocation lists that lie on this host: what they say of a certificate. Nothing is fetched.

A list counts where the CA that issued the certificate has signed it. Where that CA's own certificate is not at hand the
signature cannot be checked, and what the list says is a hint and no more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import AuthorityInformationAccessOID

from mtlskit.errors import IdentityError
from mtlskit.pki.certificates import UNREADABLE, bounded_text, extension, is_issued_by, serial_number

__all__ = ["List", "Listed", "lists_in", "look_up", "published_at"]

_SUFFIXES = frozenset({".crl", ".pem"})
_MOST_ENTRIES = 1000
_MOST_FILES = 20
_LARGEST = 16 * 1024 * 1024
"""Bytes. Some 400,000 revoked certificates; larger lists are public CAs', and fetched by those who need them."""
_LARGEST_TOGETHER = 64 * 1024 * 1024
_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----[^-]+-----END X509 CRL-----")
_MOST_URLS = 3


@dataclass(frozen=True)
class List:
    """A list, and the file that it is in."""

    path: Path
    crl: x509.CertificateRevocationList


@dataclass(frozen=True)
class Listed:
    """What a list says of a certificate."""

    path: Path
    revoked_at: datetime | None
    """None: it is not on it."""
    reason: str
    signed: bool
    """The list's signature was checked with the certificate of the CA."""
    entries: int
    next_update: datetime | None


def lists_in(folders: Iterable[Path]) -> tuple[List, ...]:
    """Those in the files of these folders. Blocks on the disk; what cannot be read is left out."""
    found: list[List] = []
    left = _LARGEST_TOGETHER
    for folder in dict.fromkeys(folders):
        try:
            entries = sorted(islice(folder.iterdir(), _MOST_ENTRIES))
        except (OSError, ValueError):
            continue
        for path in [each for each in entries if each.suffix.lower() in _SUFFIXES][:_MOST_FILES]:
            content = _content(path, min(left, _LARGEST))
            left -= len(content)
            found += _lists(path, content)
    return tuple(found)


def _content(path: Path, most: int) -> bytes:
    """Nothing for what is larger, or no plain file."""
    with suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= most:
            with path.open("rb") as file:
                return file.read(most)
    return b""


def _lists(path: Path, content: bytes) -> list[List]:
    found = []
    with suppress(*UNREADABLE):
        if content.startswith(b"\x30"):
            found.append(List(path, x509.load_der_x509_crl(content)))
    for block in _BLOCK.finditer(content):
        with suppress(*UNREADABLE):
            found.append(List(path, x509.load_pem_x509_crl(block[0])))
    return found


def look_up(
    certificate: x509.Certificate, lists: Iterable[List], authorities: Sequence[x509.Certificate]
) -> tuple[Listed, ...]:
    """What each list of the certificate's CA says of it. `authorities`: where that CA's certificate may be."""
    issuers = [each for each in authorities if is_issued_by(certificate, each)]
    found = []
    for each in lists:
        try:
            if each.crl.issuer == certificate.issuer and (said := _said(certificate, each, issuers)):
                found.append(said)
        except UNREADABLE:
            continue
    return tuple(found)


def _said(certificate: x509.Certificate, listed: List, issuers: Sequence[x509.Certificate]) -> Listed | None:
    """None for a list that bears the CA's name and another's signature."""
    if issuers and not any(_signed(listed.crl, issuer) for issuer in issuers):
        return None
    line = listed.crl.get_revoked_certificate_by_serial_number(serial_number(certificate))
    reason = ""
    if line is not None:
        with suppress(x509.ExtensionNotFound, *UNREADABLE):
            reason = line.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    return Listed(
        listed.path,
        None if line is None else line.revocation_date_utc,
        reason,
        bool(issuers),
        len(listed.crl),
        listed.crl.next_update_utc,
    )


def _signed(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (InvalidSignature, *UNREADABLE):
        return False


def published_at(certificate: x509.Certificate) -> tuple[str, ...]:
    """Where its CA says that revocations can be asked for: lists (RFC 5280, 4.2.1.13) and OCSP (4.2.2.1)."""
    urls: list[str] = []
    with suppress(IdentityError):
        points = extension(certificate, x509.CRLDistributionPoints, source="")
        for point in points or ():
            urls += [name.value for name in point.full_name or () if isinstance(name, x509.UniformResourceIdentifier)]
    with suppress(IdentityError):
        access = extension(certificate, x509.AuthorityInformationAccess, source="")
        for place in access or ():
            name = place.access_location
            if place.access_method == AuthorityInformationAccessOID.OCSP and isinstance(
                name, x509.UniformResourceIdentifier
            ):
                urls.append(name.value)
    return tuple(bounded_text(url) for url in urls[:_MOST_URLS])
