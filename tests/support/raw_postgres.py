"""A Postgres client that is nothing but a socket, for what no driver would do: see the protocol itself.

PostgreSQL documentation, "Message Formats". Written anew and not taken from `mtlskit.wire`: what the tests believe must
not come from what they test.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

# Seconds: a safety net, nothing is measured by it.
SOCKET_TIMEOUT = 60
SSL_REQUEST = struct.pack("!II", 8, 80877103)
GSSENC_REQUEST = struct.pack("!II", 8, 80877104)


def startup_message(version: tuple[int, int] = (3, 0), **parameters: str) -> bytes:
    """A StartupMessage."""
    pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
    return struct.pack("!IHH", 9 + len(pairs), *version) + pairs + b"\0"


def query_message(sql: str) -> bytes:
    """A Query."""
    body = sql.encode() + b"\0"
    return b"Q" + struct.pack("!I", 4 + len(body)) + body


def cancel_request(process_id: int, secret: bytes) -> bytes:
    """A CancelRequest; the secret has 4 bytes, or up to 256 since protocol 3.2."""
    return struct.pack("!III", 12 + len(secret), 80877102, process_id) + secret


@dataclass(frozen=True)
class Message:
    """A message of the server's: its type byte, and what follows its length."""

    kind: str
    body: bytes

    @property
    def fields(self) -> dict[str, str]:
        """Of an ErrorResponse or NoticeResponse: S severity, C SQLSTATE, M message, D detail, H hint."""
        return {part[:1].decode(): part[1:].decode() for part in self.body.split(b"\0") if part}

    @property
    def columns(self) -> list[bytes]:
        """Of a DataRow without NULLs: its values."""
        values, position = [], 2
        while position < len(self.body):
            (length,) = struct.unpack_from("!I", self.body, position)
            values.append(self.body[position + 4 : position + 4 + length])
            position += 4 + length
        return values


@dataclass
class RawClient:
    """One plain connection. A context manager that closes it."""

    sock: socket.socket
    _buffer: bytearray = field(default_factory=bytearray)

    @classmethod
    def connect(cls, address: tuple[str, int], *, source: str | None = None) -> Self:
        """A TCP connection; `source` is the local address to come from."""
        here = None if source is None else (source, 0)
        return cls(socket.create_connection(address, SOCKET_TIMEOUT, source_address=here))

    @classmethod
    def log_in(cls, address: tuple[str, int], parameters: Mapping[str, str], version: tuple[int, int] = (3, 0)) -> Self:
        """A session of a user who needs no password."""
        client = cls.connect(address)
        client.send(startup_message(version, user=parameters["user"], database=parameters["dbname"]))
        return client

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def read(self, count: int) -> bytes:
        """Exactly so many bytes; fewer only where the server has ended the connection."""
        while len(self._buffer) < count and (data := self.sock.recv(1 << 18)):
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        while data := self.sock.recv(1 << 18):
            self._buffer += data
        return self.read(len(self._buffer))

    def messages(self) -> Iterator[Message]:
        """The server's messages, up to the end of the connection."""
        while header := self.read(5):
            kind, length = struct.unpack("!cI", header)
            yield Message(kind.decode(), self.read(length - 4))

    def until(self, kind: str) -> list[Message]:
        """The messages up to the next of this kind, which is the last of them."""
        found = []
        for message in self.messages():
            found.append(message)
            if message.kind == kind:
                return found
        raise AssertionError(f"the connection ended before a message {kind!r}, after {found[-3:]}")

    def refusal(self) -> dict[str, str]:
        """The fields of the ErrorResponse with which the server ends the connection; nothing else of note may come."""
        while (first := self.read(1)) == b"N":
            continue  # our SSLRequest or GSSENCRequest was declined
        self._buffer[:0] = first
        [message] = self.messages()
        assert message.kind == "E", message
        return message.fields

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()


def refusal_of(address: tuple[str, int], *, source: str | None = None) -> dict[str, str]:
    """What a client is told that asks for a session and gets none: fields of the one ErrorResponse."""
    with RawClient.connect(address, source=source) as client:
        client.send(startup_message(user="trustuser", database="app"))
        return client.refusal()
