"""Whole messages of a server, simple queries, and the older answers for a password."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.postgres.messages import Message, error_response, frame
from mtlskit.wire.postgres.passwords import clear_text_answer, md5_answer
from mtlskit.wire.postgres.query import (
    MAX_EXCHANGE,
    MAX_MESSAGE,
    TERMINATE,
    Answer,
    AnswerReader,
    MessageReader,
    parameter_of,
    query,
)

READY = Message(b"Z", b"I")


def row(*values: bytes | None) -> Message:
    """A DataRow."""
    parts = [struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value for value in values]
    return Message(b"D", struct.pack("!H", len(values)) + b"".join(parts))


def _answer(*messages: Message) -> Answer:
    reader = AnswerReader()
    *before, last = [reader.receive(message) for message in messages]
    assert before == [None] * len(before)
    assert last is not None
    return last


def test_what_is_sent() -> None:
    assert query("SELECT 1") == b"Q\x00\x00\x00\x0dSELECT 1\x00"
    assert TERMINATE == b"X\x00\x00\x00\x04"
    with pytest.raises(ValueError, match="NUL"):
        query("SELECT '\0'")


def test_passwords_as_postgresql_wants_them() -> None:
    assert clear_text_answer("secret") == b"p\x00\x00\x00\x0bsecret\x00"
    # echo -n secretann | md5sum, and the hexadecimal text of that with the salt once more
    assert md5_answer("ann", "secret", b"\x01\x02\x03\x04") == frame(b"p", b"md5" + _MD5 + b"\0")
    with pytest.raises(ValueError, match="NUL"):
        clear_text_answer("a\0b")


_MD5 = b"9009ce60b9ca97f1e752376843d1309e"


@given(st.lists(st.tuples(st.sampled_from([b"R", b"Z", b"D"]), st.binary(max_size=50)), max_size=8), st.data())
def test_messages_come_whole_however_they_are_read(messages: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(frame(kind, body) for kind, body in messages)
    reader, found = MessageReader(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        reader.feed(stream[:size])
        stream = stream[size:]
        while (message := reader.next()) is not None:
            found.append((message.kind, message.body))
    assert found == messages


@pytest.mark.parametrize("length", [0, 3, MAX_MESSAGE + 5, 0xFFFFFFFF])
def test_an_impossible_length_is_seen_at_once(length: int) -> None:
    reader = MessageReader()
    reader.feed(b"D" + struct.pack("!I", length))
    with pytest.raises(UpstreamProtocolError) as caught:
        reader.next()
    assert caught.value.code is Code.PG_SERVER_RUBBISH


def test_an_answer_without_an_end_is_cut_off() -> None:
    reader = MessageReader()
    notice = frame(b"N", b"x" * 1000)
    for _ in range(MAX_EXCHANGE // len(notice)):
        reader.feed(notice)
        assert reader.next() is not None
    with pytest.raises(UpstreamProtocolError):
        reader.feed(notice)
    reader.begin()
    reader.feed(notice)


def test_rows() -> None:
    answer = _answer(Message(b"T", b"whatever"), row(b"1", None, b"\xff"), row(), Message(b"C", b"SELECT 2\0"), READY)
    assert answer == Answer((("1", None, "\\xff"), ()))


def test_an_error() -> None:
    error = error_response(severity="ERROR", sqlstate="42P01", message="no such relation")
    answer = _answer(Message(b"E", error[5:]), READY)
    assert answer.error is not None
    assert answer.error.sqlstate == "42P01"
    assert not answer.rows


@pytest.mark.parametrize("body", [b"", b"\0", b"\0\1", b"\0\1\0\0\0\5abc", b"\0\2\0\0\0\1a", b"\0\1\xff\xff\xff\xfe"])
def test_a_row_that_is_cut_short(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError, match="cut short"):
        AnswerReader().receive(Message(b"D", body))


@pytest.mark.parametrize("kind", [b"G", b"R", b"\0", b"d"])
def test_what_does_not_belong_to_a_query(kind: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        AnswerReader().receive(Message(kind, b""))


def test_parameters() -> None:
    assert parameter_of(b"server_version\x0018.0\0") == ("server_version", "18.0")
    assert parameter_of(b"rubbish\xff") == ("rubbish\\xff", "")
    assert parameter_of(b"") == ("", "")
