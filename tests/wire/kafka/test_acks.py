"""The acks of a Produce request, written by kio, however the bytes come."""

from __future__ import annotations

import io
import struct
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kio.index import load_request_schema
from kio.serial import entity_writer
from kio.static.primitive import i32Timedelta

from mtlskit.errors import ClientProtocolError, Code
from mtlskit.wire.kafka.acks import MAX_HEAD, AcksReader


def produce(version: int, acks: int, client_id: str | None, transactional_id: str | None, tags: bytes = b"\0") -> bytes:
    """The front of a request, up to no topics at all. kio begins with version 3; older ones are written by hand."""
    if version < 3:
        name = b"\xff\xff" if client_id is None else struct.pack("!h", len(client_id.encode())) + client_id.encode()
        return struct.pack("!hhi", 0, version, 7) + name + struct.pack("!hii", acks, 1000, 0)
    kind: Any = load_request_schema(0, version)
    buffer = io.BytesIO()
    header: Any = kind.__header_schema__
    entity_writer(header)(
        buffer, header(request_api_key=0, request_api_version=version, correlation_id=7, client_id=client_id)
    )
    front = buffer.getvalue()
    if version >= 9:
        assert front.endswith(b"\0")
        front = front[:-1] + tags
    buffer = io.BytesIO()
    entity_writer(kind)(
        buffer,
        kind(
            transactional_id=transactional_id,
            acks=acks,
            timeout=i32Timedelta.parse(timedelta(seconds=1)),
            topic_data=(),
        ),
    )
    return front + buffer.getvalue()


NAMES = st.none() | st.text(max_size=200)


@pytest.mark.parametrize("version", range(14))
@settings(max_examples=25, deadline=None)
@given(acks=st.sampled_from([0, 1, -1]), client_id=NAMES, transactional_id=NAMES)
def test_acks_are_read(version: int, acks: int, client_id: str | None, transactional_id: str | None) -> None:
    payload = produce(version, acks, client_id, transactional_id)
    assert AcksReader(version, len(payload)).acks(memoryview(b"size" + payload), 4) == acks


@pytest.mark.parametrize("version", range(14))
def test_acks_are_read_byte_by_byte(version: int) -> None:
    payload = produce(version, -1, "client", "transaction" * 20, tags=b"\2\x80\x01\3abc\x07\0")
    whole = len(payload) - (4 + (2 if version >= 9 else 4))  # without the timeout, the empty array and the tags
    reader = AcksReader(version, len(payload))
    buffer = bytearray(b"size" + payload[:8])
    for byte in payload[8:whole]:
        assert reader.acks(buffer, 4) is None
        buffer.append(byte)
    assert reader.acks(buffer, 4) == -1


@pytest.mark.parametrize(
    ("version", "rest", "fault"),
    [
        (3, b"\xff\xfe", "at byte 10: a string claims -2 bytes"),
        (3, b"\0\x09abc", "at byte 10: 9 bytes should follow, and 3 are left"),
        (3, b"\xff\xff\xff\xff\0", "at byte 12: 2 bytes should follow, and 1 are left"),
        (9, b"\xff\xff\xff\xff\xff\xff\xff\xff", "at byte 15: a varint has more than 32 bits"),
        (9, b"\xff\xff\0\xff\xff\x7f", "at byte 14: a string claims 2097150 bytes"),
        (9, b"\xff\xff\1\0\xff\xff\x7f", "2097151 bytes should follow"),
    ],
)
def test_a_request_that_lies(version: int, rest: bytes, fault: str) -> None:
    payload = struct.pack("!hhi", 0, version, 7) + rest
    with pytest.raises(ClientProtocolError, match=fault) as caught:
        AcksReader(version, len(payload)).acks(payload, 0)
    assert caught.value.code is Code.KAFKA_CLIENT_RUBBISH
    assert f"version {version}" in caught.value.sentence


def test_what_stands_before_acks_is_bounded() -> None:
    payload = struct.pack("!hhih", 0, 9, 7, -1) + b"\1\0\x80\x80\x08"  # one tagged field of 128 KiB
    with pytest.raises(ClientProtocolError, match=f"have more than {MAX_HEAD} bytes"):
        AcksReader(9, 1 << 30).acks(payload, 0)
