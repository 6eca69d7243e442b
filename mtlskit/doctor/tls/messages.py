"""What a server's handshake messages say that OpenSSL does not hand out: which version, cipher and client CAs.

Each message comes whole, with its header of four bytes: type and length (RFC 8446 section 4; RFC 5246 section 7.4).
Strangers wrote them: what cannot be read raises ValueError, and nothing is read beyond the bytes that are there.
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from mtlskit.pki.certificates import UNREADABLE, bounded_text

__all__ = [
    "CERTIFICATE_REQUEST",
    "FINISHED",
    "SERVER_HELLO",
    "SERVER_HELLO_DONE",
    "Hello",
    "requested_cas",
    "server_hello",
]

SERVER_HELLO: Final = 2
CERTIFICATE_REQUEST: Final = 13
SERVER_HELLO_DONE: Final = 14
FINISHED: Final = 20

_HEADER: Final = 4
_RANDOM: Final = 32
_SUPPORTED_VERSIONS: Final = 43
_CERTIFICATE_AUTHORITIES: Final = 47

_MOST_CAS: Final = 100
"""Names of CAs that are read. A server with the trust store of a system behind it sends 150."""

_VERSIONS: Final = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
"""As OpenSSL calls them."""


@dataclass(frozen=True)
class Hello:
    """What a ServerHello chooses."""

    version: str
    """For instance ``TLSv1.3``; hexadecimal where it is none that we know."""
    cipher: int
    """Its number (RFC 8446, section B.4)."""


class _Reader:
    """Fields of a message, one after the other. Raises ValueError at its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise ValueError("cut short")
        taken, self._at = self._data[self._at : end], end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """A field behind a length of `size` bytes."""
        return self.take(self.number(size))

    @property
    def more(self) -> bool:
        return self._at < len(self._data)


def server_hello(message: bytes) -> Hello:
    """RFC 8446 section 4.1.3, which is RFC 5246 section 7.4.1.3 with other extensions. Raises ValueError."""
    reader = _Reader(message[_HEADER:])
    version = reader.number(2)
    reader.take(_RANDOM)
    reader.vector(1)  # session id
    cipher = reader.number(2)
    reader.take(1)  # compression
    if reader.more:
        chosen = _extensions(reader.vector(2)).get(_SUPPORTED_VERSIONS, b"")
        if len(chosen) == 2:
            version = int.from_bytes(chosen, "big")
    return Hello(_VERSIONS.get(version, f"{version:#06x}"), cipher)


def requested_cas(message: bytes, *, tls13: bool) -> tuple[str, ...]:
    """The names in a CertificateRequest, by RFC 4514, escaped and bounded; empty where it names none. A name that
    cannot be read is left out.

    TLS 1.3 has them in an extension (RFC 8446 sections 4.3.2 and 4.2.4), earlier versions at the end of the message
    (RFC 5246 section 7.4.4). TLS 1.0 and 1.1 have no algorithms before them and are not read. Raises ValueError.
    """
    reader = _Reader(message[_HEADER:])
    reader.vector(1)  # TLS 1.3: the context; before: the types of certificates
    if tls13:
        authorities = _extensions(reader.vector(2)).get(_CERTIFICATE_AUTHORITIES)
        names = _Reader(_Reader(authorities).vector(2)) if authorities is not None else _Reader(b"")
    else:
        reader.vector(2)  # signature algorithms
        names = _Reader(reader.vector(2))
    found: list[str] = []
    while names.more and len(found) < _MOST_CAS:
        name = names.vector(2)
        with suppress(*UNREADABLE):
            found.append(_name_text(name))
    return tuple(found)


def _extensions(data: bytes) -> dict[int, bytes]:
    reader = _Reader(data)
    found: dict[int, bytes] = {}
    while reader.more:
        number = reader.number(2)
        found[number] = reader.vector(2)
    return found


# cryptography reads names within something else only. A certificate request holds little beside one: version, name,
# key, attributes; and nobody looks at the key (Ed25519, RFC 8410) or at the signature.
_ED25519: Final = bytes.fromhex("300506032b6570")
_KEY: Final = bytes.fromhex("302a300506032b6570032100") + bytes(32)
_VERSION: Final = bytes.fromhex("020100")
_ATTRIBUTES: Final = bytes.fromhex("a000")
_SIGNATURE: Final = bytes.fromhex("034100") + bytes(64)


def _name_text(name: bytes) -> str:
    request = _sequence(_sequence(_VERSION + name + _KEY + _ATTRIBUTES) + _ED25519 + _SIGNATURE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryptography warns of parts that are empty or too long
        text = x509.load_der_x509_csr(request).subject.rfc4514_string()
    return bounded_text(text or "a name without parts")


def _sequence(content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([0x30, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x30, 0x80 | len(octets)]) + octets + content
