"""What a client says first: requests for encryption, then a StartupMessage or a CancelRequest.

Theory of operation
-------------------
A client opens with a packet that has no type byte: a length (4 bytes, counting itself) and a code (4 bytes). Up to
four times it may ask for encryption (SSLRequest, GSSENCRequest); the caller answers each with `N`, and the client goes
on with its next packet on the same connection. A StartupMessage or a CancelRequest ends the reading.

**As early as the bytes allow.** The first byte of any legal packet is 0, because no packet is longer than 10,004 bytes.
So the first byte tells TLS from Postgres, a few more tell HTTP, the length is judged when its four bytes are there and
the code when its four are. Each judgement looks at the shortest prefix that settles it and at nothing beyond, hence
the way in which reads split the bytes never changes the outcome.

**Bytes that follow an SSLRequest in the same read** are taken as the next packet. CVE-2021-23222 and CVE-2021-23214 are
about plain bytes that were sent before a TLS handshake and read as if they had come through it. The answer here is
always `N`: no encrypted channel follows that they could be smuggled into, and whoever could inject bytes now could
inject them after the `N` just as well. They are held to the same rules as any other packet, so that a client which
begins TLS without waiting for the answer is told so.

**Everything is bounded.** A packet has at most 10,004 bytes, and the reader as a whole holds at most `MAX_BUFFERED`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from mtlskit.errors import ClientProtocolError, Code
from mtlskit.wire.postgres.messages import (
    CANCEL_REQUEST_CODE,
    GSSENC_REQUEST_CODE,
    MAX_CANCEL_KEY,
    MAX_STARTUP_PACKET,
    MIN_CANCEL_KEY,
    SSL_REQUEST_CODE,
)

__all__ = [
    "MAX_BUFFERED",
    "MAX_NEGOTIATIONS",
    "CancelRequested",
    "EncryptionRequested",
    "StartupEvent",
    "StartupReader",
    "StartupReceived",
]

MAX_NEGOTIATIONS: Final = 4
"""libpq asks at most twice on one connection (GSSENCRequest, then SSLRequest); the double leaves room for others."""

MAX_BUFFERED: Final = 65_536
"""The longest start-up packet, and the password or first queries of a client that does not wait, with much to spare."""

_HTTP_OPENINGS: Final = tuple(
    f"{verb} ".encode()
    for verb in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "PRI")
)  # `PRI` opens HTTP/2

_TLS_HANDSHAKE: Final = 0x16  # the content type of a TLS record that carries a ClientHello (RFC 8446, section 5.1)

_KAFKA_API_VERSIONS: Final = 18
"""The key of the request that every client of Kafka begins with, where a StartupMessage has the major version."""

_ENCRYPTION_KINDS: Final[dict[int, Literal["ssl", "gss"]]] = {SSL_REQUEST_CODE: "ssl", GSSENC_REQUEST_CODE: "gss"}


@dataclass(frozen=True)
class EncryptionRequested:
    """The client asked for TLS (`ssl`) or GSSAPI encryption (`gss`) and waits for a one-byte answer."""

    kind: Literal["ssl", "gss"]


@dataclass(frozen=True)
class CancelRequested:
    """The client wants a query of another connection cancelled. `packet` is the request as it came."""

    process_id: int
    secret: bytes
    packet: bytes


@dataclass(frozen=True)
class StartupReceived:
    """The client wants a session. `packet` is the StartupMessage as it came, to be forwarded as it is.

    Parameters that are not UTF-8 carry surrogate escapes (PEP 383), so that no byte is lost.
    """

    version: tuple[int, int]
    parameters: dict[str, str]
    packet: bytes


StartupEvent: TypeAlias = EncryptionRequested | CancelRequested | StartupReceived


class StartupReader:
    """Feeds on the client's bytes until a StartupMessage or a CancelRequest."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._negotiations = 0
        self._finished = False

    def receive(self, data: bytes | memoryview) -> None:
        """Take what a read returned. Raises ClientProtocolError for a client that floods (`MAX_BUFFERED`)."""
        if len(self._buffer) + len(data) > MAX_BUFFERED:
            raise ClientProtocolError(
                Code.PG_CLIENT_RUBBISH,
                f"the client sent more than {MAX_BUFFERED} bytes before its start-up was answered",
                "a PostgreSQL client waits for the server after its StartupMessage: check what connects to this port",
            )
        self._buffer += data

    def next_event(self) -> StartupEvent | None:
        """The next packet, or None where more bytes are needed or the last packet has been given.

        Raises ClientProtocolError, and again at each further call, once the bytes cannot become a legal packet.
        """
        if self._finished or not self._buffer or self._opening_is_undecided() or len(self._buffer) < 4:
            return None
        (length,) = struct.unpack_from("!I", self._buffer)
        _check_length(length)
        if len(self._buffer) < 8:
            return None
        (code,) = struct.unpack_from("!I", self._buffer, 4)
        self._check_code(code, length)
        if len(self._buffer) < length:
            return None
        event = _EVENT_OF.get(code, _startup)(bytes(self._buffer[:length]))
        del self._buffer[:length]
        self._negotiations += isinstance(event, EncryptionRequested)
        self._finished = not isinstance(event, EncryptionRequested)
        return event

    @property
    def trailing(self) -> bytes:
        """What followed the StartupMessage or CancelRequest: a client that does not wait. Empty until then."""
        return bytes(self._buffer) if self._finished else b""

    def _opening_is_undecided(self) -> bool:
        """Judge a packet by its first bytes; True while they may still turn out to be HTTP."""
        if self._buffer[0] == 0:
            return False
        if self._buffer[0] == _TLS_HANDSHAKE:
            raise _speaks_tls(after_refusal=self._negotiations > 0)
        if self._buffer.startswith(_HTTP_OPENINGS):
            raise ClientProtocolError(
                Code.PG_CLIENT_SPEAKS_HTTP,
                "the client speaks HTTP, and this port speaks the PostgreSQL protocol",
                "point a PostgreSQL client at this port; a health check should only open and close a TCP connection",
            )
        if any(opening.startswith(self._buffer) for opening in _HTTP_OPENINGS):
            return True
        raise ClientProtocolError(
            Code.PG_CLIENT_RUBBISH,
            f"the client's first byte is 0x{self._buffer[0]:02x}, which begins no PostgreSQL start-up packet",
            "check that the program on this port is a PostgreSQL client (protocol 3.0 or later)",
        )

    def _check_code(self, code: int, length: int) -> None:
        """Judge a packet by its code, before its body is there."""
        if code in _ENCRYPTION_KINDS:
            if self._negotiations == MAX_NEGOTIATIONS:
                raise ClientProtocolError(
                    Code.PG_CLIENT_TOO_MANY_NEGOTIATIONS,
                    f"the client asked for encryption more than {MAX_NEGOTIATIONS} times on one connection",
                    "set sslmode=disable gssencmode=disable in the client: the tunnel does the encryption",
                )
            _check_size(length, 8, 8, "SSLRequest or GSSENCRequest")
        elif code == CANCEL_REQUEST_CODE:
            _check_size(length, 12 + MIN_CANCEL_KEY, 12 + MAX_CANCEL_KEY, "CancelRequest")
        elif code >> 16 == _KAFKA_API_VERSIONS:
            raise ClientProtocolError(
                Code.PG_CLIENT_VERSION,
                "the client speaks the Kafka protocol, and this tunnel leads to a PostgreSQL",
                'if a Kafka is meant: kind = "kafka" (--kind kafka) for the tunnel that leads to one',
            )
        elif code >> 16 != 3:
            raise ClientProtocolError(
                Code.PG_CLIENT_VERSION,
                f"the client speaks version {code >> 16}.{code & 0xFFFF} of the PostgreSQL protocol, not 3.x",
                "use a client of PostgreSQL 7.4 or later; all since then speak version 3",
            )


def _speaks_tls(*, after_refusal: bool) -> ClientProtocolError:
    if after_refusal:
        sentence = "the client began TLS although it was told that this port speaks plain text"
    else:
        sentence = "the client began with TLS at once (direct TLS), and this port speaks plain text"
    return ClientProtocolError(
        Code.PG_CLIENT_SPEAKS_TLS,
        sentence,
        "set sslmode=disable (or prefer) in the client and remove sslnegotiation=direct: the tunnel does the TLS",
    )


def _check_length(length: int) -> None:
    if length > MAX_STARTUP_PACKET + 4:
        raise ClientProtocolError(
            Code.PG_STARTUP_TOO_LONG,
            f"the client's start-up packet says it has {length} bytes; PostgreSQL takes {MAX_STARTUP_PACKET + 4}",
            "shorten the connection's options and application_name, or check that it is a PostgreSQL client",
        )
    if length < 8:
        raise _rubbish(f"the client's start-up packet says it has {length} bytes; the shortest has 8")


def _check_size(length: int, least: int, most: int, name: str) -> None:
    if not least <= length <= most:
        raise _rubbish(f"the client's {name} says it has {length} bytes; {least} to {most} are possible")


def _encryption(packet: bytes) -> EncryptionRequested:
    return EncryptionRequested(_ENCRYPTION_KINDS[struct.unpack_from("!I", packet, 4)[0]])


def _cancel(packet: bytes) -> CancelRequested:
    return CancelRequested(struct.unpack_from("!I", packet, 8)[0], packet[12:], packet)


def _startup(packet: bytes) -> StartupReceived:
    """Read name and value pairs up to the lone NUL, which must be the last byte. A repeated name: the last one counts,
    as in PostgreSQL."""
    pieces = packet[8:].split(b"\0")  # name, value, …, name, value, then what the lone NUL leaves: two empty ones
    texts = pieces[:-2]
    if pieces[-2:] != [b"", b""] or len(texts) % 2 or not all(texts[::2]):
        raise _rubbish("the client's StartupMessage is damaged: its parameters are not pairs that end with a lone NUL")
    decoded = [text.decode("utf-8", "surrogateescape") for text in texts]
    version: tuple[int, int] = struct.unpack_from("!HH", packet, 4)
    return StartupReceived(version, dict(zip(decoded[::2], decoded[1::2], strict=True)), packet)


def _rubbish(sentence: str) -> ClientProtocolError:
    return ClientProtocolError(
        Code.PG_CLIENT_RUBBISH, sentence, "check that the program on this port is a PostgreSQL client"
    )


_EVENT_OF: Final[dict[int, Callable[[bytes], StartupEvent]]] = {
    SSL_REQUEST_CODE: _encryption,
    GSSENC_REQUEST_CODE: _encryption,
    CANCEL_REQUEST_CODE: _cancel,
}
