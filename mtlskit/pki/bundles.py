"""A file with certificates and perhaps a key, whatever its form: PEM in any order, PKCS #12, or DER.

The form is told from the content, never from the name: `.crt` is PEM here and DER there, and `.pem` means nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from mtlskit.errors import Code, IdentityError
from mtlskit.pki import der, pem
from mtlskit.pki.certificates import MAX_CERTIFICATES, decode_certificate
from mtlskit.pki.chains import belongs_to
from mtlskit.pki.costs import refuse_costly
from mtlskit.pki.keys import PrivateKey, open_block, open_der, spki_sha256_of_key, usable_key

__all__ = ["Bundle", "Form", "read_bundle"]

Form = Literal["pem", "pkcs12", "der"]

_WANTED = "a certificate or a private key"
_SILENT = frozenset({"EC PARAMETERS", "DH PARAMETERS"})
"""Stand in front of a key, in files that OpenSSL wrote long ago, and say nothing new."""


@dataclass(frozen=True)
class Bundle:
    """What a file holds. `certificates` are in the file's order; at least one, or a key, is there."""

    certificates: tuple[x509.Certificate, ...]
    key: PrivateKey | None = field(repr=False)
    form: Form
    notes: tuple[str, ...] = ()
    """What was left out, as sentences."""
    encrypted: bool = False
    """The key needs a passphrase; `key` is None where none was given and the key is optional."""


def read_bundle(
    data: bytes,
    *,
    source: str,
    passphrase: bytes | None = None,
    key_optional: bool = False,
    limit: int = MAX_CERTIFICATES,
) -> Bundle:
    """What `data` holds, up to `limit` certificates. Takes up to about two seconds for an archive with a passphrase.

    `key_optional`: an encrypted key in PEM or DER, without a passphrase, is left closed. (Of a PKCS #12 archive without
    its passphrase, nothing can be read.) A passphrase that is not needed is ignored.

    Raises `IdentityError`: PEM_WRONG_KIND, PEM_DAMAGED, PEM_TOO_LARGE, KEY_ENCRYPTED, KEY_PASSPHRASE_WRONG,
    KEY_TOO_COSTLY, KEY_WEAK.
    """
    kind = None
    if len(data) <= pem.MAX_BYTES and b"-----BEGIN " not in data:
        kind = der.describe(data)
    if kind == der.PKCS12:
        return _from_pkcs12(data, source, passphrase, limit)
    if kind == der.DER_CERTIFICATE:
        return Bundle((decode_certificate(data, where=source, source=source),), None, "der")
    if kind in (der.DER_KEY, der.ENCRYPTED_DER_KEY):
        return _from_der_key(data, kind, source, passphrase, key_optional=key_optional)
    if kind == der.PKCS7:
        raise _pkcs7(source, f"openssl pkcs7 -inform DER -in {source} -print_certs -out NEW_FILE")
    if kind == der.DER_REQUEST:
        raise _neither(source, kind, "give the certificate that was issued for the request")
    if kind is None and data[:1] == b"\x30" and data[1:2] > b"\x80" and _cut_short(data):
        raise IdentityError(
            Code.PEM_DAMAGED,
            f"{source} is cut short: it has {len(data)} bytes, and begins as a larger DER file does",
            "take the file from its origin again, as a binary file",
        )
    return _from_pem(data, source, passphrase, limit, key_optional=key_optional)


# PEM.


def _from_pem(data: bytes, source: str, passphrase: bytes | None, limit: int, *, key_optional: bool) -> Bundle:
    blocks = pem.scan(data, source=source, wanted=_WANTED)
    numbered = list(enumerate(blocks, 1))
    found = [(number, block) for number, block in numbered if block.label in pem.CERTIFICATE_LABELS]
    _refuse_many(len(found), limit, source)
    certificates = tuple(
        decode_certificate(
            block.der, where=f"{source}: block {number} (CERTIFICATE, from line {block.line})", source=source
        )
        for number, block in found
    )
    locked = [block for block in blocks if block.label in pem.PRIVATE_KEY_LABELS]
    others = tuple(
        block for block in blocks if block.label not in pem.CERTIFICATE_LABELS | pem.PRIVATE_KEY_LABELS | _SILENT
    )
    if not found and not locked:
        raise _nothing_useful(blocks, source)
    notes = [f"{source}: left out: {pem.describe_blocks(others)}"] if others else []
    encrypted = any(block.encrypted for block in locked)
    if key_optional and passphrase is None:
        locked = [block for block in locked if not block.encrypted]
        if encrypted:
            notes.append(_closed(source))
    keys = [open_block(block, source=source, passphrase=passphrase) for block in _distinct(locked)]
    key, more = _chosen(keys, certificates, source)
    return Bundle(certificates, key, "pem", (*notes, *more), encrypted)


def _distinct(blocks: Sequence[pem.Block]) -> list[pem.Block]:
    """A few keys at most are opened: each may take more than a second."""
    return list({block.der: block for block in blocks}.values())[:4]


def _chosen(
    keys: Sequence[PrivateKey], certificates: Sequence[x509.Certificate], source: str
) -> tuple[PrivateKey | None, list[str]]:
    """Of several different keys, the one with a certificate in the file; else the first."""
    distinct = list({spki_sha256_of_key(key): key for key in keys}.values())
    if len(distinct) < 2:
        return (distinct[0] if distinct else None), []
    owners = [key for key in distinct if any(belongs_to(key, certificate) for certificate in certificates)]
    which = "the one that a certificate in it is for" if owners else "the first"
    return (owners or distinct)[0], [f"{source} holds {len(distinct)} private keys; {which} is taken"]


def _nothing_useful(blocks: tuple[pem.Block, ...], source: str) -> IdentityError:
    labels = {block.label for block in blocks}
    if labels & {"PKCS7", "CMS"}:
        return _pkcs7(source, f"openssl pkcs7 -in {source} -print_certs -out NEW_FILE")
    hint = "give the file that begins with -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----"
    if "TRUSTED CERTIFICATE" in labels:
        hint = f"convert it: openssl x509 -in {source} -out NEW_FILE"
    elif "OPENSSH PRIVATE KEY" in labels:
        hint = f"convert a copy of it: cp {source} NEW_FILE && ssh-keygen -p -m PKCS8 -f NEW_FILE"
    elif labels & {"CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"}:
        hint = f"give the certificate that was issued for it; to see the request: mtlskit csr show {source}"
    return _neither(source, pem.describe_blocks(blocks), hint)


# DER.


def _from_der_key(data: bytes, kind: str, source: str, passphrase: bytes | None, *, key_optional: bool) -> Bundle:
    encrypted = kind == der.ENCRYPTED_DER_KEY
    if encrypted and key_optional and passphrase is None:
        return Bundle((), None, "der", (_closed(source),), encrypted)
    return Bundle((), open_der(data, source=source, passphrase=passphrase), "der", (), encrypted)


# PKCS #12.


def _from_pkcs12(data: bytes, source: str, passphrase: bytes | None, limit: int) -> Bundle:
    refuse_costly(data, source=f"the PKCS #12 archive {source}")
    # No passphrase and an empty one are two things in PKCS #12; programs write either when there is none.
    archive = _opened(data, passphrase or None) or (None if passphrase else _opened(data, b""))
    if archive is None:
        if _cut_short(data):
            raise IdentityError(
                Code.PEM_DAMAGED,
                f"{source}: the PKCS #12 archive is cut short",
                "take the file from its origin again, as a binary file",
            )
        if not passphrase:
            raise IdentityError(
                Code.KEY_ENCRYPTED if passphrase is None else Code.KEY_PASSPHRASE_WRONG,
                f"the PKCS #12 archive {source} is encrypted, and "
                + ("no passphrase is given" if passphrase is None else "the passphrase given is empty"),
                "name a file with it, --passphrase-file FILE, or have it asked for, --passphrase-prompt",
            )
        raise IdentityError(
            Code.KEY_PASSPHRASE_WRONG,
            f"the passphrase does not open the PKCS #12 archive {source}, or the archive is damaged",
            f"check the passphrase; to see what OpenSSL says: openssl pkcs12 -in {source} -info -noout",
        )
    own = [archive.cert] if archive.cert else []
    found = [*own, *archive.additional_certs]
    _refuse_many(len(found), limit, source)
    certificates = tuple(
        decode_certificate(
            each.certificate.public_bytes(Encoding.DER), where=f"{source}: certificate {n}", source=source
        )
        for n, each in enumerate(found, 1)
    )
    key = None
    if archive.key is not None:
        key = usable_key(archive.key, where=f"the private key in {source}", source=source)
    if key is None and not certificates:
        raise _neither(source, "an empty PKCS #12 archive", "give one with a certificate and its key")
    return Bundle(certificates, key, "pkcs12", (), encrypted=bool(passphrase))


def _opened(data: bytes, passphrase: bytes | None) -> pkcs12.PKCS12KeyAndCertificates | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd certificates, as in `decode_certificate`
            return pkcs12.load_pkcs12(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError):
        return None


def _cut_short(data: bytes) -> bool:
    if data[1:2] == b"\x80":  # of indefinite length: it ends with two zero octets
        return not data.rstrip(b"\r\n").endswith(b"\0\0")
    try:
        der.read_element(data)
    except der.DerError:
        return True
    return False


# Refusals.


def _refuse_many(count: int, limit: int, source: str) -> None:
    if count > limit:
        raise IdentityError(
            Code.PEM_TOO_LARGE,
            f"{source} holds {count} certificates, more than the {limit} that are read",
            "keep the ones that are needed: the client's own, then its issuers",
        )


def _closed(source: str) -> str:
    return f"{source}: the private key is encrypted; give its passphrase to see whether it fits"


def _pkcs7(source: str, command: str) -> IdentityError:
    return _neither(source, der.PKCS7, f"convert it: {command}")


def _neither(source: str, what: str, hint: str) -> IdentityError:
    return IdentityError(Code.PEM_WRONG_KIND, f"{source} holds {what}, neither a certificate nor a private key", hint)
