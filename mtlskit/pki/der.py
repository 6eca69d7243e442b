"""As much DER (X.690) as it takes to name what a binary file holds and to cut a SubjectPublicKeyInfo out unchanged.

cryptography re-encodes a public key when asked for its bytes (a compressed point becomes an uncompressed one, RSA-PSS
becomes plain RSA), and the hash of the re-encoded bytes is not the pin that `openssl` computes. So the original bytes
are cut out of the certificate instead.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "DER_CERTIFICATE",
    "DER_KEY",
    "DER_REQUEST",
    "ENCRYPTED_DER_KEY",
    "PKCS7",
    "PKCS12",
    "DerError",
    "Element",
    "describe",
    "elements",
    "read_element",
    "subject_public_key_info",
]

_INTEGER = 0x02
_OBJECT_IDENTIFIER = 0x06
_SEQUENCE = 0x30
_CONTEXT_0 = 0xA0

_SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # 1.2.840.113549.1.7.2, PKCS #7 signedData
_PBES = (bytes.fromhex("2a864886f70d0105"), bytes.fromhex("2a864886f70d010c01"))  # PKCS #5 and PKCS #12 encryption

DER_CERTIFICATE = "a DER certificate"
DER_KEY = "a DER private key"
DER_REQUEST = "a DER certificate request"
ENCRYPTED_DER_KEY = "an encrypted DER private key"
PKCS7 = "a PKCS #7 bundle"
PKCS12 = "a PKCS #12 archive"

_BER_ARCHIVES = {bytes.fromhex("3080020103"): PKCS12, bytes.fromhex("308006092a864886f70d010702"): PKCS7}
"""How these begin with an indefinite length, as browsers write them."""


class DerError(ValueError):
    """The bytes are not the DER that was expected."""


class Element(NamedTuple):
    """One tag-length-value: `raw` is all of it, `content` the value alone."""

    tag: int
    content: bytes
    raw: bytes


def read_element(data: bytes) -> tuple[Element, bytes]:
    """The first element of `data` and what follows it. Raises `DerError` when it is cut short or not DER."""
    if len(data) < 2:
        raise DerError("cut short")
    length, start = data[1], 2
    if length & 0x80:
        count = length & 0x7F
        # Four octets of length are 4 GiB; zero is the indefinite form, which DER forbids (X.690, 10.1).
        if not 1 <= count <= 4 or len(data) < 2 + count:
            raise DerError("bad length")
        length, start = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    end = start + length
    if len(data) < end:
        raise DerError("cut short")
    return Element(data[0], data[start:end], data[:end]), data[end:]


def elements(content: bytes, limit: int) -> list[Element]:
    """The first elements of `content`, at most `limit` of them. Raises `DerError`."""
    found: list[Element] = []
    while content and len(found) < limit:
        element, content = read_element(content)
        found.append(element)
    return found


def subject_public_key_info(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a DER certificate, byte for byte (RFC 5280, section 4.1). Raises `DerError`."""
    tbs = elements(read_element(certificate)[0].content, 1)
    fields = elements(tbs[0].content, 8) if tbs else []
    # version [0] is left out of version 1 certificates; then serial, signature, issuer, validity, subject, SPKI.
    index = 6 if fields and fields[0].tag == _CONTEXT_0 else 5
    if len(fields) <= index or fields[index].tag != _SEQUENCE:
        raise DerError("no SubjectPublicKeyInfo")
    return fields[index].raw


def describe(data: bytes) -> str | None:
    """What a DER file holds, as words that fit after "holds"; None when it is nothing known."""
    if not data or data[0] != _SEQUENCE:
        return None
    for start, kind in _BER_ARCHIVES.items():
        if data.startswith(start):
            return kind
    try:
        fields = elements(read_element(data)[0].content, 3)
        inner = elements(fields[0].content, 8) if fields and fields[0].tag == _SEQUENCE else []
    except DerError:
        return None
    tags = [field.tag for field in fields]
    if tags[:2] == [_INTEGER, _SEQUENCE] and fields[0].content == b"\x03":
        return PKCS12
    if tags[:1] == [_OBJECT_IDENTIFIER] and fields[0].content == _SIGNED_DATA:
        return PKCS7
    if tags[:1] == [_INTEGER] and len(fields) > 1:
        return DER_KEY
    if inner and inner[0].tag == _OBJECT_IDENTIFIER and inner[0].content.startswith(_PBES):
        return ENCRYPTED_DER_KEY
    return _describe_signed([field.tag for field in inner]) if len(fields) == 3 else None


def _describe_signed(tags: list[int]) -> str | None:
    """A certificate, request or revocation list is a sequence of three, told apart by what is signed."""
    if tags[:2] == [_CONTEXT_0, _INTEGER] or tags[:4] == [_INTEGER, _SEQUENCE, _SEQUENCE, _SEQUENCE]:
        return DER_CERTIFICATE
    if tags[:1] == [_INTEGER] and tags[-1:] == [_CONTEXT_0]:
        return DER_REQUEST
    return None
