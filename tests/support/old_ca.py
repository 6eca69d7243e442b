"""A server of a CA as old devices make them: no keyUsage, no key identifiers, which only a strict reader misses."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.support.x509_builder import DAY, make_certificate

__all__ = ["old_ca"]


def old_ca(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """The CA's file, and the context of a server at `host`."""
    now = datetime.now(UTC)
    root = make_certificate("old root", ca=True, usages=None, digital_signature=None, begins=now - DAY, ends=now + DAY)
    leaf = make_certificate(
        host,
        issuer=root,
        usages=[ExtendedKeyUsageOID.SERVER_AUTH],
        further=[x509.SubjectAlternativeName([x509.DNSName(host)])],
        begins=now - DAY,
        ends=now + DAY,
    )
    (folder / "old.crt").write_bytes(leaf.cert_pem)
    (folder / "old.key").write_bytes(leaf.key_pem)
    (folder / "old-ca.crt").write_bytes(root.cert_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "old.crt", folder / "old.key")
    return folder / "old-ca.crt", context
