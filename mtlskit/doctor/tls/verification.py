"""Why a chain is not trusted, more closely than OpenSSL says: which certificate it is about, and who has to mend it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509

from mtlskit.doctor.tls.signatures import Signatures, TooCostlyError
from mtlskit.errors import Code, IdentityError, UpstreamError, UpstreamUntrusted
from mtlskit.pki.certificates import bounded_text, extension, issuer_text, subject_text

__all__ = ["Anchors", "Shown", "nearer"]

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


@dataclass(frozen=True)
class Shown:
    """What a server has presented, as far as it is looked at."""

    chain: Sequence[x509.Certificate]
    """Leaf first."""
    more: int = 0
    """Certificates behind those."""
    signatures: Signatures = field(default_factory=Signatures)


def nearer(error: UpstreamError, where: str, shown: Shown, anchors: Anchors, now: datetime) -> UpstreamError:
    """The same failure in closer words, where there are any that cost no more than `Signatures`. `now` is aware.

    Takes up to 0.1 s of computing.
    """
    if not shown.chain:
        return error
    try:
        if error.code is Code.TLS_SERVER_EXPIRED:
            return _dates(error, where, shown, anchors, now)
        if error.code is Code.TLS_CHAIN_NOT_TRUSTED:
            return _incomplete(where, shown, anchors) or _renewed(where, shown, anchors) or _own_root(error, shown)
    except TooCostlyError:
        pass
    return error


def _anchors_above(shown: Shown, anchors: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The trust anchors that issued one of the chain and do not stand in it themselves."""
    issuers = {each.issuer for each in shown.chain}
    candidates = [each for each in anchors if each.subject in issuers and each not in shown.chain]
    return [each for each in candidates if any(shown.signatures.issued(each, one) for one in shown.chain)]


def _dates(error: UpstreamError, where: str, shown: Shown, anchors: Anchors, now: datetime) -> UpstreamError:
    """Another than the leaf is outside its dates."""
    leaf, *rest = shown.chain
    if _outside(leaf, now):
        return error
    for certificate in (*_anchors_above(shown, anchors.certificates), *rest):
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


def _incomplete(where: str, shown: Shown, anchors: Anchors) -> UpstreamError | None:
    """The issuer of the last certificate is an intermediate, and it is not there."""
    if shown.more:
        return None  # it may be among those
    last = _last(shown)
    if last is None or any(each.subject == last.issuer for each in anchors.certificates):
        return None
    issuer = issuer_text(last)
    why = ""
    if any(shown.signatures.issued(own, last) and not shown.signatures.self_signed(own) for own in anchors.ours):
        why = "our own certificate file holds it"
    elif above := _named_above(last):
        why = f"its own issuer is {above}"
    elif not (_SUBORDINATE.search(issuer) or (anchors.of_system and len(shown.chain) == 1 and _says_where(last))):
        return None
    return UpstreamUntrusted(
        Code.TLS_SERVER_CHAIN_INCOMPLETE,
        f"{where} presents {subject_text(last)} and not the certificate of the intermediate CA that issued it, {issuer}"
        + (f" ({why})" if why else ""),
        "whoever runs the server has to append the intermediate certificate to its certificate file (PostgreSQL:"
        " ssl_cert_file); until then, append it to the file given as `ca` (--ca)",
    )


def _last(shown: Shown) -> x509.Certificate | None:
    """The highest certificate that is reached from the leaf; None where it is a root."""
    current = shown.chain[0]
    for _ in shown.chain:
        if shown.signatures.self_signed(current):
            return None
        others = (each for each in shown.chain if each is not current)
        above = next((each for each in others if shown.signatures.issued(each, current)), None)
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


def _renewed(where: str, shown: Shown, anchors: Anchors) -> UpstreamError | None:
    """A trust anchor has the issuer's name and another key."""
    for certificate in _not_issued(shown):
        namesakes = [each for each in anchors.certificates if each.subject == certificate.issuer]
        if namesakes and not any(shown.signatures.issued(each, certificate) for each in namesakes):
            return UpstreamUntrusted(
                Code.TLS_CHAIN_NOT_TRUSTED,
                f"{where} presents {subject_text(certificate)}, which another key has signed than that of the CA of the"
                f" same name in {anchors.told}",
                "the CA was made anew: give its current certificate as `ca` (--ca), if it is the right server",
            )
    return None


def _not_issued(shown: Shown) -> Iterator[x509.Certificate]:
    for certificate in shown.chain:
        others = (other for other in shown.chain if other is not certificate)
        if not any(shown.signatures.issued(other, certificate) for other in others):
            yield certificate


def _own_root(error: UpstreamError, shown: Shown) -> UpstreamError:
    """A certificate that nobody but the server itself has signed."""
    if len(shown.chain) > 1 or not shown.signatures.self_signed(shown.chain[0]):
        return error
    return type(error)(
        error.code,
        error.sentence,
        "no CA has signed it but the server itself: ask whoever runs the server for this certificate or its"
        " fingerprint, and give it as `ca` (--ca); what is presented there shows the command below",
    )
