"""Constants, builders and parsers of single Postgres messages (PostgreSQL docs, "Message Formats").

A start-up packet is a 4-byte length, which counts itself, and a 4-byte code; it has no type byte. Every later message
is a type byte, a 4-byte length, which counts itself but not the type, and a body. Numbers are big-endian, text ends
with a NUL.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mtlskit.errors import ClientProtocolError, Code

__all__ = [
    "CANCEL_REQUEST_CODE",
    "GSSENC_REQUEST",
    "GSSENC_REQUEST_CODE",
    "MAX_AUTH_TOKEN",
    "MAX_CANCEL_KEY",
    "MAX_STARTUP_PACKET",
    "MIN_CANCEL_KEY",
    "REFUSE_ENCRYPTION",
    "SSL_REQUEST",
    "SSL_REQUEST_CODE",
    "ErrorFields",
    "Message",
    "SaslInitialResponse",
    "authentication_ok",
    "authentication_sasl",
    "authentication_sasl_continue",
    "authentication_sasl_final",
    "cancel_request",
    "error_response",
    "frame",
    "message_text",
    "parse_error_fields",
    "parse_sasl_initial_response",
    "parse_sasl_response",
    "startup_message",
    "take_client_message",
]

CANCEL_REQUEST_CODE: Final = 80877102  # 1234.5678
SSL_REQUEST_CODE: Final = 80877103  # 1234.5679
GSSENC_REQUEST_CODE: Final = 80877104  # 1234.5680

SSL_REQUEST: Final = struct.pack("!II", 8, SSL_REQUEST_CODE)
GSSENC_REQUEST: Final = struct.pack("!II", 8, GSSENC_REQUEST_CODE)
REFUSE_ENCRYPTION: Final = b"N"
"""The one-byte answer to SSLRequest and GSSENCRequest: go on in plain text."""

MAX_STARTUP_PACKET: Final = 10_000
"""The bytes of a start-up packet after its length word, at most: PostgreSQL's own MAX_STARTUP_PACKET_LENGTH."""

MIN_CANCEL_KEY: Final = 4
MAX_CANCEL_KEY: Final = 256
"""The secret of BackendKeyData and CancelRequest, in bytes: 4 in protocol 3.0, up to 256 since 3.2 (PostgreSQL 18)."""

MAX_AUTH_TOKEN: Final = 65_535
"""The body of the longest authentication message, a GSSAPI or SSPI token: PostgreSQL's PG_MAX_AUTH_TOKEN_LENGTH."""

# libpq takes an ErrorResponse of more than 30,000 bytes for the text of a server older than 7.4 and shows it raw. An
# ErrorResponse of ours has up to three long texts and must stay below that.
_MAX_ERROR_TEXT: Final = 8_000


@dataclass(frozen=True)
class Message:
    """One message with a type byte: `kind` is that byte, `body` what follows the length."""

    kind: bytes
    body: bytes


@dataclass(frozen=True)
class ErrorFields:
    """What an ErrorResponse or NoticeResponse says; a field that it does not have is empty."""

    severity: str = ""
    sqlstate: str = ""
    message: str = ""
    detail: str = ""
    hint: str = ""


@dataclass(frozen=True)
class SaslInitialResponse:
    """A client's choice of mechanism; `data` is None where it sent no initial response."""

    mechanism: str
    data: bytes | None


def frame(kind: bytes, body: bytes) -> bytes:
    """Frame a body: type byte, length, body."""
    return kind + struct.pack("!I", len(body) + 4) + body


def error_response(*, severity: str = "FATAL", sqlstate: str, message: str, detail: str = "", hint: str = "") -> bytes:
    """Build an ErrorResponse (docs, "Error and Notice Message Fields"); empty `detail` and `hint` are left out.

    A text is cut at 8,000 bytes, and a NUL in it becomes a space.
    """
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", message), ("D", detail), ("H", hint))
    body = b"".join(key.encode() + _error_text(text) + b"\0" for key, text in fields if text)
    return frame(b"E", body + b"\0")


def _error_text(text: str) -> bytes:
    encoded = text.replace("\0", " ").encode("utf-8", "backslashreplace")
    return encoded[:_MAX_ERROR_TEXT].decode("utf-8", "ignore").encode()  # never half a character at the cut


def parse_error_fields(body: bytes) -> ErrorFields:
    """Read the body of an ErrorResponse or NoticeResponse. Never raises: what is damaged stays empty.

    `severity` is the field V, which is never translated (PostgreSQL 9.6 and later), or else S. Text that is not UTF-8
    (a server may answer in its own encoding before it knows the client's) is kept readable with backslash escapes.
    """
    found: dict[bytes, str] = {}
    for item in body.split(b"\0"):
        found.setdefault(item[:1], item[1:].decode("utf-8", "backslashreplace"))
    return ErrorFields(
        severity=found.get(b"V") or found.get(b"S", ""),
        sqlstate=found.get(b"C", ""),
        message=found.get(b"M", ""),
        detail=found.get(b"D", ""),
        hint=found.get(b"H", ""),
    )


def message_text(kind: bytes) -> str:
    """`a message of type "H"`, or `of type 0x16` for what is no letter: a stranger may have sent it."""
    return f'a message of type "{kind.decode("ascii")}"' if kind.isalnum() else f"a message of type 0x{kind.hex()}"


def cancel_request(process_id: int, secret: bytes) -> bytes:
    """Build a CancelRequest. `process_id` is the 32 bits of BackendKeyData, read without a sign."""
    return struct.pack("!III", 12 + len(secret), CANCEL_REQUEST_CODE, process_id) + secret


def startup_message(parameters: Mapping[str, str], version: tuple[int, int] = (3, 0)) -> bytes:
    """Build a StartupMessage with its parameters in the order given.

    Raises ValueError for an empty name or a NUL, either of which would end the list early.
    """
    parts: list[bytes] = []
    for name, value in parameters.items():
        if not name or "\0" in name or "\0" in value:
            raise ValueError(f"a start-up parameter cannot be sent: {name!r}")
        parts += (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
    body = b"".join(part + b"\0" for part in parts) + b"\0"
    return struct.pack("!IHH", len(body) + 8, *version) + body


def authentication_ok() -> bytes:
    """Build AuthenticationOk."""
    return _authentication(0)


def authentication_sasl(mechanisms: Iterable[str]) -> bytes:
    """Build AuthenticationSASL: the mechanisms that the server offers, the one it likes best first."""
    return _authentication(10, b"".join(name.encode("ascii") + b"\0" for name in mechanisms) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    """Build AuthenticationSASLContinue: a challenge, such as SCRAM's server-first-message."""
    return _authentication(11, data)


def authentication_sasl_final(data: bytes) -> bytes:
    """Build AuthenticationSASLFinal: the outcome, such as SCRAM's server-final-message."""
    return _authentication(12, data)


def _authentication(code: int, data: bytes = b"") -> bytes:
    return frame(b"R", struct.pack("!I", code) + data)


def take_client_message(buffer: bytearray, *, limit: int = MAX_AUTH_TOKEN) -> Message | None:
    """Cut the first whole message off the front of `buffer`; None when it is not complete yet.

    Raises ClientProtocolError as soon as the length is known to be impossible or the body longer than `limit`.
    """
    if len(buffer) < 5:
        return None
    kind = bytes(buffer[:1])
    (length,) = struct.unpack_from("!I", buffer, 1)
    if not 4 <= length <= limit + 4:
        raise _rubbish(f"the client sent {message_text(kind)} with a length of {length} bytes")
    if len(buffer) < length + 1:
        return None
    body = bytes(buffer[5 : length + 1])
    del buffer[: length + 1]
    return Message(kind, body)


def parse_sasl_initial_response(received: Message) -> SaslInitialResponse:
    """Read SASLInitialResponse. Raises ClientProtocolError for another message or a damaged one."""
    name, terminator, rest = _sasl_body(received).partition(b"\0")
    if not name or not terminator or len(rest) < 4:
        raise _rubbish("the client's SASLInitialResponse is cut short")
    (length,) = struct.unpack_from("!i", rest)
    data = rest[4:]
    if len(data) != max(length, 0) or length < -1:
        raise _rubbish(f"the client's SASLInitialResponse says {length} bytes of data and holds {len(data)}")
    return SaslInitialResponse(name.decode("ascii", "backslashreplace"), None if length == -1 else data)


def parse_sasl_response(received: Message) -> bytes:
    """Read SASLResponse. Raises ClientProtocolError for another message."""
    return _sasl_body(received)


def _sasl_body(received: Message) -> bytes:
    if received.kind != b"p":
        raise _rubbish(f"the client sent {message_text(received.kind)} in the middle of its authentication")
    return received.body


def _rubbish(sentence: str) -> ClientProtocolError:
    return ClientProtocolError(
        Code.PG_CLIENT_RUBBISH, sentence, "check that the program on this port is a PostgreSQL client"
    )
