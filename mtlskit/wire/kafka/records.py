"""One record of our own: written to a partition, and read again from where it went.

The record batch is that of magic 2 (KIP-98; protocol guide, "Record Batch"), uncompressed, with one record. It has a
key, because topics that are compacted refuse records without one. Produce 3 and Fetch 4 are the oldest versions that
carry such batches, from Kafka 0.11 on, and 4.x still takes both (KIP-896).

What comes back is recognised by the offset that the broker has given it, and not by its bytes: a broker may compress
again what it stores.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from mtlskit.wire.kafka.asking import behind_header, request
from mtlskit.wire.kafka.primitives import Buffer, array_length, string
from mtlskit.wire.kafka.tables import FETCH, PRODUCE

__all__ = [
    "FETCH_VERSION",
    "MAX_RECORDS",
    "PRODUCE_VERSION",
    "Fetched",
    "Produced",
    "batch_of",
    "fetch_request",
    "fetched_of",
    "holds_offset",
    "produce_request",
    "produced_of",
]

PRODUCE_VERSION: Final = 3
FETCH_VERSION: Final = 4

MAX_RECORDS: Final = 65_536
"""Bytes of records that are asked for. A broker gives a whole batch at least, and ours has a hundred."""

_ALL: Final = -1  # acks: every replica in sync
_CONSUMER: Final = -1  # the replica id of who is none
_MAGIC: Final = 2
_NO_TRANSACTION: Final = struct.pack("!h", -1)
_CLIENT_ID: Final = "mtlskit-doctor"

_BATCH: Final = struct.Struct("!qiib")  # base offset, length of what follows it, leader epoch, magic
_CRC: Final = struct.Struct("!I")
_CHECKED: Final = struct.Struct("!hiqqqhii")
"""Attributes, last offset delta, base and maximal timestamp, producer id and epoch, base sequence, count of records."""
_PARTITION_WANTED: Final = struct.Struct("!iqi")  # partition, offset, bytes
_INT32: Final = struct.Struct("!i")

_CASTAGNOLI: Final = 0x82F63B78
"""The polynomial of CRC-32C, reversed (RFC 3720, section 12.1)."""


@dataclass(frozen=True, slots=True)
class Produced:
    """What became of a record."""

    error: int
    offset: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a partition holds from an offset on."""

    error: int
    records: bytes


def batch_of(key: bytes, value: bytes, milliseconds: int) -> bytes:
    """A batch with one record of that time (Unix, in milliseconds)."""
    fields = b"\0" + _varint(0) + _varint(0)  # attributes, and no distance to the batch's time and offset
    content = fields + _varint(len(key)) + key + _varint(len(value)) + value + _varint(0)  # no headers
    checked = _CHECKED.pack(0, 0, milliseconds, milliseconds, -1, -1, -1, 1) + _varint(len(content)) + content
    behind = struct.pack("!ib", -1, _MAGIC) + _CRC.pack(_crc32c(checked)) + checked
    return struct.pack("!qi", 0, len(behind)) + behind


def produce_request(correlation_id: int, topic: str, partition: int, batch: bytes, *, milliseconds: int) -> bytes:
    """Writes a batch, and is answered when every replica in sync has it, or after that time."""
    body = (
        _NO_TRANSACTION
        + struct.pack("!hi", _ALL, milliseconds)
        + array_length(1, flexible=False)
        + string(topic, flexible=False)
        + array_length(1, flexible=False)
        + struct.pack("!ii", partition, len(batch))
        + batch
    )
    return request(PRODUCE, PRODUCE_VERSION, correlation_id, body, client_id=_CLIENT_ID)


def produced_of(answer: Buffer) -> Produced:
    """Reads the answer to `produce_request`. Raises UpstreamProtocolError for what cannot be read."""
    reader = behind_header(answer, PRODUCE, PRODUCE_VERSION)
    for _ in range(reader.count()):
        reader.skip_string()
        for _ in range(reader.count()):
            reader.int32()
            return Produced(reader.int16(), reader.int64())
    raise reader.fault("it tells nothing of the record")


def fetch_request(correlation_id: int, topic: str, partition: int, offset: int, *, milliseconds: int) -> bytes:
    """Reads what is there from an offset on, and waits that long for it."""
    body = (
        struct.pack("!iiiib", _CONSUMER, milliseconds, 1, MAX_RECORDS, 0)  # isolation level 0: read uncommitted
        + array_length(1, flexible=False)
        + string(topic, flexible=False)
        + array_length(1, flexible=False)
        + _PARTITION_WANTED.pack(partition, offset, MAX_RECORDS)
    )
    return request(FETCH, FETCH_VERSION, correlation_id, body, client_id=_CLIENT_ID)


def fetched_of(answer: Buffer) -> Fetched:
    """Reads the answer to `fetch_request`. Raises UpstreamProtocolError for what cannot be read."""
    reader = behind_header(answer, FETCH, FETCH_VERSION)
    reader.int32()  # throttle time
    for _ in range(reader.count()):
        reader.skip_string()
        for _ in range(reader.count()):
            reader.int32()
            error = reader.int16()
            reader.skip(16)  # high watermark and last stable offset
            reader.skip(16 * reader.count())  # aborted transactions
            size = max(reader.int32(), 0)
            at = reader.pos
            reader.skip(size)
            return Fetched(error, bytes(reader.data[at : at + size]))
    raise reader.fault("it tells nothing of the partition")


def holds_offset(records: bytes, offset: int) -> bool:
    """Whether there is a batch that covers this offset. The last batch may be cut off, which is no fault."""
    at = 0
    while at + _BATCH.size <= len(records):
        base, length, _, magic = _BATCH.unpack_from(records, at)
        last_delta = at + _BATCH.size + _CRC.size + 2
        if magic != _MAGIC or length < 0 or last_delta + _INT32.size > len(records):
            return False
        if base <= offset <= base + _INT32.unpack_from(records, last_delta)[0]:
            return True
        at += 12 + length  # base offset and length do not count themselves
    return False


def _varint(value: int) -> bytes:
    """A varint of a number that is not negative, as records have them: zigzag, then seven bits at a time."""
    left = value << 1
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _crc32c(data: bytes) -> int:
    """Of a hundred bytes, once: no table is worth its lines."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_CASTAGNOLI if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
