"""Why a chain is not trusted, more closely than OpenSSL says: which certificate it is about, and who has to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from mtlskit.errors import Code, IdentityError, UpstreamError, UpstreamUntrusted
from mtlskit.pki.certificates import bounded_text, extension, is_issued_by, issuer_text, subject_text
from mtlskit.pki.chains import is_self_signed

__all__ = ["Anchors", "nearer"]

_SUBORDINATE: Final = re.compile(r"intermediate|issuing|subordinate|\bsub[- ]?ca\b", re.IGNORECASE)
"""What people call a CA that is no root."""


@dataclass(frozen=True)
class Anchors:
    """What the chain was compared with."""

    certificates: Sequence[x509.Certificate]
    """Empty for the system's roots."""
    told: str
    """For sentences."""
    of_system: bool
    ours: Sequence[x509.Certificate] = ()
    """Our own chain: an intermediate that servers have as well may stand there."""


def nearer(
    error: UpstreamError, where: str, chain: Sequence[x509.Certificate], anchors: Anchors, now: datetime
) -> UpstreamError:
    """The same failure in closer words, where there are any. `now` is aware."""
    if not chain:
        return error
    if error.code is Code.TLS_SERVER_EXPIRED:
        return _dates(error, where, chain, anchors, now)
    if error.code is Code.TLS_CHAIN_NOT_TRUSTED:
        return _incomplete(where, chain, anchors) or _renewed(where, chain, anchors) or _own_root(error, where, chain)
    return error


def _anchors_above(chain: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The trust anchors that issued one of the chain and do not stand in it themselves."""
    issuers = {each.issuer for each in chain}
    candidates = [each for each in anchors if each.subject in issuers and each not in chain]
    return [each for each in candidates if any(is_issued_by(one, each) for one in chain)]


def _dates(
    error: UpstreamError, where: str, chain: Sequence[x509.Certificate], anchors: Anchors, now: datetime
) -> UpstreamError:
    """Another than the leaf is outside its dates."""
    leaf, *rest = chain
    if _outside(leaf, now):
        return error
    for certificate in (*_anchors_above(chain, anchors.certificates), *rest):
        trouble = _outside(certificate, now)
        if not trouble:
            continue
        sentence = f"{where} presents a chain that is outside its dates: the CA {subject_text(certificate)} {trouble}"
        if certificate in anchors.certificates:
            sentence += f"; it stands in {anchors.told}"
            hint = "give the server's current CA certificate as `ca` (--ca); the server may need a new one from it, too"
        else:
            hint = "whoever runs the server has to replace that CA certificate in the chain that it presents"
        return UpstreamUntrusted(Code.TLS_SERVER_EXPIRED, sentence, hint)
    return error


def _outside(certificate: x509.Certificate, now: datetime) -> str:
    if now > certificate.not_valid_after_utc:
        return f"has expired on {certificate.not_valid_after_utc.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return ""


def _incomplete(where: str, chain: Sequence[x509.Certificate], anchors: Anchors) -> UpstreamError | None:
    """The issuer of the last certificate is an intermediate, and it is not there."""
    last = _last(chain)
    if last is None or any(each.subject == last.issuer for each in anchors.certificates):
        return None
    issuer = issuer_text(last)
    why = ""
    if any(is_issued_by(last, own) and not is_self_signed(own) for own in anchors.ours):
        why = "our own certificate file holds it"
    elif above := _named_above(last):
        why = f"its own issuer is {above}"
    elif not (_SUBORDINATE.search(issuer) or (anchors.of_system and len(chain) == 1 and _says_where(last))):
        return None
    return UpstreamUntrusted(
        Code.TLS_SERVER_CHAIN_INCOMPLETE,
        f"{where} presents {subject_text(last)} and not the certificate of the intermediate CA that issued it, {issuer}"
        + (f" ({why})" if why else ""),
        "whoever runs the server has to append the intermediate certificate to its certificate file (PostgreSQL:"
        " ssl_cert_file); until then, append it to the file given as `ca` (--ca)",
    )


def _last(chain: Sequence[x509.Certificate]) -> x509.Certificate | None:
    """The highest certificate that is reached from the leaf; None where it is a root."""
    current = chain[0]
    for _ in chain:
        if is_self_signed(current):
            return None
        above = next((each for each in chain if each is not current and is_issued_by(current, each)), None)
        if above is None:
            return current
        current = above
    return None


def _named_above(last: x509.Certificate) -> str:
    """Who issued the issuer, where the authority key identifier says so; a root would name itself."""
    with suppress(IdentityError):
        identifier = extension(last, x509.AuthorityKeyIdentifier, source="")
        for name in (identifier.authority_cert_issuer or ()) if identifier is not None else ():
            if isinstance(name, x509.DirectoryName) and name.value != last.issuer:
                return bounded_text(name.value.rfc4514_string())
    return ""


def _says_where(last: x509.Certificate) -> bool:
    """It says where its issuer's certificate can be had (RFC 5280 section 4.2.2.1), as those of public CAs do."""
    with suppress(IdentityError):
        access = extension(last, x509.AuthorityInformationAccess, source="")
        wanted = x509.oid.AuthorityInformationAccessOID.CA_ISSUERS
        return access is not None and any(each.access_method == wanted for each in access)
    return False


def _renewed(where: str, chain: Sequence[x509.Certificate], anchors: Anchors) -> UpstreamError | None:
    """A trust anchor has the issuer's name and another key."""
    for certificate in _not_issued(chain):
        namesakes = [each for each in anchors.certificates if each.subject == certificate.issuer]
        if namesakes and not any(is_issued_by(certificate, each) for each in namesakes):
            return UpstreamUntrusted(
                Code.TLS_CHAIN_NOT_TRUSTED,
                f"{where} presents {subject_text(certificate)}, which another key has signed than that of the CA of the"
                f" same name in {anchors.told}",
                "the CA was made anew: give its current certificate as `ca` (--ca), if it is the right server",
            )
    return None


def _not_issued(chain: Sequence[x509.Certificate]) -> Iterator[x509.Certificate]:
    for certificate in chain:
        if not any(is_issued_by(certificate, other) for other in chain if other is not certificate):
            yield certificate


def _own_root(error: UpstreamError, where: str, chain: Sequence[x509.Certificate]) -> UpstreamError:
    """A certificate that nobody but the server itself has signed."""
    if len(chain) > 1 or not is_self_signed(chain[0]):
        return error
    return type(error)(
        error.code,
        error.sentence,
        "no CA has signed it but the server itself: ask whoever runs the server for this certificate or its"
        " fingerprint, and give it as `ca` (--ca); what is presented there shows the command below",
    )
