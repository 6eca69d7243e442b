"""Requests: what is asked for is what openssl reads, and what others made is read or refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.keys import KeyType, generate_key, private_key_pem
from mtlskit.pki.requests import (
    MAX_ALTERNATIVES,
    Usage,
    Wishes,
    alternative_name,
    alternative_text,
    load_request,
    make_request,
    request_facts,
    subject_name,
)
from tests.support.openssl import openssl, run_openssl

_FIVE = ("DNS:bi.example.com", "DNS:*.example.com", "IP:192.0.2.7", "IP:2001:db8::1", "URI:spiffe://example.com/bi")
NAMES = (*_FIVE, "email:ops@example.com")
KINDS = [KeyType.EC_P256, KeyType.EC_P384, KeyType.ED25519, KeyType.RSA_2048]


def made(kind: KeyType = KeyType.EC_P256, wishes: Wishes | None = None) -> bytes:
    return make_request(generate_key(kind), wishes or Wishes(subject_name("CN=reporting")))


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_agrees_with_what_was_asked_for(kind: KeyType, tmp_path: Path) -> None:
    wishes = Wishes(
        subject_name("CN=reporting,OU=BI,O=Example"), tuple(map(alternative_name, NAMES)), (Usage.CLIENT, Usage.SERVER)
    )
    path = tmp_path / "client.csr"
    path.write_bytes(made(kind, wishes))
    assert run_openssl("req", "-in", str(path), "-noout", "-verify").returncode == 0
    text = openssl("req", "-in", path, "-noout", "-text", "-nameopt", "RFC2253").decode()
    assert "Subject: CN=reporting,OU=BI,O=Example" in text
    assert "TLS Web Client Authentication, TLS Web Server Authentication" in text
    assert "Digital Signature" in text
    names = "DNS:bi.example.com, DNS:*.example.com, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:1"
    assert names in text
    assert "URI:spiffe://example.com/bi, email:ops@example.com" in text
    facts = request_facts(load_request(path.read_bytes(), source="client.csr"))
    assert facts.subject == "CN=reporting,OU=BI,O=Example"
    assert (facts.names, facts.usages) == (NAMES, ("clientAuth", "serverAuth"))


@pytest.mark.parametrize(
    ("kind", "key", "signature"),
    [
        (KeyType.EC_P256, "EC secp256r1", "EC with SHA256"),
        (KeyType.EC_P384, "EC secp384r1", "EC with SHA256"),
        (KeyType.ED25519, "Ed25519", "Ed25519"),
        (KeyType.RSA_2048, "RSA 2048 bits", "RSA with SHA256"),
    ],
)
def test_the_key_and_its_pin(kind: KeyType, key: str, signature: str, tmp_path: Path) -> None:
    private = generate_key(kind)
    facts = request_facts(load_request(make_request(private, Wishes(subject_name("CN=a"))), source="x"))
    assert (facts.key, facts.signature, facts.names, facts.usages) == (key, signature, (), ("clientAuth",))
    path = tmp_path / "k"
    path.write_bytes(private_key_pem(private))
    public = run_openssl("pkey", "-in", str(path), "-pubout", "-outform", "DER").stdout
    digest = run_openssl("dgst", "-sha256", "-binary", stdin=public).stdout
    assert facts.spki_sha256 == run_openssl("base64", "-A", stdin=digest).stdout.decode().strip()


def test_a_request_of_openssl_is_read_in_each_form(tmp_path: Path) -> None:
    key, pem_file = tmp_path / "k.pem", tmp_path / "r.pem"
    key.write_bytes(private_key_pem(generate_key()))
    openssl("req", "-new", "-key", str(key), "-subj", "/O=Example/CN=other", "-out", str(pem_file))
    pem = pem_file.read_bytes()
    der = run_openssl("req", "-in", str(pem_file), "-outform", "DER").stdout
    for data in (pem, der, key.read_bytes() + pem, pem.replace(b"CERTIFICATE REQUEST", b"NEW CERTIFICATE REQUEST")):
        assert request_facts(load_request(data, source="x")).subject == "CN=other,O=Example"


def test_a_request_that_was_changed_is_refused() -> None:
    der = bytearray(x509.load_pem_x509_csr(made()).public_bytes(serialization.Encoding.DER))
    der[der.index(b"reporting")] ^= 1
    with pytest.raises(IdentityError) as caught:
        load_request(bytes(der), source="client.csr")
    assert caught.value.code is Code.REQUEST_NOT_SIGNED


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", Code.PEM_WRONG_KIND),
        (private_key_pem(generate_key()), Code.PEM_WRONG_KIND),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", Code.PEM_DAMAGED),
        (made()[:200], Code.PEM_DAMAGED),
        (bytes(2_000_000), Code.PEM_TOO_LARGE),
    ],
    ids=["empty", "a key", "no request", "cut short", "enormous"],
)
def test_what_is_no_request(data: bytes, code: Code) -> None:
    with pytest.raises(IdentityError) as caught:
        load_request(data, source="client.csr")
    assert caught.value.code is code
    assert "client.csr" in caught.value.sentence


@given(st.binary(max_size=400))
def test_anything_is_read_or_refused(data: bytes) -> None:
    for text in (data, b"-----BEGIN CERTIFICATE REQUEST-----\n" + data + b"\n-----END CERTIFICATE REQUEST-----\n"):
        with pytest.raises(IdentityError):
            load_request(text, source="x")


@given(st.integers(0, 300), st.integers(1, 255))
def test_a_request_with_a_wrong_byte_is_read_or_refused(position: int, change: int) -> None:
    der = bytearray(_DER)
    der[position % len(der)] ^= change
    try:
        request_facts(load_request(bytes(der), source="x"))
    except IdentityError:
        return


_DER = x509.load_pem_x509_csr(made()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    "text",
    [
        *("", "reporting", "/CN=reporting", "CN=", "CN=a,,O=b", "NOSUCH=a", "C=Germany", "2.5.4.5=\u00fc", "DC=\u00fc"),
        "1.3.6.1.4.1.311.60.2.1.3=\u00fc",
        *("CN=a\x1b[31m", "CN=a\u202eb", f"O={'x' * 129}", f"2.5.4.26={'x' * 257}"),
    ],
)
def test_a_subject_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        subject_name(text)


@pytest.mark.parametrize("text", NAMES)
def test_names_come_back_as_they_were_written(text: str) -> None:
    assert alternative_text(alternative_name(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("bi.example.com", "DNS:", "DNS:a b", "DNS:-a.example", "DNS:bücher.example", "DNS:a..b", "DNS:a.*.b"),
        *("IP:", "IP:192.0.2.300", "IP:192.0.2.0/24", "URI:nothing", "URI:http://a b", "email:", "email:a@b@c", "X:y"),
    ],
)
def test_a_name_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        alternative_name(text)


def test_too_many_names() -> None:
    names = tuple(x509.DNSName(f"n{number}.example") for number in range(MAX_ALTERNATIVES + 1))
    with pytest.raises(ValueError, match="101 alternative names"):
        make_request(generate_key(), Wishes(subject_name("CN=a"), names))


def test_what_a_stranger_wrote_cannot_act_on_a_terminal() -> None:
    evil = Wishes(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a\x1b[31mb")]),
        (x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "c\x07")])),),
        (),
    )
    facts = request_facts(load_request(made(wishes=evil), source="x"))
    assert facts.subject.isprintable()
    assert all(name.isprintable() for name in facts.names)
    assert facts.usages == ()
