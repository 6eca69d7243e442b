"""Identities in a store, put there without a rotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from mtlskit.pki.authority import Authority
from mtlskit.pki.certificates import serial_text, spki_sha256, subject_text
from mtlskit.store.identities import Material, Store, StoredIdentity, Version, VersionFacts

__all__ = ["put_version"]


def put_version(
    store: Path,
    name: str,
    authority: Authority,
    *,
    begins: datetime,
    lifetime: timedelta,
    issuer: str = "ca",
) -> tuple[StoredIdentity, Version]:
    """A new version of the identity, made current. `begins`: when it was issued."""
    issued = authority.issue_client(name, now=begins, lifetime=lifetime)
    leaf = issued.certificate
    facts = VersionFacts(
        issuer=issuer,
        serial=serial_text(leaf),
        subject=subject_text(leaf),
        not_before=leaf.not_valid_before_utc.isoformat(),
        not_after=leaf.not_valid_after_utc.isoformat(),
        spki_sha256=spki_sha256(leaf).hex(),
        created_at=datetime.now(UTC).isoformat(),
    )
    stored = Store(store).identity(name)
    version = stored.stage(Material(issued.cert_pem, issued.key_pem), facts)
    stored.switch(version)
    return stored, version
