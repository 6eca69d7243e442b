"""What a small CA makes of a request: its policy, for one of two profiles.

A request says what somebody *wishes*. Only two of its wishes are looked at, the subject and the alternative names, and
only as far as the profile allows; how a certificate may be used is the profile's to say. What is left out of a wish is
told in a note, so that nobody has to find out by a handshake that fails. What cannot be repaired by leaving something
out (a weak key, a name made to mislead, no name at all) is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from typing import NoReturn, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.certificates import bounded_text
from mtlskit.pki.keys import MIN_RSA_BITS
from mtlskit.pki.names import PART_LIMITS, fault_of
from mtlskit.pki.requests import MAX_ALTERNATIVES, alternative_name, alternative_text, public_key_text

__all__ = ["Grant", "Profile", "PublicKey", "grant"]

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class Profile(StrEnum):
    """What a certificate is for. Never for both: a stolen client key must not be able to play the server."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def purpose(self) -> x509.ObjectIdentifier:
        """The extended key usage that it grants."""
        return _CLIENT_AUTH if self is Profile.CLIENT else _SERVER_AUTH

    @property
    def lifetime(self) -> timedelta:
        """How long its certificates last unless somebody says otherwise."""
        return timedelta(days=365 if self is Profile.CLIENT else 397)


_CLIENT_AUTH, _SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_KINDS: dict[Profile, tuple[type[x509.GeneralName], ...]] = {
    Profile.CLIENT: (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier, x509.RFC822Name),
    Profile.SERVER: (x509.DNSName, x509.IPAddress),
}
_CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
"""Those of TLS 1.3 (RFC 8446, section 4.2.3) that every TLS library signs with."""

_MAX_RSA_BITS = 8192  # above it Go's TLS refuses a peer, and every handshake costs the host a second
_MAX_PARTS = 32  # of a subject; people and organisations have less than ten
_MAX_ALTERNATIVE = 1024  # characters
_SHOWN = 80  # characters of such a name in a note
_MAX_NOTES = 12  # a request may hold thousands of things to leave out
_MAX_NOTE = 200  # characters; the notes are kept in the ledger, whose lines are short

_USAGES = (
    ("digital_signature", "digitalSignature"),
    ("content_commitment", "nonRepudiation"),
    ("key_encipherment", "keyEncipherment"),
    ("data_encipherment", "dataEncipherment"),
    ("key_agreement", "keyAgreement"),
    ("key_cert_sign", "keyCertSign"),
    ("crl_sign", "cRLSign"),
)
_PURPOSES = {_CLIENT_AUTH: "clientAuth", _SERVER_AUTH: "serverAuth"}
_EXTENSION_REQUESTS = frozenset({"1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"})  # PKCS #9's, and Microsoft's


@dataclass(frozen=True)
class Grant:
    """What a request is granted. `notes` are sentences for people: what was left out, or added."""

    subject: x509.Name
    alternatives: tuple[x509.GeneralName, ...]
    public_key: PublicKey
    notes: tuple[str, ...]


def grant(request: x509.CertificateSigningRequest, profile: Profile, *, source: str) -> Grant:
    """The policy's answer to a request whose signature has been checked (`load_request`).

    Raises `IdentityError`: KEY_WEAK, CA_REQUEST_REFUSED.
    """
    notes: list[str] = []
    with warnings.catch_warnings():
        # cryptography warns of subjects that are odd, as they are parsed; here each is refused, or repaired.
        warnings.simplefilter("ignore")
        key = _usable_key(request, source)
        subject = _subject(request.subject, notes, source)
        alternatives = _alternatives(request, profile, notes, source)
        notes += _other_wishes(request, profile)
    if profile is Profile.SERVER and not alternatives:
        alternatives = _from_common_name(subject, notes, source)
    if profile is Profile.CLIENT and not list(subject):
        _refuse(source, "it has no subject, and a client is known by its subject", "ask with a name: CN=reporting")
    if len(notes) > _MAX_NOTES:
        notes = [*notes[:_MAX_NOTES], f"left out: {len(notes) - _MAX_NOTES} more wishes"]
    return Grant(subject, alternatives, key, tuple(note[:_MAX_NOTE] for note in notes))


def _refuse(source: str, why: str, hint: str) -> NoReturn:
    raise IdentityError(Code.CA_REQUEST_REFUSED, f"{source}: the request is refused: {why}", hint)


def _usable_key(request: x509.CertificateSigningRequest, source: str) -> PublicKey:
    try:
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise _weak(source, "of a kind that is not supported") from exc
    match key:
        case rsa.RSAPublicKey() if MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            return key
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVES:
            return key
        case ed25519.Ed25519PublicKey():
            return key
    raise _weak(source, public_key_text(key))


def _weak(source: str, what: str) -> IdentityError:
    return IdentityError(
        Code.KEY_WEAK,
        f"{source}: the request is refused: its key is {what}",
        f"RSA from {MIN_RSA_BITS} to {_MAX_RSA_BITS} bits, the curves P-256, P-384 and P-521, and Ed25519 will do;"
        " a new key: mtlskit keys new --out NEW_FILE",
    )


def _subject(name: x509.Name, notes: list[str], source: str) -> x509.Name:
    """The parts that are known, each encoded anew: a peer is to see the same bytes whoever made the request."""
    if len(list(name)) > _MAX_PARTS:
        _refuse(source, f"its subject has {len(list(name))} parts", f"use at most {_MAX_PARTS}")
    if len(name.get_attributes_for_oid(NameOID.COMMON_NAME)) > 1:
        # Servers differ in which of them they take for the user.
        _refuse(source, "its subject has more than one common name", "use one CN")
    kept = []
    for part in name.rdns:
        known = [_part(each, source) for each in part if each.oid in PART_LIMITS]
        for each in part:
            if each.oid not in PART_LIMITS:
                notes.append(f"left out: the part {bounded_text(each.oid.dotted_string)} of the subject")
        if known:
            kept.append(x509.RelativeDistinguishedName(known))
    return x509.Name(kept)


def _part(part: x509.NameAttribute[str | bytes], source: str) -> x509.NameAttribute[str]:
    fault = fault_of(part)
    if fault:
        _refuse(source, f"the part {part.rfc4514_attribute_name} of its subject {fault}", "write it in plain letters")
    return x509.NameAttribute(part.oid, str(part.value))


def _alternatives(
    request: x509.CertificateSigningRequest, profile: Profile, notes: list[str], source: str
) -> tuple[x509.GeneralName, ...]:
    try:
        asked = list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return ()
    if len(asked) > MAX_ALTERNATIVES:
        _refuse(source, f"it asks for {len(asked)} alternative names", f"use at most {MAX_ALTERNATIVES}")
    kept: dict[x509.GeneralName, None] = {}
    for name in asked:
        why_not = _why_not(name, profile)
        if why_not:
            text = bounded_text(alternative_text(name))
            notes.append(f"left out: {text if len(text) <= _SHOWN else text[:_SHOWN] + '…'}: {why_not}")
        else:
            kept[name] = None
    return tuple(kept)


def _why_not(name: x509.GeneralName, profile: Profile) -> str:
    """Why a name is not granted; nothing if it is."""
    if not isinstance(name, _KINDS[profile]):
        return f"the profile {profile} has no names of this kind"
    text = alternative_text(name)
    if len(text) > _MAX_ALTERNATIVE:
        return f"longer than {_MAX_ALTERNATIVE} characters"
    try:
        alternative_name(text)
    except ValueError as exc:
        return str(exc)
    if not isinstance(name, x509.DNSName):
        return ""
    if _is_address(name.value):
        return "an address is asked for as IP:, not as DNS:"
    if name.value.startswith("*.") and profile is not Profile.SERVER:
        return "wildcards are for servers"
    if name.value.startswith("*.") and name.value.count(".") < 2:
        return "clients match no wildcard over a whole top-level domain"
    return ""


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _from_common_name(subject: x509.Name, notes: list[str], source: str) -> tuple[x509.GeneralName, ...]:
    """A server without alternative names is known by none (RFC 9525, section 2), so its common name becomes one."""
    for part in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        text = str(part.value)
        kind = "IP" if _is_address(text) else "DNS"
        try:
            name = alternative_name(f"{kind}:{text}")
        except ValueError:
            continue
        if not _why_not(name, Profile.SERVER):
            notes.append(
                f"added: {alternative_text(name)}, from the common name; clients look at alternative names only"
            )
            return (name,)
    _refuse(
        source,
        "it names no host, and a server is known by its DNS names and addresses",
        "ask with --san DNS:NAME or --san IP:ADDRESS",
    )


def _other_wishes(request: x509.CertificateSigningRequest, profile: Profile) -> Iterator[str]:
    """A note for each wish that is not about a name."""
    for extension in request.extensions:
        match extension.value:
            case x509.SubjectAlternativeName() | x509.SubjectKeyIdentifier():
                pass  # looked at already; and computed from the key
            case x509.BasicConstraints(ca=asks_for_ca):
                if asks_for_ca:
                    yield "left out: the wish to be a CA (CA:TRUE)"
            case x509.KeyUsage() as usage:
                more = [name for field, name in _USAGES if getattr(usage, field) and field != "digital_signature"]
                if more:
                    yield f"left out: key usage {', '.join(more)}; a leaf signs handshakes, nothing else"
            case x509.ExtendedKeyUsage() as usages:
                more = [_PURPOSES.get(each, each.dotted_string) for each in usages if each != profile.purpose]
                if more:
                    granted = _PURPOSES[profile.purpose]
                    yield f"left out: extended key usage {bounded_text(', '.join(more))}; {profile}s get {granted}"
            case _:
                critical = ", critical" if extension.critical else ""
                yield f"left out: the extension {bounded_text(extension.oid.dotted_string)}{critical}"
    yield from _attributes(request)


def _attributes(request: x509.CertificateSigningRequest) -> Iterator[str]:
    """Never their values: one of them is a password (RFC 2985, section 5.4.1)."""
    try:
        names = [attribute.oid.dotted_string for attribute in request.attributes]
    except ValueError:
        yield "left out: attributes that cannot be read"
        return
    for name in names:
        if name not in _EXTENSION_REQUESTS:
            yield f"left out: the attribute {bounded_text(name)}"
