"""An identity as the files that other programs want: which names, which forms, which algorithms.

PKCS #12 archives are written with PBES2 (AES-256-CBC, PBKDF2 with SHA-256) and a MAC with SHA-256: what OpenSSL 3 reads
without its legacy provider, Java from 8u301 and 11.0.12 on, and Windows from 10 1709 on. The old 3DES ones are read by
older programs and refused by newer ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from mtlskit.pki.certificates import subject_text
from mtlskit.pki.keys import private_key_pem
from mtlskit.pki.material import CheckedMaterial

__all__ = ["NEEDS_PASSPHRASE", "ExportFormat", "Exported", "ExportedFile", "export"]

_ROUNDS = 50_000
"""Rounds of PBKDF2: some milliseconds; Java writes 10,000. The MAC keeps the 2,048 that the library gives it, so what
protects an archive that falls into other hands is a long passphrase."""

_JDBC_ALIAS = "user"
"""The only alias that pgjdbc looks for (PKCS12KeyManager)."""


class ExportFormat(StrEnum):
    """For whom the files are."""

    PEM = "pem"
    """client.crt, client.key: this program, nginx, most others."""
    P12 = "p12"
    """client.p12: Java, Windows, browsers."""
    PSQL = "psql"
    """The names that libpq looks for in ~/.postgresql."""
    JDBC = "jdbc"
    """An archive as pgjdbc wants it."""
    DER = "der"
    """client.der, client.pk8: older pgjdbc, devices."""


NEEDS_PASSPHRASE = frozenset({ExportFormat.P12, ExportFormat.JDBC})
"""Java and pgjdbc open no archive without one."""


@dataclass(frozen=True)
class ExportedFile:
    """One file to write. `secret`: it holds the key."""

    name: str
    data: bytes = field(repr=False)
    secret: bool = False


@dataclass(frozen=True)
class Exported:
    """The files of one identity, the secret ones first."""

    files: tuple[ExportedFile, ...]
    notes: tuple[str, ...] = ()
    """What the format leaves out, as sentences."""


def export(material: CheckedMaterial, form: ExportFormat, *, passphrase: bytes | None = None) -> Exported:
    """The identity as the files of `form`, with the key encrypted where there is a passphrase.

    ValueError: the passphrase is empty, or missing for a format that `NEEDS_PASSPHRASE`.
    """
    if passphrase == b"" or (passphrase is None and form in NEEDS_PASSPHRASE):
        raise ValueError("a passphrase is needed")
    return _WRITERS[form](material, passphrase)


def _pem(material: CheckedMaterial, passphrase: bytes | None) -> Exported:
    return Exported((*_key_and_chain(material, passphrase, "client"), *_root(material)))


def _psql(material: CheckedMaterial, passphrase: bytes | None) -> Exported:
    """PostgreSQL docs, libpq, "SSL Support": the files in ~/.postgresql."""
    return Exported((*_key_and_chain(material, passphrase, "postgresql"), *_root(material)), _rootless(material))


def _p12(material: CheckedMaterial, passphrase: bytes | None) -> Exported:
    name = subject_text(material.pair.leaf)
    return Exported((_archive(material, passphrase, name), *_root(material)))


def _jdbc(material: CheckedMaterial, passphrase: bytes | None) -> Exported:
    return Exported((_archive(material, passphrase, _JDBC_ALIAS), *_root(material)), _rootless(material))


def _der(material: CheckedMaterial, passphrase: bytes | None) -> Exported:
    pair = material.pair
    key = pair.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, _encryption(passphrase))
    notes: tuple[str, ...] = ()
    if len(pair.chain) > 1:
        left = "; ".join(subject_text(certificate) for certificate in pair.chain[1:])
        notes = (f"client.der holds one certificate; these are left out, and the server must have them: {left}",)
    return Exported(
        (
            ExportedFile("client.pk8", key, secret=True),
            ExportedFile("client.der", pair.leaf.public_bytes(Encoding.DER)),
            *_root(material),
        ),
        notes,
    )


def _key_and_chain(material: CheckedMaterial, passphrase: bytes | None, stem: str) -> tuple[ExportedFile, ...]:
    key = private_key_pem(material.pair.key, passphrase)
    return ExportedFile(f"{stem}.key", key, secret=True), ExportedFile(f"{stem}.crt", material.cert_pem)


def _rootless(material: CheckedMaterial) -> tuple[str, ...]:
    """For clients that look for the server's CA in a file of their own."""
    return () if material.roots else ("the server's CA is not among the files: name it with --ca",)


def _root(material: CheckedMaterial) -> tuple[ExportedFile, ...]:
    return () if material.root_pem is None else (ExportedFile("root.crt", material.root_pem),)


def _archive(material: CheckedMaterial, passphrase: bytes | None, name: str) -> ExportedFile:
    leaf, *issuers = material.pair.chain
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(_ROUNDS)
    builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC).hmac_hash(hashes.SHA256())
    data = pkcs12.serialize_key_and_certificates(
        name.encode("utf-8"), material.pair.key, leaf, issuers or None, builder.build(passphrase or b"")
    )
    return ExportedFile("client.p12", data, secret=True)


def _encryption(passphrase: bytes | None) -> KeySerializationEncryption:
    return NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)


_WRITERS: dict[ExportFormat, Callable[[CheckedMaterial, bytes | None], Exported]] = {
    ExportFormat.PEM: _pem,
    ExportFormat.P12: _p12,
    ExportFormat.PSQL: _psql,
    ExportFormat.JDBC: _jdbc,
    ExportFormat.DER: _der,
}
