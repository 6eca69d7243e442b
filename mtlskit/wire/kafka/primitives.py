"""The types of the Kafka protocol (protocol guide, "Protocol Primitive Types"), read within a bound and written.

Kafka has two layouts for whatever has a variable length. The old one leads a string with an int16 and an array with an
int32, -1 for null. The *flexible* one (KIP-482) leads both with an unsigned varint that is the length plus one, 0 for
null, and ends each struct with tagged fields. A `Reader` knows which of the two it is in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from mtlskit.errors import Code, MtlskitError, UpstreamProtocolError

__all__ = ["MAX_STRING", "Buffer", "Place", "Reader", "array_length", "string", "uvarint"]

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_STRING: Final = 32_767
"""Bytes of a string: what the old layout's int16 can say. The flexible one could say more; Kafka refuses it."""

_MAX_VARINT: Final = 5
"""Bytes of an unsigned varint that stands for 32 bits, seven at a time."""

_INT16: Final = struct.Struct("!h")
_INT32: Final = struct.Struct("!i")
_INT64: Final = struct.Struct("!q")


@dataclass(frozen=True, slots=True)
class Place:
    """Which message is being read, for the sentence of an error."""

    name: str
    api_key: int
    version: int

    def fault(self, offset: int, what: str) -> MtlskitError:
        """The error to raise: `what` is wrong at `offset` bytes behind the frame's size."""
        return UpstreamProtocolError(
            Code.KAFKA_SERVER_RUBBISH,
            f"the broker's {self.name} response (api key {self.api_key}, version {self.version})"
            f" cannot be read at byte {offset}: {what}",
            "nothing of it was passed on, so that no address leaks; if the broker is a sound one, please report this",
        )


class Reader:
    """A cursor over `data[start:end]` that never reads beyond. All methods raise what `place.fault` makes."""

    __slots__ = ("data", "end", "flexible", "place", "pos", "start")

    def __init__(self, data: Buffer, start: int, end: int, *, flexible: bool, place: Place) -> None:
        self.data = data
        self.start = start
        self.pos = start
        self.end = end
        self.flexible = flexible
        self.place = place

    def fault(self, what: str) -> MtlskitError:
        """An error about the byte at the cursor."""
        return self.place.fault(self.pos - self.start, what)

    def skip(self, size: int) -> None:
        """Pass `size` bytes."""
        after = self.pos + size
        if after > self.end:
            raise self.fault(f"{size} bytes should follow, and {self.end - self.pos} are there")
        self.pos = after

    def int16(self) -> int:
        """A signed integer of two bytes."""
        at = self.pos
        self.skip(2)
        value: int = _INT16.unpack_from(self.data, at)[0]
        return value

    def int32(self) -> int:
        """A signed integer of four bytes."""
        at = self.pos
        self.skip(4)
        value: int = _INT32.unpack_from(self.data, at)[0]
        return value

    def int64(self) -> int:
        """A signed integer of eight bytes."""
        at = self.pos
        self.skip(8)
        value: int = _INT64.unpack_from(self.data, at)[0]
        return value

    def boolean(self) -> bool:
        """A byte that is 0 or something else."""
        at = self.pos
        self.skip(1)
        return self.data[at] != 0

    def uvarint(self) -> int:
        """An unsigned varint of at most 32 bits."""
        data, pos, end = self.data, self.pos, self.end
        if pos < end and (first := data[pos]) < 0x80:  # nearly all of them
            self.pos = pos + 1
            return first
        value = 0
        for count in range(_MAX_VARINT):
            if pos + count >= end:
                raise self.fault("a varint is cut off")
            byte = data[pos + count]
            value |= (byte & 0x7F) << (7 * count)
            if byte < 0x80 and value < 1 << 32:
                self.pos = pos + count + 1
                return value
        raise self.fault("a varint has more than 32 bits")

    def length(self) -> int:
        """What leads a string, in bytes; -1 for null. The string is there as a whole."""
        size = self.uvarint() - 1 if self.flexible else self.int16()
        if not -1 <= size <= MAX_STRING:
            raise self.fault(f"a string claims {size} bytes")
        if size > self.end - self.pos:
            raise self.fault(f"a string claims {size} bytes, and {self.end - self.pos} are left")
        return size

    def skip_string(self) -> None:
        """Pass a string, null or not."""
        size = self.length()
        if size > 0:
            self.pos += size

    def text(self) -> str:
        """A string; null reads as an empty one."""
        size = self.length()
        if size <= 0:
            return ""
        at = self.pos
        try:
            value = str(self.data[at : at + size], "utf-8")
        except UnicodeDecodeError as exc:
            raise self.fault("a string is not UTF-8") from exc
        self.pos = at + size
        return value

    def count(self) -> int:
        """What leads an array, in elements; null reads as 0. Each element has a byte at least, or this is a lie."""
        count = self.uvarint() - 1 if self.flexible else self.int32()
        if count == -1:
            return 0
        if not 0 <= count <= self.end - self.pos:
            raise self.fault(f"an array claims {count} elements, and {self.end - self.pos} bytes are left")
        return count

    def skip_tags(self) -> None:
        """Pass a struct's tagged fields, whatever they are; there are none in the old layout."""
        if self.flexible:
            for _ in range(self.uvarint()):
                self.uvarint()
                self.skip(self.uvarint())


def uvarint(value: int) -> bytes:
    """An unsigned varint."""
    if value < 0x80:
        return bytes((value,))
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def array_length(count: int, *, flexible: bool) -> bytes:
    """What leads an array of `count` elements."""
    return uvarint(count + 1) if flexible else _INT32.pack(count)


def string(text: str, *, flexible: bool) -> bytes:
    """A string that is not null. Raises ValueError above `MAX_STRING` bytes."""
    encoded = text.encode()
    if len(encoded) > MAX_STRING:
        raise ValueError(f"a Kafka string has at most {MAX_STRING} bytes, not {len(encoded)}")
    return (uvarint(len(encoded) + 1) if flexible else _INT16.pack(len(encoded))) + encoded
