"""One version of an identity: what it is made of, and what is known of it without reading its certificate."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from mtlskit.store.current import CURRENT
from mtlskit.store.faults import damaged, unusable
from mtlskit.store.files import PRIVATE, PUBLIC, write_file

__all__ = ["CERT", "FACTS", "KEY", "ROOT", "Material", "Version", "VersionFacts", "read_facts", "write_version"]

CERT, KEY, ROOT = "client.crt", "client.key", "root.crt"
FACTS = "version.json"
_LARGEST_FACTS = 64 * 1024


@dataclass(frozen=True)
class Material:
    """What becomes a version: chain (leaf first) and key, PEM; and the server's CAs where they came along."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)
    root_pem: bytes | None = None


@dataclass(frozen=True)
class VersionFacts:
    """What is known of a version without reading its certificate. Times are ISO 8601, UTC."""

    issuer: str
    serial: str
    """Lower-case hexadecimal."""
    subject: str
    not_before: str
    not_after: str
    spki_sha256: str
    """Hexadecimal."""
    created_at: str
    rotation: str = ""
    """Which rotation made it: one that is repeated finds its own."""
    remote_id: str | None = None
    """What the issuer calls the certificate, where it has a name for it."""
    made_here: bool = False
    """We asked for it, and may revoke it."""
    origin: str = ""
    """Of which add-on, where that is the issuer."""
    followed: bool = False
    """A copy of a credential that others use too: it is replaced when theirs has changed."""


@dataclass(frozen=True)
class Version:
    """One version. The paths lead into its own folder, never through `current`."""

    number: int
    folder: Path
    facts: VersionFacts

    @property
    def cert(self) -> Path:
        """The certificate with its chain."""
        return self.folder / CERT

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.folder / KEY

    @property
    def root(self) -> Path | None:
        """The server's CAs, where they belong to the version."""
        path = self.folder / ROOT
        return path if path.exists() else None


def write_version(folder: Path, material: Material, facts: VersionFacts) -> None:
    """Write its files into an empty folder, key first. Raises `IdentityError`, which names the file."""
    write_file(folder / KEY, material.key_pem, mode=PRIVATE)
    write_file(folder / CERT, material.cert_pem, mode=PUBLIC)
    if material.root_pem is not None:
        write_file(folder / ROOT, material.root_pem, mode=PUBLIC)
    write_file(folder / FACTS, (json.dumps(asdict(facts), indent=2) + "\n").encode("ascii"), mode=PUBLIC)


def read_facts(path: Path) -> VersionFacts:
    """What stands in the file `path`. Raises `StoreError`: STORE_DAMAGED, STORE_UNUSABLE."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_FACTS)
    except FileNotFoundError as exc:
        raise damaged(path.parent, "is not there or not whole", _remedy(path)) from exc
    except OSError as exc:
        raise unusable(path, "read", exc) from exc
    try:
        found = json.loads(content)
        known = {each.name for each in fields(VersionFacts)}
        facts = VersionFacts(**{name: value for name, value in found.items() if name in known})
    except (ValueError, TypeError, AttributeError, RecursionError) as exc:
        raise damaged(path, "is not what was written there", _remedy(path)) from exc
    texts = asdict(facts)
    remote_id, truths = texts.pop("remote_id"), (texts.pop("made_here"), texts.pop("followed"))
    known_types = isinstance(remote_id, str | None) and all(isinstance(truth, bool) for truth in truths)
    if not known_types or not all(isinstance(text, str) for text in texts.values()):
        raise damaged(path, "is not what was written there", _remedy(path))
    return facts


def _remedy(facts: Path) -> str:
    folder = facts.parent
    identity = folder.parent.parent
    return (
        f"restore it from a backup; or remove {folder}, and {identity / CURRENT} if it points there, then:"
        f" mtlskit certs rotate {identity.name}"
    )
