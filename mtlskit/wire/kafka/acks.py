"""How far a Produce request wants to be acknowledged: with `acks` = 0 it gets no response at all.

So the field must be read, or the next response would be taken for this request's. It stands near the front, behind the
client's id, the header's tagged fields and the transactional id (request header versions 1 and 2; ProduceRequest 0 to
13: the transactional id since 3, the flexible layout since 9; the client's id keeps the old layout for ever). The
records behind it can be many megabytes and are of no interest.

The bytes may come one by one. A reader goes on where it stopped, so that reading costs the same however they come.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from typing import Final

from mtlskit.errors import ClientProtocolError, Code
from mtlskit.wire.kafka.primitives import MAX_STRING, Buffer
from mtlskit.wire.kafka.tables import PRODUCE_REQUEST_FLEXIBLE

__all__ = ["MAX_HEAD", "AcksReader"]

MAX_HEAD: Final = 128 * 1024
"""Bytes before the end of `acks`: two strings of 32 KiB and, for tagged fields that nobody has defined yet, as much."""

_CLIENT_ID: Final = 8  # behind the api key, its version and the correlation id
_TRANSACTIONAL_ID_SINCE: Final = 3
_INT16: Final = struct.Struct("!h")


class AcksReader:
    """Reads one request. `length` is the frame's size."""

    __slots__ = ("_at", "_buffer", "_length", "_pos", "_reading", "_version")

    def __init__(self, version: int, length: int) -> None:
        self._version = version
        self._length = length
        self._buffer: Buffer = b""
        self._at = 0
        self._pos = _CLIENT_ID
        self._reading = self._read()

    def acks(self, buffer: Buffer, at: int) -> int | None:
        """The field, or None where more is needed. `buffer[at:]` is the frame behind its size, as far as it is there.

        Raises ClientProtocolError for a request that cannot be read.
        """
        self._buffer, self._at = buffer, at
        return next(self._reading)

    def _read(self) -> Generator[int | None, None, None]:
        flexible = self._version >= PRODUCE_REQUEST_FLEXIBLE
        yield from self._string((yield from self._int16()))
        if flexible:
            for _ in range((yield from self._uvarint())):
                yield from self._uvarint()
                yield from self._until((yield from self._uvarint()))
        if self._version >= _TRANSACTIONAL_ID_SINCE:
            yield from self._string((yield from self._uvarint()) - 1 if flexible else (yield from self._int16()))
        yield (yield from self._int16())

    def _until(self, size: int) -> Generator[None, None, None]:
        """Pass `size` bytes, once they are there."""
        after = self._pos + size
        if after > self._length:
            raise self._fault(f"{size} bytes should follow, and {self._length - self._pos} are left")
        if after > MAX_HEAD:
            raise self._fault(f"the fields before acks have more than {MAX_HEAD} bytes")
        while len(self._buffer) - self._at < after:
            yield
        self._pos = after

    def _int16(self) -> Generator[None, None, int]:
        yield from self._until(2)
        value: int = _INT16.unpack_from(self._buffer, self._at + self._pos - 2)[0]
        return value

    def _uvarint(self) -> Generator[None, None, int]:
        value = 0
        for shift in range(0, 35, 7):
            yield from self._until(1)
            byte = self._buffer[self._at + self._pos - 1]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self._fault("a varint has more than 32 bits")

    def _string(self, size: int) -> Generator[None, None, None]:
        if not -1 <= size <= MAX_STRING:
            raise self._fault(f"a string claims {size} bytes")
        if size > 0:
            yield from self._until(size)

    def _fault(self, what: str) -> ClientProtocolError:
        return ClientProtocolError(
            Code.KAFKA_CLIENT_RUBBISH,
            f"the client's Produce request (api key 0, version {self._version}) cannot be read at byte {self._pos}:"
            f" {what}",
            "check what connects to this port; if it is a sound Kafka client, please report this",
        )
