"""Kafka messages of any shape: made, written and read by kio, which knows all schemas of Apache Kafka 4.x.

kio writes no tagged fields but those of its schemas, and reads none, so `written` is a second writer that puts unknown
ones into every struct. It takes the fields and their types from kio's classes, and shares no code with the product.
"""

from __future__ import annotations

import dataclasses
import io
import random
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, get_origin
from uuid import UUID

from kio.index import load_response_schema
from kio.schema.errors import ErrorCode
from kio.serial import entity_reader, entity_writer

__all__ = [
    "ADDRESSED",
    "Rng",
    "body",
    "cuts",
    "frame",
    "moved",
    "of",
    "random_shape",
    "read",
    "request",
    "rng_of",
    "written",
]

ADDRESSED = [
    *((3, version) for version in range(14)),
    *((10, version) for version in range(7)),
    *((60, version) for version in range(3)),
    *((0, version) for version in range(10, 14)),
]
"""(api key, version) of each response that names brokers and is let through."""

Rng = random.Random


def rng_of(seed: int) -> Rng:
    """A source of shapes. hypothesis picks the seed: drawing each field by itself would take twenty times as long."""
    return Rng(seed)


_INTEGERS = {"int8": "!b", "int16": "!h", "int32": "!i", "int64": "!q", "bool": "!?"}


def frame(payload: bytes) -> bytes:
    return struct.pack("!i", len(payload)) + payload


def request(api_key: int, version: int, correlation_id: int = 7, *, acks: int = 1) -> bytes:
    """A request as short as it can be, but for a Produce request, which is whole up to its timeout."""
    head = struct.pack("!hhih", api_key, version, correlation_id, 2) + b"me"
    if api_key == 0:
        flexible = version >= 9
        head += (b"\0" if flexible else b"") + {True: b"\0", False: b"\xff\xff"}[flexible] * (version >= 3)
        head += struct.pack("!hi", acks, 1000)
    return frame(head)


def of(api_key: int, version: int) -> Any:
    """kio's class of a response."""
    return load_response_schema(api_key, version)


def body(entity: Any, correlation_id: int = 7) -> bytes:
    """The response, header included, by kio."""
    buffer = io.BytesIO()
    header = type(entity).__header_schema__
    entity_writer(header)(buffer, header(correlation_id=correlation_id))
    entity_writer(type(entity))(buffer, entity)
    return buffer.getvalue()


def read(kind: Any, payload: bytes) -> tuple[Any, Any]:
    """Header and body, by kio; nothing may be left."""
    header, at = entity_reader(kind.__header_schema__)(payload, 0)
    entity, size = entity_reader(kind)(payload, at)
    assert at + size == len(payload)
    return header, entity


def moved(entity: Any, address: Callable[[int, str, int], tuple[str, int]]) -> Any:
    """The same with other hosts and ports, wherever they stand."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(entity):
        value = getattr(entity, field.name)
        if isinstance(value, tuple):
            value = tuple(moved(item, address) if dataclasses.is_dataclass(item) else item for item in value)
        elif dataclasses.is_dataclass(value):
            value = moved(value, address)
        changes[field.name] = value
    if "host" in changes:
        node_id = changes["broker_id"] if "broker_id" in changes else changes["node_id"]
        changes["host"], changes["port"] = address(node_id, changes["host"], changes["port"])
    return type(entity)(**changes)


def random_shape(kind: Any, rng: Rng) -> Any:
    """An instance of one of kio's classes."""
    return kind(**{field.name: _value(field, field.type, rng) for field in dataclasses.fields(kind)})


def _value(field: Any, kind: Any, rng: Rng) -> Any:
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return tuple(
            _value(field, inner, rng) for _ in range(rng.choice((0, 1, 1, 2, 3)) if rng.random() < 0.97 else 130)
        )
    if dataclasses.is_dataclass(kind):
        return random_shape(kind, rng)
    nullable = type(None) in get_args(kind)
    if nullable and rng.random() < 0.2:
        return None
    match field.metadata["kafka_type"]:
        case "string":
            return rng.choice(("", "b-1.example", "ü" * rng.randrange(99), "x" * rng.randrange(300)))
        case "uuid":
            return UUID(int=rng.getrandbits(128) or 1)
        case "error_code":
            return rng.choice(list(ErrorCode))
        case "timedelta_i32":
            return timedelta(milliseconds=rng.randrange(1 << 31))
        case "datetime_i64":
            return datetime.fromtimestamp(rng.randrange(1 << 32), UTC)
        case "bool":
            return rng.random() < 0.5
        case "int8":
            return rng.choice((0, 1, 3, 127, -1))  # 2 means controllers in DescribeCluster
        case integer:
            bits = 8 * struct.calcsize(_INTEGERS[integer]) - 1
            return rng.choice((-1, 0, 1, 1001, rng.getrandbits(bits), -rng.getrandbits(bits)))


def written(entity: Any, tags: Rng | None, correlation_id: int = 7) -> bytes:
    """The response, header included, with unknown tagged fields in every struct (none without `tags`)."""
    header = type(entity).__header_schema__
    return (
        struct.pack("!i", correlation_id) + (_tagged({}, tags) if header.__flexible__ else b"") + _struct(entity, tags)
    )


def _struct(entity: Any, tags: Rng | None) -> bytes:
    out, known = b"", {}
    for field in dataclasses.fields(entity):
        value = getattr(entity, field.name)
        encoded = _field(value, field.metadata.get("kafka_type"), type(entity).__flexible__, tags)
        if "tag" not in field.metadata:
            out += encoded
        elif value != field.default:
            known[field.metadata["tag"]] = encoded
    return out + (_tagged(known, tags) if type(entity).__flexible__ else b"")


def _tagged(known: dict[int, bytes], tags: Rng | None) -> bytes:
    fields = dict(known)
    if tags is not None:
        for _ in range(tags.choice((0, 1, 2))):
            fields[tags.choice((100, 127, 128, tags.getrandbits(32) | 1 << 20))] = tags.randbytes(
                tags.choice((0, 1, 127, 128, 300))
            )
    return _varint(len(fields)) + b"".join(
        _varint(tag) + _varint(len(value)) + value for tag, value in sorted(fields.items())
    )


def _field(value: Any, kafka_type: str | None, flexible: bool, tags: Rng | None) -> bytes:
    if isinstance(value, tuple):
        length = _varint(len(value) + 1) if flexible else struct.pack("!i", len(value))
        return length + b"".join(_field(item, kafka_type, flexible, tags) for item in value)
    match kafka_type:
        case None:
            return _struct(value, tags)
        case "string":
            if value is None:
                return b"\0" if flexible else b"\xff\xff"
            text: bytes = value.encode()
            return (_varint(len(text) + 1) if flexible else struct.pack("!h", len(text))) + text
        case "uuid":
            return bytes(16) if value is None else bytes(value.bytes)
        case "error_code":
            return struct.pack("!h", value.value)
        case "timedelta_i32":
            return struct.pack("!i", value // timedelta(milliseconds=1))
        case "datetime_i64":
            return struct.pack("!q", -1 if value is None else round(value.timestamp() * 1000))
        case integer:
            return struct.pack(_INTEGERS[integer], value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes(out) + bytes((value,))


def cuts(data: bytes, rng: Rng, most: int = 8) -> Iterator[memoryview]:
    """The same bytes in several reads, each in memory of its own that is overwritten afterwards."""
    places = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(most)))
    for begin, end in zip([0, *places], [*places, len(data)], strict=True):
        buffer = bytearray(data[begin:end])
        yield memoryview(buffer)
        buffer[:] = b"\xaa" * len(buffer)
