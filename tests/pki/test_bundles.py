"""Files of every form, told by what is in them; what is refused is refused by its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs7,
    pkcs12,
)

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.authority import Authority
from mtlskit.pki.bundles import Bundle, read_bundle
from mtlskit.pki.keys import private_key_pem
from tests.support.der_patch import as_ber, encode
from tests.support.openssl import openssl
from tests.support.x509_builder import NOW, make_certificate, make_request

ROOT = make_certificate("root", ca=True, usages=None, digital_signature=False)
LEAF = make_certificate("leaf", issuer=ROOT)
OTHER = make_certificate("other")
LOCKED = private_key_pem(LEAF.key, b"x")
PKCS8 = LEAF.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
SEC1 = LEAF.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
LOCKED_DER = LEAF.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def p12(secret: KeySerializationEncryption | None = None, *, key: bool = True, chain: bool = True) -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"me",
        LEAF.key if key else None,
        LEAF.certificate if key else None,
        [ROOT.certificate] if chain else None,
        secret or BestAvailableEncryption(b"x"),
    )


def read(data: bytes, passphrase: bytes | None = None) -> Bundle:
    return read_bundle(data, source="f", passphrase=passphrase)


def refused(data: bytes, passphrase: bytes | None = None) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        read_bundle(data, source="f.bin", passphrase=passphrase)
    assert "f.bin" in caught.value.sentence
    assert caught.value.sentence.isprintable()
    assert caught.value.hint
    return caught.value


PEM = LEAF.cert_pem + ROOT.cert_pem


@pytest.mark.parametrize(
    ("data", "passphrase", "form"),
    [
        (LEAF.key_pem + PEM, None, "pem"),
        (LEAF.cert_pem + LEAF.key_pem + ROOT.cert_pem, None, "pem"),
        (b"Bag Attributes\n" + PEM + b"x\n" + LOCKED, b"x", "pem"),
        (PEM + openssl("ec", stdin=LEAF.key_pem), None, "pem"),
        (p12(), b"x", "pkcs12"),
        (p12(NoEncryption()), None, "pkcs12"),
        (p12(NoEncryption()), b"", "pkcs12"),
    ],
    ids=["key first", "between", "locked", "sec1", "p12", "open p12", "open p12, empty passphrase"],
)
def test_certificates_with_their_key(data: bytes, passphrase: bytes | None, form: str) -> None:
    bundle = read(data, passphrase)
    assert bundle.certificates == (LEAF.certificate, ROOT.certificate)
    assert bundle.key is not None
    assert private_key_pem(bundle.key) == LEAF.key_pem
    assert (bundle.form, bundle.notes) == (form, ())
    assert "PrivateKey" not in repr(bundle)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_archive_that_openssl_made(tmp_path: Path, legacy: bool) -> None:
    for name, data in (("c", PEM), ("k", LEAF.key_pem)):
        (tmp_path / name).write_bytes(data)
    more = ["-legacy"] if legacy else []
    data = openssl("pkcs12", "-export", *more, "-in", tmp_path / "c", "-inkey", tmp_path / "k", "-passout", "pass:x")
    bundle = read(data, b"x")
    assert bundle.certificates == (LEAF.certificate, ROOT.certificate)
    assert bundle.encrypted


@pytest.mark.parametrize("passphrase", ["", "x"])
def test_an_archive_as_browsers_write_it(passphrase: str) -> None:
    """BER: lengths are indefinite, and octet strings come in pieces."""
    ber = as_ber(p12() if passphrase else p12(NoEncryption()), inside=False)
    assert read(ber, passphrase.encode() or None).certificates == (LEAF.certificate, ROOT.certificate)
    assert "cut short" in refused(ber[:-40], b"x").sentence


def test_an_archive_of_certificates_alone() -> None:
    bundle = read(p12(key=False), b"x")
    assert (bundle.certificates, bundle.key) == ((ROOT.certificate,), None)


@pytest.mark.parametrize(
    ("data", "passphrase"), [(PKCS8, None), (SEC1, None), (LOCKED_DER, b"x")], ids=["pkcs8", "sec1", "locked"]
)
def test_keys_in_der(data: bytes, passphrase: bytes | None) -> None:
    bundle = read(data, passphrase)
    assert bundle.key is not None
    assert private_key_pem(bundle.key) == LEAF.key_pem
    assert (bundle.certificates, bundle.form, bundle.encrypted) == ((), "der", passphrase is not None)


def test_an_rsa_key_in_pkcs1_der() -> None:
    bundle = read(RSA.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    assert bundle.key is not None
    assert bundle.key.private_numbers() == RSA.private_numbers()  # type: ignore[union-attr] # it is RSA


def test_a_certificate_in_der() -> None:
    bundle = read(LEAF.certificate.public_bytes(Encoding.DER))
    assert (bundle.certificates, bundle.key, bundle.form) == ((LEAF.certificate,), None, "der")


# Passphrases.


@pytest.mark.parametrize("data", [PEM + LOCKED, LOCKED_DER, p12()], ids=["pem", "der", "p12"])
def test_passphrases_that_are_missing_or_wrong(data: bytes) -> None:
    assert refused(data).code is Code.KEY_ENCRYPTED
    assert refused(data, b"").code is Code.KEY_PASSPHRASE_WRONG
    assert refused(data, b"wrong").code is Code.KEY_PASSPHRASE_WRONG
    assert refused(data, b"\xff\xfe").code is Code.KEY_PASSPHRASE_WRONG


@pytest.mark.parametrize("data", [PEM + LOCKED, LOCKED_DER], ids=["pem", "der"])
def test_a_key_that_is_not_needed_stays_closed(data: bytes) -> None:
    bundle = read_bundle(data, source="f", key_optional=True)
    assert bundle.key is None
    assert bundle.encrypted
    assert bundle.notes == ("f: the private key is encrypted; give its passphrase to see whether it fits",)
    assert read_bundle(data, source="f", passphrase=b"x", key_optional=True).key is not None


# Several keys, and other things in between.


def test_of_several_keys_the_one_with_a_certificate_is_taken() -> None:
    bundle = read(OTHER.key_pem + LEAF.key_pem + PEM)
    assert bundle.key is not None
    assert private_key_pem(bundle.key) == LEAF.key_pem
    assert bundle.notes == ("f holds 2 private keys; the one that a certificate in it is for is taken",)
    assert read(OTHER.key_pem + LEAF.key_pem).notes == ("f holds 2 private keys; the first is taken",)
    assert read(LEAF.key_pem * 5 + PEM).notes == ()


def test_what_is_left_out_is_said() -> None:
    authority = Authority.create("ca", now=NOW)
    request = make_request(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.PEM)
    bundle = read(authority.revocation_list([], now=NOW) + PEM + request)
    assert bundle.notes == ("f: left out: a revocation list and a certificate request",)


# What is refused.


def weak() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - too short on purpose
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def other_kind() -> bytes:
    return dsa.generate_private_key(2048).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


BROKEN = LEAF.certificate.public_bytes(Encoding.DER).replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020109"))

REFUSED = {
    "nothing": (b"", Code.PEM_WRONG_KIND, "is empty", "a certificate or a private key"),
    "prose": (b"hello\n", Code.PEM_WRONG_KIND, "no PEM block", "a certificate or a private key"),
    "large": (PEM.ljust(2**20 + 1), Code.PEM_TOO_LARGE, "1048577 bytes", "little else"),
    "large der": (encode(0x30, b"\0" * 2**20), Code.PEM_TOO_LARGE, "bytes", "little else"),
    "many": (PEM * 60, Code.PEM_TOO_LARGE, "120 certificates", "the client's own"),
    "pkcs7 der": (
        pkcs7.serialize_certificates([LEAF.certificate], Encoding.DER),
        Code.PEM_WRONG_KIND,
        "a PKCS #7 bundle",
        "openssl pkcs7 -inform DER -in f.bin -print_certs",
    ),
    "pkcs7 pem": (
        pkcs7.serialize_certificates([LEAF.certificate], Encoding.PEM),
        Code.PEM_WRONG_KIND,
        "a PKCS #7 bundle",
        "openssl pkcs7 -in f.bin -print_certs",
    ),
    "request": (
        make_request(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.PEM),
        Code.PEM_WRONG_KIND,
        "a certificate request",
        "mtlskit csr show",
    ),
    "der request": (
        make_request(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.DER),
        Code.PEM_WRONG_KIND,
        "a DER certificate request",
        "issued for the request",
    ),
    "ssh": (
        LEAF.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        if hasattr(LEAF.key, "curve")
        else b"",
        Code.PEM_WRONG_KIND,
        "an OpenSSH private key",
        "ssh-keygen",
    ),
    "java": (b"\xfe\xed\xfe\xed\0\0\0\2", Code.PEM_WRONG_KIND, "Java keystore", "keytool"),
    "trusted": (
        LEAF.cert_pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        Code.PEM_WRONG_KIND,
        "an OpenSSL trusted certificate",
        "openssl x509",
    ),
    "cut archive": (p12()[:300], Code.PEM_DAMAGED, "is cut short: it has 300 bytes", "as a binary file"),
    "cut certificate": (BROKEN[:-1], Code.PEM_DAMAGED, "is cut short", "as a binary file"),
    "damaged certificate": (BROKEN, Code.PEM_DAMAGED, "no X.509 certificate", "openssl x509"),
    "damaged key": (PKCS8[:-20] + bytes(20), Code.PEM_DAMAGED, "damaged", "openssl pkey"),
    "short rsa key": (weak(), Code.KEY_WEAK, "1024 bits", "a new key"),
    "dsa key": (other_kind(), Code.PEM_WRONG_KIND, "of the kind DSA", "openssl pkey"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_named(name: str) -> None:
    data, code, words, hint = REFUSED[name]
    error = refused(data)
    assert error.code is code
    assert words in error.sentence
    assert hint in error.hint


def test_a_weak_key_in_an_archive() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 - too short on purpose
    data = pkcs12.serialize_key_and_certificates(None, key, None, None, BestAvailableEncryption(b"x"))
    assert refused(data, b"x").code is Code.KEY_WEAK


def test_a_damaged_archive_is_no_traceback() -> None:
    data = bytearray(p12())
    data[len(data) // 2] ^= 0x55
    assert refused(bytes(data), b"x").code is Code.KEY_PASSPHRASE_WRONG
