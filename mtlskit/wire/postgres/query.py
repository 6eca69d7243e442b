"""What a client of ours says and hears on a session of its own: whole messages, and simple queries (PostgreSQL docs,
protocol flow, "Simple Query").

A `Query` message is one text, which may hold several statements; the server answers with RowDescription, DataRow and
CommandComplete for each, with an ErrorResponse where one fails, and with one ReadyForQuery in the end. Values come as
text. Whatever a server sends is bounded: a stranger may be behind the port.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.postgres.messages import ErrorFields, Message, frame, message_text, parse_error_fields

__all__ = ["TERMINATE", "Answer", "AnswerReader", "MessageReader", "parameter_of", "query"]

TERMINATE: Final = frame(b"X", b"")
"""The end of a session (PostgreSQL docs, protocol flow, "Termination")."""

MAX_MESSAGE: Final = 64 * 1024
"""The body of one message in bytes, at most. What is asked here is answered with a few hundred."""
MAX_EXCHANGE: Final = 512 * 1024
"""Bytes of one login or one answer, at most: a server that never ends a stream of notices is cut off."""
_MAX_COLUMNS: Final = 1664
"""PostgreSQL's own limit of columns in a result (MaxTupleAttributeNumber)."""

_PASSED_OVER: Final = frozenset(b"TCINSA")
"""RowDescription, CommandComplete, EmptyQueryResponse, notices, ParameterStatus, notifications."""


def query(statement: str) -> bytes:
    """Build a Query message. Raises ValueError for a NUL, which would end the text early."""
    if "\0" in statement:
        raise ValueError("a statement cannot hold a NUL")
    return frame(b"Q", statement.encode() + b"\0")


def parameter_of(body: bytes) -> tuple[str, str]:
    """Name and value of a ParameterStatus; empty where it is damaged."""
    name, _, rest = body.partition(b"\0")
    value, _, _ = rest.partition(b"\0")
    return name.decode("utf-8", "backslashreplace"), value.decode("utf-8", "backslashreplace")


class MessageReader:
    """Cuts what a server sends into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._heard = 0

    def begin(self) -> None:
        """A new exchange: the bytes are counted from here."""
        self._heard = len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what a read returned. Raises UpstreamProtocolError where an exchange never ends."""
        self._heard += len(data)
        if self._heard > MAX_EXCHANGE:
            raise _rubbish(f"the server sent more than {MAX_EXCHANGE} bytes in answer to one request")
        self._buffer += data

    def next(self) -> Message | None:
        """The first whole message; None where more bytes are needed. Raises UpstreamProtocolError."""
        if len(self._buffer) < 5:
            return None
        kind = bytes(self._buffer[:1])
        (length,) = struct.unpack_from("!I", self._buffer, 1)
        if not 4 <= length <= MAX_MESSAGE + 4:
            raise _rubbish(f"the server sent {message_text(kind)} with an impossible length of {length} bytes")
        if len(self._buffer) <= length:
            return None
        body = bytes(self._buffer[5 : length + 1])
        del self._buffer[: length + 1]
        return Message(kind, body)


@dataclass(frozen=True)
class Answer:
    """What a query has brought: rows of texts (None is NULL), or the error that ended it."""

    rows: tuple[tuple[str | None, ...], ...] = ()
    error: ErrorFields | None = None


class AnswerReader:
    """Follows one answer: give it each message, until it returns the `Answer`."""

    def __init__(self) -> None:
        self._rows: list[tuple[str | None, ...]] = []
        self.error: ErrorFields | None = None
        """An error that came already; a server that ends the session with it sends nothing more."""

    def receive(self, message: Message) -> Answer | None:
        """Take one message. Raises UpstreamProtocolError for what does not belong to a simple query."""
        if message.kind == b"Z":
            return Answer(tuple(self._rows), self.error)
        if message.kind == b"D":
            self._rows.append(_row(message.body))
        elif message.kind == b"E":
            self.error = parse_error_fields(message.body)
        elif message.kind[0] not in _PASSED_OVER:
            raise _rubbish(f"the server sent {message_text(message.kind)} in answer to a query")
        return None


def _row(body: bytes) -> tuple[str | None, ...]:
    """The values of a DataRow: each a length of 4 bytes (-1: NULL), and the text."""
    try:
        (count,) = struct.unpack_from("!H", body)
        place, values = 2, list[str | None]()
        for _ in range(min(count, _MAX_COLUMNS)):
            (length,) = struct.unpack_from("!i", body, place)
            place += 4
            if length < -1 or place + length > len(body):
                raise _rubbish("the server sent a row that is cut short")
            values.append(None if length < 0 else body[place : place + length].decode("utf-8", "backslashreplace"))
            place += max(length, 0)
    except struct.error as exc:
        raise _rubbish("the server sent a row that is cut short") from exc
    return tuple(values)


def _rubbish(sentence: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        Code.PG_SERVER_RUBBISH, sentence, "check that the upstream's host and port are those of a PostgreSQL server"
    )
