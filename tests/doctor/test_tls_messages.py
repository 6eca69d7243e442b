"""What is read from a server's handshake messages, and that rubbish is no more than a ValueError."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.doctor.tls.messages import requested_cas, server_hello


def vector(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size, "big") + content


def message(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + vector(3, body)


def name(*parts: tuple[x509.ObjectIdentifier, str]) -> bytes:
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts]).public_bytes()


def request_1_2(*names: bytes) -> bytes:
    """RFC 5246 section 7.4.4."""
    algorithms = vector(2, bytes.fromhex("04030804"))
    return message(13, vector(1, b"\x01\x40") + algorithms + vector(2, b"".join(vector(2, each) for each in names)))


def request_1_3(*names: bytes) -> bytes:
    """RFC 8446 section 4.3.2: the algorithms and, where there are names, extension 47."""
    extensions = b"\x00\x0d" + vector(2, vector(2, bytes.fromhex("04030804")))
    if names:
        extensions += b"\x00\x2f" + vector(2, vector(2, b"".join(vector(2, each) for each in names)))
    return message(13, vector(1, b"") + vector(2, extensions))


NAMES = (
    name((NameOID.COMMON_NAME, "our root")),
    name((NameOID.COUNTRY_NAME, "DE"), (NameOID.ORGANIZATION_NAME, "x" * 200), (NameOID.COMMON_NAME, "second")),
)


@pytest.mark.parametrize("tls13", [False, True])
def test_the_names_of_cas(tls13: bool) -> None:
    request = (request_1_3 if tls13 else request_1_2)(*NAMES)
    assert requested_cas(request, tls13=tls13) == ("CN=our root", f"CN=second,O={'x' * 200},C=DE")


@pytest.mark.parametrize("tls13", [False, True])
def test_no_names(tls13: bool) -> None:
    assert requested_cas((request_1_3 if tls13 else request_1_2)(), tls13=tls13) == ()


def test_names_are_escaped_and_bounded() -> None:
    (told,) = requested_cas(request_1_2(name((NameOID.COMMON_NAME, "a\x1b[31mred"))), tls13=False)
    assert "\x1b" not in told
    assert len(requested_cas(request_1_3(*[NAMES[0]] * 1000), tls13=True)) == 100


HELLO = bytes.fromhex("0303") + bytes(32) + vector(1, b"") + bytes.fromhex("1302") + b"\x00"


def test_a_hello_of_1_3() -> None:
    hello = server_hello(message(2, HELLO + vector(2, bytes.fromhex("002b00020304"))))
    assert (hello.version, hello.cipher) == ("TLSv1.3", 0x1302)


@pytest.mark.parametrize(
    ("version", "called"), [(0x0301, "TLSv1"), (0x0302, "TLSv1.1"), (0x0303, "TLSv1.2"), (0x7F1C, "0x7f1c")]
)
def test_a_hello_of_another_version(version: int, called: str) -> None:
    assert server_hello(message(2, version.to_bytes(2, "big") + HELLO[2:])).version == called


@given(data=st.binary(max_size=300), tls13=st.booleans())
def test_rubbish(data: bytes, tls13: bool) -> None:
    with suppress(ValueError):
        requested_cas(data, tls13=tls13)
    with suppress(ValueError):
        server_hello(data)


@given(at=st.integers(0, 400), byte=st.integers(0, 255), tls13=st.booleans())
def test_damage(at: int, byte: int, tls13: bool) -> None:
    whole = bytearray((request_1_3 if tls13 else request_1_2)(*NAMES))
    whole[at % len(whole)] = byte
    with suppress(ValueError):
        requested_cas(bytes(whole), tls13=tls13)
    with suppress(ValueError):
        requested_cas(bytes(whole[: at % len(whole)]), tls13=tls13)


def tlv(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content


def odd_name(tag: int, value: bytes) -> bytes:
    """A common name whose value is of another type than a name's."""
    common_name = bytes.fromhex("0603550403")
    return tlv(0x30, tlv(0x31, tlv(0x30, common_name + tlv(tag, value))))


@pytest.mark.parametrize("tls13", [False, True])
@pytest.mark.parametrize("odd", [odd_name(0x03, b"\0ab"), odd_name(0x0C, b"\xff\xff"), b"rubbish"])
def test_a_name_that_cannot_be_read_takes_no_other_with_it(odd: bytes, tls13: bool) -> None:
    request = (request_1_3 if tls13 else request_1_2)(NAMES[0], odd, NAMES[0])
    assert requested_cas(request, tls13=tls13) == ("CN=our root", "CN=our root")


@given(tag=st.integers(0, 255), value=st.binary(max_size=20), tls13=st.booleans())
def test_names_of_any_type(tag: int, value: bytes, tls13: bool) -> None:
    """No error beside, and no warning, which would be one here."""
    request = (request_1_3 if tls13 else request_1_2)(odd_name(tag, value), NAMES[0])
    assert requested_cas(request, tls13=tls13)[-1] == "CN=our root"


def test_an_empty_part_is_shown_as_such() -> None:
    assert requested_cas(request_1_2(odd_name(0x0C, b"")), tls13=False) == ("CN=",)
