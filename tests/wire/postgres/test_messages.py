"""Builders and parsers of single messages: against bytes written by hand, and against each other."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import ClientProtocolError, Code
from mtlskit.wire.postgres import messages
from mtlskit.wire.postgres.messages import ErrorFields, Message, SaslInitialResponse
from mtlskit.wire.postgres.startup import CancelRequested, StartupReader, StartupReceived

SAFE_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


def test_the_fixed_packets() -> None:
    assert bytes.fromhex("00000008 04d2162f") == messages.SSL_REQUEST
    assert bytes.fromhex("00000008 04d21630") == messages.GSSENC_REQUEST
    assert messages.authentication_ok() == b"R\0\0\0\x08\0\0\0\0"


def test_sasl_messages_by_hand() -> None:
    assert messages.authentication_sasl(["SCRAM-SHA-256"]) == b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"
    assert messages.authentication_sasl_continue(b"r=1") == b"R\0\0\0\x0b\0\0\0\x0br=1"
    assert messages.authentication_sasl_final(b"v=2") == b"R\0\0\0\x0b\0\0\0\x0cv=2"


def test_an_error_response_by_hand() -> None:
    packet = messages.error_response(sqlstate="08001", message="no", hint="try")
    assert packet == b"E\0\0\0\x23SFATAL\0VFATAL\0C08001\0Mno\0Htry\0\0"
    assert struct.unpack_from("!I", packet, 1) == (len(packet) - 1,)


@given(SAFE_TEXT, SAFE_TEXT, SAFE_TEXT)
def test_an_error_response_can_be_read_back(message: str, detail: str, hint: str) -> None:
    packet = messages.error_response(severity="ERROR", sqlstate="08006", message=message, detail=detail, hint=hint)
    assert messages.parse_error_fields(packet[5:]) == ErrorFields("ERROR", "08006", message, detail, hint)


@given(st.text(), st.sampled_from("aé€😀\udcff"))
def test_an_error_response_is_never_so_long_that_libpq_misreads_it(start: str, filler: str) -> None:
    long = start + filler * 9_000
    packet = messages.error_response(sqlstate="08006", message=long, detail=long, hint=long)
    assert len(packet) <= 30_000
    packet[5:].decode("utf-8")  # no half character at the cut
    assert packet[5:].count(b"\0") == 6 + 1  # a NUL ends each field, and the list


@given(st.binary(max_size=200))
def test_damaged_error_fields_are_read_as_far_as_they_go(body: bytes) -> None:
    assert isinstance(messages.parse_error_fields(body), ErrorFields)


def test_error_fields_in_another_encoding_and_of_an_old_server() -> None:
    fields = messages.parse_error_fields(b"SFATAL\0C28P01\0MKennwort f\xfcr\0\0")
    assert fields == ErrorFields("FATAL", "28P01", "Kennwort f\\xfcr", "", "")


def test_the_untranslated_severity_counts() -> None:
    assert messages.parse_error_fields(b"SSCHWERWIEGEND\0VFATAL\0\0").severity == "FATAL"


@given(st.dictionaries(SAFE_TEXT.filter(bool), SAFE_TEXT, max_size=5), st.integers(0, 0xFFFF))
def test_a_startup_message_can_be_read_back(parameters: dict[str, str], minor: int) -> None:
    packet = messages.startup_message(parameters, (3, minor))
    reader = StartupReader()
    reader.receive(packet)
    assert reader.next_event() == StartupReceived((3, minor), parameters, packet)


@pytest.mark.parametrize("parameters", [{"": "x"}, {"a\0b": "x"}, {"a": "x\0y"}])
def test_a_startup_parameter_that_would_end_the_list_is_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        messages.startup_message(parameters)


@given(st.integers(0, 0xFFFF_FFFF), st.binary(min_size=4, max_size=256))
def test_a_cancel_request_can_be_read_back(process_id: int, secret: bytes) -> None:
    packet = messages.cancel_request(process_id, secret)
    reader = StartupReader()
    reader.receive(packet)
    assert reader.next_event() == CancelRequested(process_id, secret, packet)


def test_client_messages_are_taken_one_by_one_and_only_whole() -> None:
    whole = messages.frame(b"p", b"first") + messages.frame(b"p", b"")
    buffer = bytearray()
    taken: list[Message | None] = []
    for at in range(len(whole)):
        buffer += whole[at : at + 1]
        taken.append(messages.take_client_message(buffer))
    assert [(at, message) for at, message in enumerate(taken) if message] == [
        (9, Message(b"p", b"first")),
        (14, Message(b"p", b"")),
    ]
    assert not buffer


@pytest.mark.parametrize("length", [0, 3, 105, 0xFFFF_FFFF])
def test_a_client_message_of_impossible_length_is_refused_at_once(length: int) -> None:
    with pytest.raises(ClientProtocolError) as caught:
        messages.take_client_message(bytearray(b"p" + struct.pack("!I", length)), limit=100)
    assert caught.value.code is Code.PG_CLIENT_RUBBISH


def test_a_sasl_initial_response_with_and_without_data() -> None:
    with_data = Message(b"p", b"SCRAM-SHA-256\0\0\0\0\x03n,,")
    assert messages.parse_sasl_initial_response(with_data) == SaslInitialResponse("SCRAM-SHA-256", b"n,,")
    without = Message(b"p", b"SCRAM-SHA-256\0\xff\xff\xff\xff")
    assert messages.parse_sasl_initial_response(without) == SaslInitialResponse("SCRAM-SHA-256", None)
    empty = Message(b"p", b"SCRAM-SHA-256\0\0\0\0\0")
    assert messages.parse_sasl_initial_response(empty) == SaslInitialResponse("SCRAM-SHA-256", b"")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"SCRAM-SHA-256",
        b"\0\0\0\0\0",
        b"SCRAM-SHA-256\0\0\0",
        b"SCRAM-SHA-256\0\0\0\0\x04n,,",
        b"SCRAM-SHA-256\0\0\0\0\x02n,,",
        b"SCRAM-SHA-256\0\xff\xff\xff\xffx",
        b"SCRAM-SHA-256\0\xff\xff\xff\xfe",
    ],
)
def test_a_damaged_sasl_initial_response_is_refused(body: bytes) -> None:
    with pytest.raises(ClientProtocolError) as caught:
        messages.parse_sasl_initial_response(Message(b"p", body))
    assert caught.value.code is Code.PG_CLIENT_RUBBISH


def test_a_sasl_response_is_its_body() -> None:
    assert messages.parse_sasl_response(Message(b"p", b"c=biws")) == b"c=biws"
    with pytest.raises(ClientProtocolError, match='of type "Q"'):
        messages.parse_sasl_response(Message(b"Q", b"select 1\0"))
