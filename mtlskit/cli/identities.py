"""The files of an identity, read: those that the configuration names, or those of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from mtlskit.config.values import IdentityConfig
    from mtlskit.pki.material import CheckedMaterial

__all__ = ["IdentityFiles", "files_of", "read_material"]


@dataclass(frozen=True)
class IdentityFiles:
    """The files of an identity, read at one moment, and its passphrase."""

    cert_source: str
    cert: bytes
    key_source: str
    key: bytes = field(repr=False)
    ca_source: str | None = None
    ca: bytes | None = None
    passphrase: bytes | None = field(default=None, repr=False)


def files_of(identity: IdentityConfig, *, passphrase: bytes | None = None) -> IdentityFiles:
    """What an identity's files hold: of one in the store, its current version. `passphrase` replaces the configured.

    Raises `IdentityError`.
    """
    from mtlskit.net.files import read_passphrase_file, read_private, read_public
    from mtlskit.net.identity import resolved

    files = resolved(identity)
    if passphrase is None and files.passphrase_file is not None:
        passphrase = read_passphrase_file(files.passphrase_file)
    return IdentityFiles(
        cert_source=str(identity.cert),
        cert=read_public(files.cert, "client certificate"),
        key_source=str(identity.key),
        key=read_private(files.key, "private key"),
        ca_source=None if identity.ca is None else str(identity.ca),
        ca=None if files.ca is None else read_public(files.ca, "CA file"),
        passphrase=passphrase,
    )


def read_material(
    files: Sequence[Path],
    key: Path | None = None,
    *,
    ca: Path | None = None,
    passphrase: bytes | None = None,
    now: datetime | None = None,
    strict: bool = True,
) -> CheckedMaterial:
    """The identity in `files` (certificates, a key, a PKCS #12 archive: any combination) and `key`, checked.

    A file that holds a key must not be open to others. `strict` refuses what one would not take in anew: see
    `mtlskit.pki.identity.check_pair`. Raises `IdentityError`.
    """
    from datetime import UTC, datetime

    from mtlskit.net.files import read_private, read_public
    from mtlskit.pki.material import gather

    sources = [(str(path), _read_guarded(path)) for path in files]
    if key is not None:
        sources.append((str(key), read_private(key, "private key")))
    roots = None if ca is None else (str(ca), read_public(ca, "CA file"))
    return gather(sources, now=now or datetime.now(UTC), passphrase=passphrase, roots=roots, strict=strict)


def _read_guarded(path: Path) -> bytes:
    """A file that may hold a key: it is refused when it does, and every user of the host may read it."""
    from mtlskit.net.files import read_private, read_public
    from mtlskit.pki import der

    data = read_public(path, "certificate file")
    if b"PRIVATE KEY-----" in data or der.describe(data) in (der.PKCS12, der.DER_KEY, der.ENCRYPTED_DER_KEY):
        return read_private(path, "file with the private key")
    return data
