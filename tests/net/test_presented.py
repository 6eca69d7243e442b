"""What is said of a certificate that we refuse: a stranger's words, bounded, and never an obstacle."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime

import pytest

from mtlskit.net.presented import presented
from mtlskit.pki.authority import Authority
from tests.support.x509_builder import make_certificate

NOW = datetime.now(UTC)
AUTHORITY = Authority.create("our root", now=NOW)


def _der(pem: bytes) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem.decode())


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["db.example"], "db.example"),
        (["db.example", "192.0.2.7", "::1"], "db.example, 192.0.2.7, ::1"),
        ([f"db{number}.example" for number in range(40)], "db0.example, db1.example, db2.example and 37 more"),
    ],
)
def test_names_and_issuer(names: list[str], told: str) -> None:
    found = presented(_der(AUTHORITY.issue_server(names, now=NOW).cert_pem))
    assert found is not None
    assert (found.issuer, found.names) == ("CN=our root", told)


def test_a_certificate_without_names_is_known_by_its_subject() -> None:
    """And what would act on a terminal is escaped."""
    found = presented(_der(make_certificate("evil\x1b[31m").cert_pem))
    assert found is not None
    assert {found.subject, found.issuer, found.names} == {"CN=evil\\1b[31m"}
    assert found.begins is not None
    assert found.ends is not None
    assert found.begins < found.ends


@pytest.mark.parametrize("leaf", [None, b"", b"rubbish", b"\x30\x03\x02\x01\x01"])
def test_what_cannot_be_read_is_left_out(leaf: bytes | None) -> None:
    assert presented(leaf) is None
