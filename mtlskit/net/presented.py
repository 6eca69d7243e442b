"""What a server has presented, in words: for the sentence that says why we do not trust it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from mtlskit.errors import IdentityError
from mtlskit.pki.certificates import bounded_text, extension, issuer_text, load_certificates, subject_text

__all__ = ["Presented", "presented"]

_NAMES_TOLD = 3
"""Names of a certificate that an error lists; a shared one may hold a hundred."""


@dataclass(frozen=True)
class Presented:
    """A server's leaf certificate, unverified: the words are a stranger's, escaped and bounded."""

    subject: str
    issuer: str
    names: str
    begins: datetime | None = None
    """Aware, UTC; and so is `ends`."""
    ends: datetime | None = None


def presented(leaf: bytes | None) -> Presented | None:
    """What to say of this certificate (DER); None where there is none, or none that can be read."""
    if leaf is None:
        return None
    source = "the server's certificate"
    try:
        (certificate,) = load_certificates(ssl.DER_cert_to_PEM_cert(leaf).encode("ascii"), source=source)
        names = _names(extension(certificate, x509.SubjectAlternativeName, source=source) or ())
    except IdentityError:
        return None
    subject = subject_text(certificate)
    dates = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Presented(subject, issuer_text(certificate), names or subject, *dates)


def _names(found: x509.SubjectAlternativeName | tuple[()]) -> str:
    kinds = (x509.DNSName, x509.IPAddress)
    names = [bounded_text(str(name.value)) for name in found if isinstance(name, kinds)]
    more = len(names) - _NAMES_TOLD
    return ", ".join(names[:_NAMES_TOLD]) + (f" and {more} more" if more > 0 else "")
