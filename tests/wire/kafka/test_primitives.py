"""The protocol's types: what is read, and where reading stops."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import UpstreamProtocolError
from mtlskit.wire.kafka.primitives import MAX_STRING, Place, Reader, array_length, string, uvarint

PLACE = Place("Metadata", 3, 12)


def reader(data: bytes, *, flexible: bool = True, lead: bytes = b"\x09\x09") -> Reader:
    """Over `data` in the middle of something, so that a read beyond either end shows."""
    return Reader(
        memoryview(lead + data + b"\x01" * 9), len(lead), len(lead) + len(data), flexible=flexible, place=PLACE
    )


@given(st.integers(0, 2**32 - 1))
def test_a_varint_reads_as_it_was_written(value: int) -> None:
    written = uvarint(value)
    cursor = reader(written)
    assert cursor.uvarint() == value
    assert (cursor.pos, len(written) <= 5) == (cursor.end, True)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "a varint is cut off"),
        (b"\x80", "a varint is cut off"),
        (b"\xff\xff\xff\xff\x7f", "a varint has more than 32 bits"),
        (b"\xff\xff\xff\xff\xff\x01", "a varint has more than 32 bits"),
    ],
)
def test_a_varint_that_is_none(data: bytes, fault: str) -> None:
    with pytest.raises(UpstreamProtocolError, match=fault):
        reader(data).uvarint()


@given(st.text(max_size=400), st.booleans())
def test_a_string_reads_as_it_was_written(text: str, flexible: bool) -> None:
    written = string(text, flexible=flexible)
    assert reader(written, flexible=flexible).text() == text
    cursor = reader(written, flexible=flexible)
    cursor.skip_string()
    assert cursor.pos == cursor.end


@pytest.mark.parametrize(("data", "flexible"), [(b"\0", True), (b"\1", True), (b"\xff\xff", False), (b"\0\0", False)])
def test_null_and_empty_strings_read_as_empty(data: bytes, flexible: bool) -> None:
    assert reader(data, flexible=flexible).text() == ""
    cursor = reader(data, flexible=flexible)
    cursor.skip_string()
    assert cursor.pos == cursor.end


@pytest.mark.parametrize(
    ("data", "flexible", "fault"),
    [
        (b"\xff\xfe", False, "a string claims -2 bytes"),
        (uvarint(MAX_STRING + 2), True, "a string claims 32768 bytes"),
        (b"\x05abc", True, "a string claims 4 bytes, and 3 are left"),
        (b"\0\4abc", False, "a string claims 4 bytes, and 3 are left"),
        (b"\0", False, "2 bytes should follow, and 1 are there"),
        (b"\x03\xff\xfe", True, "a string is not UTF-8"),
    ],
)
def test_a_string_that_is_none(data: bytes, flexible: bool, fault: str) -> None:
    with pytest.raises(UpstreamProtocolError, match=fault):
        reader(data, flexible=flexible).text()


def test_a_string_that_is_too_long_is_not_written() -> None:
    with pytest.raises(ValueError, match="at most 32767 bytes, not 32768"):
        string("x" * (MAX_STRING + 1), flexible=True)


@pytest.mark.parametrize("flexible", [True, False])
def test_an_array_has_as_many_elements_as_it_says(flexible: bool) -> None:
    assert reader(array_length(3, flexible=flexible) + b"abc", flexible=flexible).count() == 3


@pytest.mark.parametrize(("data", "flexible"), [(b"\0", True), (b"\xff\xff\xff\xff", False)])
def test_an_array_that_is_null_is_empty(data: bytes, flexible: bool) -> None:
    assert reader(data, flexible=flexible).count() == 0


@pytest.mark.parametrize(
    ("data", "flexible"), [(b"\x05abc", True), (b"\xff\xff\xff\xfe", False), (b"\0\0\0\4abc", False)]
)
def test_an_array_that_lies(data: bytes, flexible: bool) -> None:
    with pytest.raises(UpstreamProtocolError, match=r"an array claims -?\d elements, and \d bytes are left"):
        reader(data, flexible=flexible).count()


def test_tagged_fields_are_passed_over() -> None:
    cursor = reader(b"\x02\x07\x03abc\x80\x01\x00rest")
    cursor.skip_tags()
    assert cursor.end - cursor.pos == 4


def test_the_old_layout_has_no_tagged_fields() -> None:
    cursor = reader(b"\x02", flexible=False)
    cursor.skip_tags()
    assert cursor.end - cursor.pos == 1


def test_integers() -> None:
    cursor = reader(b"\xff\xfe\xff\xff\xff\xfd")
    assert (cursor.int16(), cursor.int32()) == (-2, -3)


def test_an_error_names_the_message_and_the_byte() -> None:
    cursor = reader(b"\0\0\0")
    cursor.skip(2)
    with pytest.raises(UpstreamProtocolError) as caught:
        cursor.int32()
    assert "Metadata response (api key 3, version 12) cannot be read at byte 2: 4 bytes should" in str(caught.value)
