"""The lines of the control protocol, without a socket."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.control.protocol import (
    MAX_ANSWER,
    MAX_REQUEST,
    LineReader,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_error,
    encode_request,
)
from mtlskit.errors import Code, ControlError, IdentityError


def test_a_request_survives_the_wire() -> None:
    assert encode_request(Request("status")) == b'{"v": 1, "do": "status"}\n'
    assert decode_request(encode_request(Request("reload", {"why": "ö\n"}))) == Request("reload", {"why": "ö\n"})


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"", "not a JSON object"),
        (b"GET / HTTP/1.1", "not a JSON object"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not a JSON object"),
        (b"[" * 50_000, "not a JSON object"),
        (b'{"v": ' + b"9" * 5_000 + b"}", "not a JSON object"),
        (b"{}", "version 1"),
        (b'{"v": true, "do": "status"}', "version 1"),
        (b'{"v": 2, "do": "status"}', "version 1"),
        (b'{"v": 1}', "what to do"),
        (b'{"v": 1, "do": ["status"]}', "what to do"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_request_is_refused_with_a_reason(line: bytes, complaint: str) -> None:
    with pytest.raises(ControlError, match=complaint) as caught:
        decode_request(line)
    assert caught.value.code is Code.CTL_REQUEST
    assert caught.value.hint


JSON = st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())


@given(st.binary(max_size=200) | JSON)
def test_any_line_is_a_request_or_an_error(line: bytes) -> None:
    """What else is raised fails the test."""
    for decode in (decode_request, decode_answer):
        with suppress(ControlError):
            assert decode(line)


def test_an_answer_carries_facts_or_an_error() -> None:
    assert decode_answer(encode_answer({"pid": 1})) == {"pid": 1}
    with pytest.raises(ControlError, match="expired") as caught:
        decode_answer(encode_error(IdentityError(Code.CERTIFICATE_EXPIRED, "it has expired", "renew it")))
    assert (caught.value.code, caught.value.hint) == (Code.CERTIFICATE_EXPIRED, "renew it")


def test_an_error_of_a_newer_version_is_told_all_the_same() -> None:
    with pytest.raises(ControlError, match="from the future") as caught:
        decode_answer(b'{"ok": false, "error": {"code": "MTLS-NEW-001", "reason": "from the future"}}')
    assert caught.value.code is Code.CTL_REQUEST


@pytest.mark.parametrize("line", [b"hello", b"{}", b'{"ok": 1}', b'{"ok": false}', b'{"ok": false, "error": "no"}'])
def test_what_is_no_answer_is_told(line: bytes) -> None:
    with pytest.raises(ControlError) as caught:
        decode_answer(line)
    assert caught.value.code is Code.CTL_NO_ANSWER


def test_an_answer_beyond_the_limit_becomes_an_error() -> None:
    with pytest.raises(ControlError, match="longer than"):
        decode_answer(encode_answer({"text": "x" * MAX_ANSWER}))


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_line_comes_in_pieces(size: int) -> None:
    reader, line, found = LineReader(MAX_REQUEST), b"x" * 2500 + b"\n", None
    assert reader.empty
    for start in range(0, len(line), size):
        assert found is None
        found = reader.receive(line[start : start + size])
    assert found == line[:-1]


def test_what_follows_the_line_is_dropped() -> None:
    assert LineReader(10).receive(b"one\ntwo\nthree four five") == b"one"


@pytest.mark.parametrize("pieces", [[b"x" * 10], [b"x" * 9, b"x"], [b"x" * 10 + b"\n"], [b"x" * 9, b"xx\n"]])
def test_a_line_is_bounded(pieces: list[bytes]) -> None:
    reader = LineReader(10)
    *before, last = pieces
    assert not any(reader.receive(piece) for piece in before)
    with pytest.raises(ControlError, match="longer than 10"):
        reader.receive(last)
    assert LineReader(10).receive(b"x" * 9 + b"\n") == b"x" * 9
