"""Revoked certificates, as far as this host knows."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mtlskit.doctor.case import Case, Identified, Means
from mtlskit.doctor.checks.identity import identify
from mtlskit.doctor.checks.revocation import look_for_revocation, revoked_server
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import from_file, from_flags
from mtlskit.doctor.identity.revocation_lists import lists_in
from mtlskit.errors import Code
from mtlskit.pki.certificates import load_certificates, serial_text
from mtlskit.store.audit import write_audit
from tests.services.pki import Pair, Pki
from tests.support.own_authority import OwnAuthority
from tests.support.x509_builder import DAY, Made, make_certificate

_NOW = datetime.now(UTC)
_LIFE: dict[str, Any] = {"begins": _NOW - DAY, "ends": _NOW + 200 * DAY}


def case_of(flags: Mapping[str, Any]) -> Case:
    (case,) = from_flags({"upstream": ["db.example:5432"], **flags}, Means()).cases
    return case


async def look(
    case: Case, *, server: tuple[x509.Certificate, ...] = (), identified: Identified | None = None
) -> dict[str, Finding]:
    found = await look_for_revocation(case, identified or identify(case), {"db.example:5432": server})
    return {finding.check: finding for finding in found}


def of_pair(pair: Pair, ca: Path) -> Case:
    return case_of({"cert": pair.cert, "key": pair.key, "ca": ca})


def list_of(authority: Made, *revoked: x509.Certificate, reason: x509.ReasonFlags | None = None) -> bytes:
    """A list that the authority has signed."""
    builder = x509.CertificateRevocationListBuilder(authority.certificate.subject, _NOW - DAY, _NOW + DAY)
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder(certificate.serial_number, _NOW - DAY)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    signed = builder.sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def put(folder: Path, made: Made) -> dict[str, Any]:
    key = folder / "client.key"
    key.touch(mode=0o600)
    key.write_bytes(made.key_pem)
    (folder / "client.crt").write_bytes(made.cert_pem)
    return {"cert": folder / "client.crt", "key": key}


@pytest.fixture
def authority() -> Made:
    return make_certificate("an authority", ca=True, usages=None, **_LIFE)


async def test_the_list_beside_the_files(pki: Pki) -> None:
    good = (await look(of_pair(pki.client, pki.server_ca)))["revocation.client"]
    assert good.verdict is Verdict.PASS
    assert good.facts["source"] == str(pki.client_crl)
    bad = (await look(of_pair(pki.client_revoked, pki.server_ca)))["revocation.client"]
    assert (bad.verdict, bad.code) == (Verdict.FAIL, Code.CERTIFICATE_REVOKED)
    assert bad.facts["signature_checked"] is True


async def test_what_was_not_looked_at_is_said(pki: Pki, tmp_path: Path, authority: Made) -> None:
    url = x509.UniformResourceIdentifier("http://crl.example/our.crl")
    point = x509.CRLDistributionPoints([x509.DistributionPoint([url], None, None, None)])
    made = make_certificate("client", issuer=authority, further=[point], **_LIFE)
    found = await look(case_of({**put(tmp_path, made), "ca": pki.server_ca}))
    finding = found["revocation.client"]
    assert (finding.verdict, finding.because) == (Verdict.SKIPPED, "no list at hand")
    assert "http://crl.example/our.crl was not fetched" in finding.seen
    assert found["revocation.server"].because == "tls.handshake"


async def test_a_list_that_nobody_vouches_for_is_a_hint(pki: Pki, tmp_path: Path, authority: Made) -> None:
    made = make_certificate("client", issuer=authority, **_LIFE)
    flags = {**put(tmp_path, made), "ca": pki.server_ca}
    reason = x509.ReasonFlags.key_compromise
    (tmp_path / "our.crl").write_bytes(list_of(authority, made.certificate, reason=reason))
    finding = (await look(case_of(flags)))["revocation.client"]
    assert (finding.verdict, finding.code) == (Verdict.WARN, Code.CERTIFICATE_REVOKED)
    assert "keyCompromise" in finding.seen
    (tmp_path / "authority.crt").write_bytes(authority.cert_pem)
    assert (await look(case_of(flags)))["revocation.client"].verdict is Verdict.FAIL


async def test_a_list_that_another_signed_does_not_count(pki: Pki, tmp_path: Path, authority: Made) -> None:
    made = make_certificate("client", issuer=authority, **_LIFE)
    impostor = make_certificate("an authority", ca=True, usages=None, **_LIFE)
    (tmp_path / "our.crl").write_bytes(list_of(impostor, made.certificate))
    (tmp_path / "authority.crt").write_bytes(authority.cert_pem)
    finding = (await look(case_of({**put(tmp_path, made), "ca": pki.server_ca})))["revocation.client"]
    assert finding.verdict is Verdict.SKIPPED


async def test_the_server_s_certificate(pki: Pki, tmp_path: Path, authority: Made) -> None:
    server = make_certificate("db", issuer=authority, **_LIFE)
    ca = tmp_path / "root.crt"
    ca.write_bytes(authority.cert_pem)
    case = case_of({"cert": pki.client.cert, "key": pki.client.key, "ca": ca})
    (tmp_path / "root.crl").write_bytes(list_of(authority))
    assert (await look(case, server=(server.certificate,)))["revocation.server"].verdict is Verdict.PASS
    (tmp_path / "root.crl").write_bytes(list_of(authority, server.certificate))
    finding = (await look(case, server=(server.certificate,)))["revocation.server"]
    assert (finding.verdict, finding.code) == (Verdict.WARN, Code.TLS_SERVER_CERTIFICATE_REVOKED)


async def test_every_server_that_was_met_is_looked_up(pki: Pki, tmp_path: Path, authority: Made) -> None:
    good, bad = (make_certificate(name, issuer=authority, **_LIFE).certificate for name in ("db-1", "db-2"))
    (tmp_path / "root.crt").write_bytes(authority.cert_pem)
    (tmp_path / "root.crl").write_bytes(list_of(authority, bad))
    case = case_of({"cert": pki.client.cert, "key": pki.client.key, "ca": tmp_path / "root.crt"})
    met = {"a:5432": (good,), "b:5432": (bad,), "c:5432": (bad,), "d:5432": ()}
    _, *servers = await look_for_revocation(case, identify(case), met)
    told = [(finding.about, finding.verdict) for finding in servers]
    assert told == [("a:5432", Verdict.PASS), ("b:5432", Verdict.WARN)]
    assert await revoked_server(case, (good,)) is None
    assert await revoked_server(case, ()) is None
    revoked = await revoked_server(case, (bad,))
    assert revoked is not None
    assert revoked.code is Code.TLS_SERVER_CERTIFICATE_REVOKED


async def test_without_a_certificate_the_server_is_looked_up_all_the_same(tmp_path: Path, authority: Made) -> None:
    server = make_certificate("db", issuer=authority, **_LIFE)
    (tmp_path / "root.crt").write_bytes(authority.cert_pem)
    (tmp_path / "root.crl").write_bytes(list_of(authority, server.certificate))
    found = await look(case_of({"ca": tmp_path / "root.crt"}), server=(server.certificate,))
    assert found["revocation.client"].because == "no certificate given"
    assert found["revocation.server"].verdict is Verdict.WARN


async def test_our_own_authority(tmp_path: Path) -> None:
    own = OwnAuthority.make(tmp_path)
    own.issue("reporting")
    own.configure(1)
    (case,) = from_file(own.file, (), Means()).cases
    finding = (await look(case))["revocation.client"]
    assert finding.verdict is Verdict.PASS
    assert "ledger" in finding.seen
    own.revoke()
    finding = (await look(case))["revocation.client"]
    assert (finding.verdict, finding.code) == (Verdict.FAIL, Code.CERTIFICATE_REVOKED)
    assert finding.commands == (f"mtlskit certs rotate reporting --config {own.file}",)
    # A ledger that cannot be read leaves the list.
    (tmp_path / "ca" / "ledger.jsonl").write_text("rubbish\n")
    finding = (await look(case))["revocation.client"]
    assert finding.verdict is Verdict.FAIL
    assert "ca.crl" in finding.seen
    shutil.rmtree(tmp_path / "ca")
    assert (await look(case))["revocation.client"].verdict is Verdict.SKIPPED


async def test_what_the_audit_log_says(tmp_path: Path) -> None:
    own = OwnAuthority.make(tmp_path)
    own.issue("reporting")
    own.configure(1)
    (case,) = from_file(own.file, (), Means()).cases
    identified = identify(case)
    assert identified.pair is not None
    serial = serial_text(identified.pair.leaf)
    write_audit(tmp_path / "identities", "revoked", "another", now=_NOW, serial=serial)
    assert (await look(case, identified=identified))["revocation.client"].verdict is Verdict.PASS
    write_audit(tmp_path / "identities", "revoked", "reporting", now=_NOW, serial=serial)
    finding = (await look(case, identified=identified))["revocation.client"]
    assert finding.verdict is Verdict.FAIL
    assert "audit log" in finding.seen
    (tmp_path / "identities" / "audit.jsonl").write_bytes(b"\xff\0{]\n" * 3)
    assert (await look(case, identified=identified))["revocation.client"].verdict is Verdict.PASS


async def test_an_identity_that_is_of_no_use(pki: Pki) -> None:
    found = await look(of_pair(pki.client_expired, pki.server_ca))
    assert found["revocation.client"].because == "identity"


def test_rubbish_beside_the_files(tmp_path: Path, pki: Pki) -> None:
    (tmp_path / "a.crl").write_bytes(b"\x30\x82rubbish")
    (tmp_path / "b.crl").write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    (tmp_path / "c.crl").mkdir()
    (tmp_path / "d.crl").symlink_to("nowhere")
    (tmp_path / "e.pem").write_bytes(b"text\n" + pki.client_crl.read_bytes())
    der = x509.load_pem_x509_crl(pki.client_crl.read_bytes()).public_bytes(serialization.Encoding.DER)
    (tmp_path / "f.crl").write_bytes(der)
    assert [each.path.name for each in lists_in((tmp_path, tmp_path / "none"))] == ["e.pem", "e.pem", "f.crl"]


async def test_a_server_s_chain_of_the_tests(pki: Pki) -> None:
    chain = load_certificates(pki.server.cert.read_bytes(), source="")
    found = await look(of_pair(pki.client, pki.server_ca), server=chain)
    assert found["revocation.server"].verdict is Verdict.SKIPPED
