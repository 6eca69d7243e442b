"""Private keys: made, written as PKCS #8, and read in every form that OpenSSL has written in the last decades."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import TypeAlias

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from mtlskit.errors import Code, IdentityError
from mtlskit.pki import der, pem
from mtlskit.pki.costs import refuse_costly

__all__ = [
    "KeyType",
    "PrivateKey",
    "generate_key",
    "load_private_key",
    "open_block",
    "open_der",
    "private_key_pem",
    "public_key_der",
    "spki_sha256_of_key",
    "usable_key",
]

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey

MIN_RSA_BITS = 2048
MIN_EC_BITS = 256
"""Below these OpenSSL's default security level (2 in Debian's) refuses the key in a handshake; so it is said before."""

_WANTED = "a private key"


class KeyType(StrEnum):
    """The kinds of key that can be made. P-256 is the default: small, fast, and known to every server."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    ED25519 = "ed25519"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"


_CURVES: dict[KeyType, ec.EllipticCurve] = {KeyType.EC_P256: ec.SECP256R1(), KeyType.EC_P384: ec.SECP384R1()}
_RSA_BITS = {KeyType.RSA_2048: 2048, KeyType.RSA_3072: 3072, KeyType.RSA_4096: 4096}


def generate_key(kind: KeyType = KeyType.EC_P256) -> PrivateKey:
    """A new key. RSA takes up to seconds of CPU, the others less than a millisecond."""
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    if kind in _RSA_BITS:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[kind])
    return ed25519.Ed25519PrivateKey.generate()


def private_key_pem(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """The key as PKCS #8 PEM, encrypted when there is a passphrase. An empty passphrase is a `ValueError`."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def public_key_der(key: PrivateKey) -> bytes:
    """The key's public half as SubjectPublicKeyInfo."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def spki_sha256_of_key(key: PrivateKey) -> bytes:
    """SHA-256 over the SubjectPublicKeyInfo of the key's public half: the pin of a certificate for it."""
    return hashlib.sha256(public_key_der(key)).digest()


def load_private_key(pem_bytes: bytes, *, source: str, passphrase: bytes | None = None) -> PrivateKey:
    """The first private key in `pem_bytes`: PKCS #8, PKCS #1 or SEC 1, plain or encrypted.

    Certificates may stand beside it. A passphrase for a key that has none is ignored, as OpenSSL does. Raises
    `IdentityError`: PEM_WRONG_KIND, PEM_DAMAGED, PEM_TOO_LARGE, KEY_ENCRYPTED, KEY_PASSPHRASE_WRONG, KEY_TOO_COSTLY,
    KEY_WEAK.
    """
    blocks = pem.scan(pem_bytes, source=source, wanted=_WANTED)
    block = next((block for block in blocks if block.label in pem.PRIVATE_KEY_LABELS), None)
    if block is None:
        raise _no_key(blocks, source)
    return open_block(block, source=source, passphrase=passphrase)


def open_block(block: pem.Block, *, source: str, passphrase: bytes | None = None) -> PrivateKey:
    """The key in a PEM block with one of the labels of private keys. Raises `IdentityError`, as `load_private_key`."""
    where = f"the private key in {source} (line {block.line})"
    if block.encrypted:
        if not passphrase:
            raise _passphrase_missing(source, given=passphrase is not None)
        refuse_costly(block.der, source=where)
    secret = passphrase if block.encrypted else None
    return _opened(partial(serialization.load_pem_private_key, block.pem(), secret), secret, where, source)


def open_der(data: bytes, *, source: str, passphrase: bytes | None = None) -> PrivateKey:
    """The key in a DER file (PKCS #8, PKCS #1 or SEC 1). Raises `IdentityError`, as `load_private_key`."""
    where = f"the private key in {source}"
    secret = None
    if der.describe(data) == der.ENCRYPTED_DER_KEY:
        if not passphrase:
            raise _passphrase_missing(source, given=passphrase is not None)
        refuse_costly(data, source=where)
        secret = passphrase
    return _opened(partial(serialization.load_der_private_key, data, secret), secret, where, source)


def _opened(load: Callable[[], PrivateKeyTypes], passphrase: bytes | None, where: str, source: str) -> PrivateKey:
    try:
        key = load()
    except UnsupportedAlgorithm as exc:
        raise _unusable(where, source, "is of a kind or on a curve that is not supported") from exc
    except (ValueError, TypeError, InternalError) as exc:  # InternalError: numbers that scrypt cannot use
        if passphrase is not None:
            # A wrong passphrase, damaged ciphertext and an exotic cipher look alike here; the first is what happens.
            raise IdentityError(
                Code.KEY_PASSPHRASE_WRONG,
                f"the passphrase does not open {where}",
                f"check the passphrase file; if OpenSSL takes the passphrase, the cipher is an exotic one, and this "
                f"makes a key that can be read: openssl pkey -in {source} -aes256 -out NEW_FILE",
            ) from exc
        raise IdentityError(
            Code.PEM_DAMAGED,
            f"{where} is damaged: it cannot be read",
            f"take the file from its origin again; to see what OpenSSL says: openssl pkey -in {source} -noout",
        ) from exc
    return usable_key(key, where=where, source=source)


def usable_key(key: object, *, where: str, source: str) -> PrivateKey:
    """`key`, if it is of a kind and size that servers take. Raises `IdentityError`: PEM_WRONG_KIND, KEY_WEAK."""
    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey")
        raise _unusable(where, source, f"is of the kind {kind}; an EC, Ed25519 or RSA key is needed")
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size < MIN_RSA_BITS:
        raise _weak(source, f"an RSA key of {key.key_size} bits", f"{MIN_RSA_BITS} bits")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size < MIN_EC_BITS:
        raise _weak(source, f"a key on {key.curve.name} ({key.curve.key_size} bits)", f"{MIN_EC_BITS} bits")
    return key


def _no_key(blocks: tuple[pem.Block, ...], source: str) -> IdentityError:
    held = pem.describe_blocks(blocks)
    if any(block.label == "OPENSSH PRIVATE KEY" for block in blocks):
        hint = f"convert a copy of it: cp {source} NEW_FILE && ssh-keygen -p -m PKCS8 -f NEW_FILE"
    else:
        hint = "give the file that holds the key (-----BEGIN PRIVATE KEY-----)"
        if all(block.label in pem.CERTIFICATE_LABELS for block in blocks):
            hint += "; are cert and key exchanged?"
    return IdentityError(Code.PEM_WRONG_KIND, f"{source} holds {held}, not a private key", hint)


def _passphrase_missing(source: str, *, given: bool) -> IdentityError:
    """What to raise where `source` is encrypted and there is no passphrase; `given`: there is one, and it is empty."""
    hint = (
        'name a file with it, --passphrase-file PATH (passphrase_file = "PATH" in a file);'
        f" or store the key without one: openssl pkey -in {source} -out NEW_FILE"
    )
    if given:
        return IdentityError(
            Code.KEY_PASSPHRASE_WRONG, f"{source} is encrypted, and the passphrase given is empty", hint
        )
    return IdentityError(Code.KEY_ENCRYPTED, f"{source} is encrypted, and no passphrase is given", hint)


def _weak(source: str, what: str, least: str) -> IdentityError:
    return IdentityError(
        Code.KEY_WEAK,
        f"{source} holds {what}: servers refuse less than {least}",
        "make a new key and certificate, for example: openssl ecparam -name prime256v1 -genkey -noout -out NEW_FILE",
    )


def _unusable(where: str, source: str, what: str) -> IdentityError:
    return IdentityError(
        Code.PEM_WRONG_KIND, f"{where} {what}", f"to see what it is: openssl pkey -in {source} -noout -text_pub"
    )
