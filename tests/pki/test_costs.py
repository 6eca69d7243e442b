"""The rounds that an encrypted file asks for are counted before they are computed, wherever they stand in it."""

from __future__ import annotations

from functools import reduce

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, pkcs12

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.bundles import read_bundle
from mtlskit.pki.costs import MAX_ROUNDS, refuse_costly, rounds
from mtlskit.pki.keys import load_private_key, open_der
from tests.support.der_patch import as_ber, encode, with_integer
from tests.support.openssl import openssl
from tests.support.x509_builder import make_certificate

ONE = make_certificate("one")
KEY_DER = openssl("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-iter", "4321", "-outform", "DER", "-passout", "pass:x",
                  stdin=ONE.key_pem)  # fmt: skip
SCRYPT = openssl("pkcs8", "-topk8", "-scrypt", "-outform", "DER", "-passout", "pass:x", stdin=ONE.key_pem)
OLD = openssl("pkcs8", "-topk8", "-v1", "PBE-SHA1-3DES", "-iter", "4321", "-outform", "DER", "-passout", "pass:x",
              stdin=ONE.key_pem)  # fmt: skip


def archive(*, per_bag: int = 4321, legacy: bool = False) -> bytes:
    scheme = pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC if legacy else pkcs12.PBES.PBESv2SHA256AndAES256CBC
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(per_bag).key_cert_algorithm(scheme)
    secret = builder.hmac_hash(hashes.SHA256()).build(b"x")
    return pkcs12.serialize_key_and_certificates(b"me", ONE.key, ONE.certificate, None, secret)


def test_nothing_encrypted_costs_nothing() -> None:
    assert rounds(ONE.certificate.public_bytes(Encoding.DER)) == 0
    assert rounds(b"") == rounds(b"\x30") == rounds(b"\x30\x80") == rounds(b"\xff" * 50) == 0


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (KEY_DER, 4321),
        (OLD, 3 * 4321),
        (SCRYPT, 4 * 16384 * 8 * 1),
        (archive(), 2 * 4321 + 2048),  # certificates, key, MAC
        (archive(legacy=True), 2 * 3 * 4321 + 2048),
    ],
    ids=["pbkdf2", "pbes1", "scrypt", "archive", "old archive"],
)
def test_what_is_asked_for_is_counted(data: bytes, expected: int) -> None:
    assert rounds(data) == expected
    assert rounds(encode(4, data)) == expected
    assert rounds(as_ber(data, inside=True)) == expected
    assert rounds(as_ber(data, inside=False)) == expected
    assert rounds(b"\x30\x80" + data + b"\0\0") == expected
    assert rounds(b"\xbf\x81\x01" + encode(0x30, data)[1:]) == expected  # a tag in several octets


@pytest.mark.parametrize("many", [MAX_ROUNDS + 1, 2**31 - 1, 2**31, 2**40, -1], ids=str)
@pytest.mark.parametrize(
    ("data", "number"),
    [(KEY_DER, 4321), (OLD, 4321), (SCRYPT, 16384), (SCRYPT, 8), (SCRYPT, 1)],
    ids=["pbkdf2", "pbes1", "scrypt N", "scrypt r", "scrypt p"],
)
def test_a_key_that_would_take_for_ever(data: bytes, number: int, many: int) -> None:
    """Without the refusal some of these compute for half an hour, and some end in a panic of the library."""
    hostile = with_integer(data, number, many)
    with pytest.raises(IdentityError) as caught:
        open_der(hostile, source="k.der", passphrase=b"x")
    assert caught.value.code is Code.KEY_TOO_COSTLY
    pem = openssl("base64", stdin=hostile)
    armoured = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + pem + b"-----END ENCRYPTED PRIVATE KEY-----\n"
    for read in (load_private_key, read_bundle):
        with pytest.raises(IdentityError) as caught:
            read(armoured, source="k.pem", passphrase=b"x")
        assert caught.value.code is Code.KEY_TOO_COSTLY
        assert "k.pem" in caught.value.sentence


@pytest.mark.parametrize("many", [MAX_ROUNDS + 1, 2**31 - 1, 2**31, 2**63, -5], ids=str)
@pytest.mark.parametrize("number", [4321, 2048], ids=["bags", "mac"])
@pytest.mark.parametrize("legacy", [False, True])
def test_an_archive_that_would_take_for_ever(legacy: bool, number: int, many: int) -> None:
    hostile = with_integer(archive(legacy=legacy), number, many)
    for passphrase in (b"x", b"wrong", b"", None):
        with pytest.raises(IdentityError) as caught:
            read_bundle(hostile, source="client.p12", passphrase=passphrase)
        assert caught.value.code is Code.KEY_TOO_COSTLY
        assert "client.p12" in caught.value.sentence


def test_many_bags_are_counted_together() -> None:
    part = with_integer(KEY_DER, 4321, MAX_ROUNDS // 10)
    refuse_costly(encode(0x30, part * 10), source="f")
    with pytest.raises(IdentityError):
        refuse_costly(encode(0x30, part * 11), source="f")


def test_the_most_that_is_allowed_is_opened() -> None:
    data = archive(per_bag=50_000)
    assert read_bundle(data, source="f", passphrase=b"x").certificates == (ONE.certificate,)


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x80" * 400_000,
        b"\x30\x80" * 400_000 + b"\0\0" * 400_000,
        encode(0x30, b"\x05\x00" * 400_000),
        b"\x24\x80" * 300_000 + b"\0\0" * 300_000,
        reduce(lambda inner, _: encode(0x30, inner), range(60), b""),
    ],
    ids=["opened only", "nested", "wide", "nested octet strings", "deep"],
)
def test_the_walk_itself_is_bounded(data: bytes) -> None:
    with pytest.raises(IdentityError) as caught:
        refuse_costly(data, source="f")
    assert "endless work" in caught.value.sentence


@pytest.mark.parametrize("many", [0, 3, 2**31])
def test_numbers_that_scrypt_cannot_use_are_an_error_of_ours(many: int) -> None:
    with pytest.raises(IdentityError) as caught:
        open_der(with_integer(SCRYPT, 16384, many), source="k", passphrase=b"x")
    assert caught.value.code in (Code.KEY_PASSPHRASE_WRONG, Code.KEY_TOO_COSTLY)
