"""Private keys in every form, and every way for one to be of no use."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.certificates import spki_sha256
from mtlskit.pki.keys import (
    KeyType,
    PrivateKey,
    generate_key,
    load_private_key,
    private_key_pem,
    public_key_der,
    spki_sha256_of_key,
)
from tests.support.openssl import openssl, run_openssl
from tests.support.x509_builder import make_certificate

PASSPHRASE = b"correct horse"
LEGACY = PrivateFormat.TraditionalOpenSSL
PLAIN = serialization.NoEncryption()


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def same(one: PrivateKey, other: PrivateKey) -> bool:
    return public_key_der(one) == public_key_der(other)


@pytest.mark.parametrize("kind", [KeyType.EC_P256, KeyType.EC_P384, KeyType.ED25519, KeyType.RSA_2048])
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_key_survives_the_way_through_pem(kind: KeyType, passphrase: bytes | None) -> None:
    key = generate_key(kind)
    pem = private_key_pem(key, passphrase)
    assert (b"ENCRYPTED" in pem) is bool(passphrase)
    assert same(load_private_key(pem, source="k", passphrase=passphrase), key)


@pytest.mark.parametrize(("kind", "bits"), [(KeyType.RSA_3072, 3072), (KeyType.RSA_4096, 4096)])
def test_large_rsa_keys_have_their_size(kind: KeyType, bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = rsa.generate_private_key

    def fast(*, public_exponent: int, key_size: int) -> rsa.RSAPrivateKey:
        asked.append(key_size)
        return real(public_exponent=public_exponent, key_size=2048)

    monkeypatch.setattr(rsa, "generate_private_key", fast)
    generate_key(kind)
    assert asked == [bits]


def test_sec1_pkcs1_and_legacy_encryption_are_read(rsa_key: rsa.RSAPrivateKey) -> None:
    curve_key = generate_key()
    for key in (curve_key, rsa_key):
        plain = key.private_bytes(Encoding.PEM, LEGACY, PLAIN)
        assert plain.startswith((b"-----BEGIN EC PRIVATE KEY", b"-----BEGIN RSA PRIVATE KEY"))
        assert same(load_private_key(plain, source="k"), key)
        closed = key.private_bytes(Encoding.PEM, LEGACY, serialization.BestAvailableEncryption(PASSPHRASE))
        assert b"Proc-Type: 4,ENCRYPTED" in closed
        assert same(load_private_key(closed, source="k", passphrase=PASSPHRASE), key)
        with pytest.raises(IdentityError) as caught:
            load_private_key(closed, source="old.key")
        assert caught.value.code is Code.KEY_ENCRYPTED


@pytest.mark.parametrize(
    "command",
    [
        ("ecparam", "-name", "prime256v1", "-genkey"),  # curve parameters stand in front of the key
        ("ecparam", "-name", "secp384r1", "-genkey", "-noout"),
        ("genpkey", "-algorithm", "ed25519"),
        ("genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:2048"),
        ("genpkey", "-algorithm", "ed25519", "-aes-256-cbc", "-pass", "pass:correct horse"),
        ("genrsa", "-traditional", "-aes128", "-passout", "pass:correct horse", "2048"),
    ],
    ids=" ".join,
)
def test_what_openssl_writes_is_read(command: tuple[str, ...]) -> None:
    pem = openssl(*command)
    key = load_private_key(pem, source="k", passphrase=PASSPHRASE)
    public = openssl("pkey", "-pubout", "-outform", "DER", "-passin", "pass:correct horse", stdin=pem)
    assert public_key_der(key) == public


def test_openssl_reads_what_we_write() -> None:
    key = generate_key()
    pem = private_key_pem(key, PASSPHRASE)
    assert openssl("pkey", "-pubout", "-outform", "DER", "-passin", "pass:correct horse", stdin=pem) == public_key_der(
        key
    )
    assert run_openssl("pkey", "-noout", "-passin", "pass:wrong", stdin=pem).returncode != 0


def test_a_key_is_found_beside_certificates_and_text() -> None:
    made = make_certificate()
    mixed = b"Bag Attributes\n  friendlyName: me\n" + made.cert_pem + b"some text\n" + made.key_pem
    key = load_private_key(mixed.replace(b"\n", b"\r\n"), source="both.pem")
    assert same(key, made.key)
    assert spki_sha256_of_key(key) == spki_sha256(made.certificate)


def test_a_passphrase_that_is_not_needed_is_ignored() -> None:
    key = generate_key()
    assert same(load_private_key(private_key_pem(key), source="k", passphrase=b"unused"), key)


def weak_rsa() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505 (weak is the point)
    return key.private_bytes(Encoding.PEM, LEGACY, PLAIN)


def other_kind(key: dsa.DSAPrivateKey | ed448.Ed448PrivateKey | x25519.X25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, PLAIN)


def openssh() -> bytes:
    return generate_key(KeyType.ED25519).private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, PLAIN)


def public() -> bytes:
    return generate_key().public_key().public_bytes(Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize(
    ("pem", "code", "words", "hint"),
    [
        (make_certificate().cert_pem, Code.PEM_WRONG_KIND, "holds a certificate, not a private key", "exchanged?"),
        (public(), Code.PEM_WRONG_KIND, "holds a public key, not a private key", "BEGIN PRIVATE"),
        (openssh(), Code.PEM_WRONG_KIND, "holds an OpenSSH private key", "ssh-keygen -p -m PKCS8"),
        (weak_rsa(), Code.KEY_WEAK, "an RSA key of 1024 bits", "make a new key"),
        (
            ec.generate_private_key(ec.SECP224R1()).private_bytes(Encoding.PEM, LEGACY, PLAIN),
            Code.KEY_WEAK,
            "secp224r1 (224 bits)",
            "make a new key",
        ),
        (other_kind(ed448.Ed448PrivateKey.generate()), Code.PEM_WRONG_KIND, "is of the kind Ed448", "openssl pkey"),
        (other_kind(x25519.X25519PrivateKey.generate()), Code.PEM_WRONG_KIND, "is of the kind X25519", "openssl pkey"),
        (
            b"-----BEGIN PRIVATE KEY-----\nMIIBAAAA\n-----END PRIVATE KEY-----\n",
            Code.PEM_DAMAGED,
            "k.pem (line 1) is damaged",
            "openssl pkey -in k.pem",
        ),
    ],
    ids=["certificate", "public key", "openssh", "rsa 1024", "p-224", "ed448", "x25519", "rubbish"],
)
def test_what_is_no_usable_key_is_named(pem: bytes, code: Code, words: str, hint: str) -> None:
    with pytest.raises(IdentityError) as caught:
        load_private_key(pem, source="k.pem")
    assert caught.value.code is code
    assert words in caught.value.sentence
    assert "k.pem" in caught.value.sentence
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("passphrase", "code"),
    [(None, Code.KEY_ENCRYPTED), (b"", Code.KEY_PASSPHRASE_WRONG), (b"wrong-guess", Code.KEY_PASSPHRASE_WRONG)],
)
def test_an_encrypted_key_without_its_passphrase(passphrase: bytes | None, code: Code) -> None:
    pem = private_key_pem(generate_key(), PASSPHRASE)
    with pytest.raises(IdentityError) as caught:
        load_private_key(pem, source="k.pem", passphrase=passphrase)
    assert caught.value.code is code
    assert "k.pem" in caught.value.sentence
    assert "wrong-guess" not in caught.value.sentence + caught.value.hint
    if code is Code.KEY_ENCRYPTED:
        assert "passphrase_file" in caught.value.hint
        assert "openssl pkey -in k.pem -out" in caught.value.hint


def test_an_exotic_cipher_comes_with_the_way_out() -> None:
    pem = openssl(
        "pkcs8", "-topk8", "-v2", "camellia-128-cbc", "-passout", "pass:secret", stdin=make_certificate().key_pem
    )
    with pytest.raises(IdentityError) as caught:
        load_private_key(pem, source="k.pem", passphrase=b"secret")
    assert caught.value.code is Code.KEY_PASSPHRASE_WRONG
    assert "openssl pkey -in k.pem -aes256 -out NEW_FILE" in caught.value.hint
    again = openssl("pkey", "-aes256", "-passin", "pass:secret", "-passout", "pass:secret", stdin=pem)
    load_private_key(again, source="k.pem", passphrase=b"secret")


def test_a_curve_that_nobody_uses_is_said_to_be_so() -> None:
    pem = openssl("pkey", stdin=openssl("ecparam", "-name", "sect233k1", "-genkey", "-noout"))
    with pytest.raises(IdentityError) as caught:
        load_private_key(pem, source="k.pem")
    assert caught.value.code is Code.PEM_WRONG_KIND
    assert "on a curve that is not supported" in caught.value.sentence
