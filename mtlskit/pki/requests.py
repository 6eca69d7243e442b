"""Certificate requests (PKCS #10, RFC 2986): made for a key, and read back with their signature checked.

What is made asks for what a leaf may be used for (key usage, extended key usage) beside its names: a CA that copies
wishes then issues the right kind, and one that has a policy of its own decides anyway.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from base64 import b64encode
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.errors import Code, IdentityError
from mtlskit.pki import der, pem
from mtlskit.pki.certificates import bounded_text
from mtlskit.pki.keys import PrivateKey
from mtlskit.pki.names import fault_of

__all__ = [
    "RequestFacts",
    "Usage",
    "Wishes",
    "alternative_name",
    "alternative_text",
    "load_request",
    "make_request",
    "public_key_text",
    "request_facts",
    "subject_name",
]

REQUEST_LABELS = frozenset({"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"})

MAX_ALTERNATIVES = 100
"""Names that one request may ask for. Public CAs stop at a hundred too."""

_WANTED = "a certificate request"
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)

# RFC 1123 section 2.1, with the underscore that service names have, and a wildcard as the whole first label.
_LABEL = r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_EMAIL = re.compile(rf"[^\s@\x00-\x1f\x7f-\U0010ffff]{{1,64}}@{_LABEL}(?:\.{_LABEL})*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+")


class Usage(StrEnum):
    """What a certificate is to be for."""

    CLIENT = "client"
    SERVER = "server"


_PURPOSES = {Usage.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH, Usage.SERVER: ExtendedKeyUsageOID.SERVER_AUTH}
_PURPOSE_NAMES = {ExtendedKeyUsageOID.CLIENT_AUTH: "clientAuth", ExtendedKeyUsageOID.SERVER_AUTH: "serverAuth"}


@dataclass(frozen=True)
class Wishes:
    """What a request asks for."""

    subject: x509.Name
    alternatives: tuple[x509.GeneralName, ...] = ()
    usages: tuple[Usage, ...] = (Usage.CLIENT,)


def subject_name(text: str) -> x509.Name:
    """The name that `text` writes as RFC 4514 does, most specific part first: ``CN=reporting,O=Example``.

    Raises ValueError, with a reason for people.
    """
    if text.lstrip().startswith("/"):
        raise ValueError("this is OpenSSL's old way to write it; write CN=reporting,O=Example")
    try:
        name = x509.Name.from_rfc4514_string(text)
    except (ValueError, KeyError) as exc:
        why = f" ({exc})" if str(exc) else ""
        raise ValueError(f"not a name as RFC 4514 writes it, such as CN=reporting,O=Example{why}") from exc
    if not list(name):
        raise ValueError("it is empty; write CN=reporting, for instance")
    for part in name:
        if fault := fault_of(part):
            raise ValueError(f"the part {part.rfc4514_attribute_name} {fault}")
    return name


def alternative_name(text: str) -> x509.GeneralName:
    """The subject alternative name that ``DNS:bi.example.com``, ``IP:192.0.2.7``, ``URI:…`` or ``email:…`` writes.

    Raises ValueError, with a reason for people.
    """
    kind, colon, value = text.partition(":")
    match kind.lower() if colon else "":
        case "dns" if _DNS_NAME.fullmatch(value):
            return x509.DNSName(value)
        case "dns":
            raise ValueError("not a DNS name in ASCII (an international one is written as xn--…)")
        case "ip":
            try:
                return x509.IPAddress(ip_address(value))
            except ValueError:
                raise ValueError("not an IP address") from None
        case "uri" if _URI.fullmatch(value):
            return x509.UniformResourceIdentifier(value)
        case "uri":
            raise ValueError("not a URI in ASCII, such as spiffe://example.com/bi")
        case "email" if _EMAIL.fullmatch(value):
            return x509.RFC822Name(value)
        case "email":
            raise ValueError("not an e-mail address in ASCII")
    raise ValueError("write DNS:NAME, IP:ADDRESS, URI:URI or email:ADDRESS")


def alternative_text(name: x509.GeneralName) -> str:
    """The name as `alternative_name` takes it; of other kinds, what they are."""
    match name:
        case x509.DNSName(value=value):
            return f"DNS:{value}"
        case x509.IPAddress(value=value):
            return f"IP:{value}"
        case x509.UniformResourceIdentifier(value=value):
            return f"URI:{value}"
        case x509.RFC822Name(value=value):
            return f"email:{value}"
        case x509.DirectoryName(value=value):
            return f"directory:{value.rfc4514_string()}"
    return f"other:{type(name).__name__}"


def make_request(key: PrivateKey, wishes: Wishes) -> bytes:
    """A request for `key`, signed with it, as PEM. Raises ValueError for more than `MAX_ALTERNATIVES` names."""
    if len(wishes.alternatives) > MAX_ALTERNATIVES:
        raise ValueError(f"{len(wishes.alternatives)} alternative names; {MAX_ALTERNATIVES} are the most")
    builder = x509.CertificateSigningRequestBuilder().subject_name(wishes.subject)
    builder = builder.add_extension(_key_usage(), critical=True)
    if wishes.usages:
        purposes = [_PURPOSES[usage] for usage in wishes.usages]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if wishes.alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(wishes.alternatives), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


def load_request(data: bytes, *, source: str) -> x509.CertificateSigningRequest:
    """The first request in `data`, PEM or DER, with a good signature: its sender has the key.

    Raises `IdentityError`: PEM_WRONG_KIND, PEM_DAMAGED, PEM_TOO_LARGE, REQUEST_NOT_SIGNED.
    """
    where, encoded = _find(data, source)
    try:
        with warnings.catch_warnings():
            # cryptography warns of odd but readable names (a common name of 70 characters) with words that help nobody.
            warnings.simplefilter("ignore")
            request = x509.load_der_x509_csr(encoded)
            # Parsed when asked for: what is odd in there shall be found here, where it has a name.
            signed = request.is_signature_valid
            _ = request.subject, list(request.extensions), request.public_key()
    except _UNREADABLE as exc:
        raise IdentityError(
            Code.PEM_DAMAGED,
            f"{where} is damaged or of a kind that is not supported",
            f"take the file from its origin again; to see what OpenSSL says: openssl req -in {source} -noout -text",
        ) from exc
    if not signed:
        raise IdentityError(
            Code.REQUEST_NOT_SIGNED,
            f"{where} is not signed with the key that it is for",
            "whoever sends it may not have the key, or the request was changed; have it made again",
        )
    return request


def _find(data: bytes, source: str) -> tuple[str, bytes]:
    if len(data) <= pem.MAX_BYTES and der.describe(data) == "a DER certificate request":
        return source, data
    blocks = pem.scan(data, source=source, wanted=_WANTED)
    block = next((block for block in blocks if block.label in REQUEST_LABELS), None)
    if block is None:
        raise IdentityError(
            Code.PEM_WRONG_KIND,
            f"{source} holds {pem.describe_blocks(blocks)}, not a certificate request",
            "give the file that begins with -----BEGIN CERTIFICATE REQUEST-----",
        )
    return f"the request in {source} (line {block.line})", block.der


@dataclass(frozen=True)
class RequestFacts:
    """What a request says, as texts for people and scripts. `spki_sha256` is base64, as a pin is written."""

    subject: str
    names: tuple[str, ...]
    usages: tuple[str, ...]
    key: str
    spki_sha256: str
    signature: str


def request_facts(request: x509.CertificateSigningRequest) -> RequestFacts:
    """The facts of a request that `load_request` has read."""
    names: list[str] = []
    usages: list[str] = []
    for extension in request.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names += [bounded_text(alternative_text(name)) for name in extension.value]
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            usages += [_PURPOSE_NAMES.get(purpose, purpose.dotted_string) for purpose in extension.value]
    with warnings.catch_warnings():  # as in load_request: a name is parsed each time that it is asked for
        warnings.simplefilter("ignore")
        subject = request.subject.rfc4514_string()
    public = request.public_key()
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return RequestFacts(
        subject=bounded_text(subject),
        names=tuple(names),
        usages=tuple(usages),
        key=public_key_text(public),
        spki_sha256=b64encode(hashlib.sha256(spki).digest()).decode("ascii"),
        signature=_algorithm_text(request),
    )


def public_key_text(public: object) -> str:
    """For instance ``EC secp256r1`` or ``RSA 3072 bits``."""
    match public:
        case ec.EllipticCurvePublicKey():
            return f"EC {public.curve.name}"
        case rsa.RSAPublicKey():
            return f"RSA {public.key_size} bits"
    return type(public).__name__.removesuffix("PublicKey").lstrip("_")


def _algorithm_text(request: x509.CertificateSigningRequest) -> str:
    digest = request.signature_hash_algorithm
    scheme = public_key_text(request.public_key()).partition(" ")[0]
    return scheme if digest is None else f"{scheme} with {digest.name.upper()}"


def _key_usage() -> x509.KeyUsage:
    """A leaf signs handshakes. No key exchange of TLS 1.2 with forward secrecy, or of 1.3, encrypts keys with it."""
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
