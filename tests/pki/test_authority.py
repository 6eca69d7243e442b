"""The authority's certificates, as `openssl verify -x509_strict` and a TLS handshake see them."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.authority import Authority, Issued
from mtlskit.pki.identity import check_anchors, check_pair
from mtlskit.pki.keys import KeyType
from tests.support.openssl import run_openssl
from tests.support.x509_builder import DAY, NOW, make_certificate

KINDS = [KeyType.EC_P256, KeyType.EC_P384, KeyType.ED25519, KeyType.RSA_2048]
ROOT = Authority.create("test root", now=NOW)


def verdict(authority: Authority, issued: Issued, purpose: str, folder: Path, *, revoked: list[int]) -> str:
    """What `openssl verify` says at NOW: "OK", or its complaint."""
    (folder / "ca.crt").write_bytes(authority.cert_pem)
    (folder / "crl.pem").write_bytes(authority.revocation_list(revoked, now=NOW))
    (folder / "leaf.crt").write_bytes(issued.cert_pem)
    done = run_openssl(
        *("verify", "-x509_strict", "-check_ss_sig", "-attime", str(int(NOW.timestamp())), "-purpose", purpose),
        *("-crl_check", "-CRLfile", folder / "crl.pem", "-CAfile", folder / "ca.crt", folder / "leaf.crt"),
    )
    return "OK" if done.returncode == 0 else done.stderr.decode()


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_accepts_what_is_issued_for_its_purpose_only(kind: KeyType, tmp_path: Path) -> None:
    authority = Authority.create("strict root", now=NOW, kind=kind)
    server = authority.issue_server(["localhost", "127.0.0.1", "::1", "*.example.com"], now=NOW, kind=kind)
    client = authority.issue_client("app", now=NOW, kind=kind, dns_names=["app.example.com"])
    other = [server.serial + 1]
    assert verdict(authority, server, "sslserver", tmp_path, revoked=other) == "OK"
    assert verdict(authority, client, "sslclient", tmp_path, revoked=other) == "OK"
    assert "unsuitable certificate purpose" in verdict(authority, server, "sslclient", tmp_path, revoked=[])
    assert "unsuitable certificate purpose" in verdict(authority, client, "sslserver", tmp_path, revoked=[])
    assert "certificate revoked" in verdict(authority, client, "sslclient", tmp_path, revoked=[client.serial])
    stranger = Authority.create("strict root", now=NOW)
    assert "error" in verdict(stranger, client, "sslclient", tmp_path, revoked=[])


def test_a_name_longer_than_a_subject_stands_in_a_critical_san(tmp_path: Path) -> None:
    name = "a" * 60 + ".example.com"
    issued = ROOT.issue_server([name], now=NOW)
    assert verdict(ROOT, issued, "sslserver", tmp_path, revoked=[]) == "OK"
    san = issued.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    assert san.value.get_values_for_type(x509.DNSName) == [name]
    assert not list(issued.certificate.subject)


def test_the_root_is_constrained_to_leaves_and_lists() -> None:
    constraints = ROOT.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ROOT.certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert usage.value.crl_sign
    assert not usage.value.digital_signature


def test_what_is_issued_is_a_client_identity() -> None:
    issued = ROOT.issue_client("app", now=NOW)
    checked = check_pair(issued.cert_pem, issued.key_pem, now=NOW, cert_source="c", key_source="k")
    assert checked.warnings == ()
    assert checked.chain == (issued.certificate,)
    assert check_anchors(ROOT.cert_pem, now=NOW, source="ca") == (ROOT.certificate,)
    server = ROOT.issue_server(["localhost"], now=NOW)
    with pytest.raises(IdentityError) as caught:
        check_pair(server.cert_pem, server.key_pem, now=NOW, cert_source="c", key_source="k")
    assert caught.value.code is Code.CERTIFICATE_NOT_FOR_CLIENTS


def test_serials_are_all_different() -> None:
    serials = {ROOT.issue_client("app", now=NOW).serial for _ in range(20)}
    assert len(serials) == 20
    assert all(0 < serial < 1 << 159 for serial in serials)


def test_dates_are_whole_seconds_begin_early_and_end_with_the_root() -> None:
    now = NOW.replace(microsecond=999_999)
    authority = Authority.create("short", now=now, lifetime=10 * DAY)
    assert authority.certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert authority.certificate.not_valid_after_utc == NOW + 10 * DAY
    assert authority.issue_client("a", now=now).certificate.not_valid_after_utc == NOW + 10 * DAY
    assert authority.issue_client("a", now=now, lifetime=DAY).certificate.not_valid_after_utc == NOW + DAY


def test_a_later_revocation_list_has_a_greater_number_and_each_serial_once() -> None:
    def read(now: datetime) -> x509.CertificateRevocationList:
        return x509.load_pem_x509_crl(ROOT.revocation_list([7, 5, 7], now=now))

    first, second = read(NOW), read(NOW + timedelta(microseconds=1))
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in (first, second)]
    assert numbers[0] < numbers[1]
    assert [entry.serial_number for entry in first] == [5, 7]
    assert first.next_update_utc == NOW + 365 * DAY


def test_an_authority_survives_being_written() -> None:
    again = Authority.load(ROOT.cert_pem, ROOT.key_pem)
    assert again.certificate == ROOT.certificate
    assert again.key_pem == ROOT.key_pem


def test_an_authority_of_somebody_else_may_lack_a_key_identifier(tmp_path: Path) -> None:
    made = make_certificate("foreign", ca=True, usages=None, digital_signature=None)
    authority = Authority.load(made.cert_pem, made.key_pem)
    issued = authority.issue_client("app", now=NOW)
    identifier = issued.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = x509.SubjectKeyIdentifier.from_public_key(made.key.public_key())
    assert identifier.key_identifier == own.digest
    (tmp_path / "ca").write_bytes(authority.cert_pem)
    (tmp_path / "leaf").write_bytes(issued.cert_pem)
    moment = str(int(NOW.timestamp()))
    assert run_openssl("verify", "-attime", moment, "-CAfile", tmp_path / "ca", tmp_path / "leaf").returncode == 0


@pytest.mark.parametrize(
    ("cert_pem", "key_pem", "code", "words"),
    [
        (ROOT.issue_client("a", now=NOW).cert_pem, ROOT.key_pem, Code.PEM_WRONG_KIND, "CN=a is not a CA certificate"),
        (
            make_certificate("bare", ca=None, usages=None).cert_pem,
            ROOT.key_pem,
            Code.PEM_WRONG_KIND,
            "CN=bare is not a CA certificate",
        ),
        (ROOT.cert_pem, Authority.create("other", now=NOW).key_pem, Code.KEY_MISMATCH, "does not belong"),
        (ROOT.key_pem, ROOT.key_pem, Code.PEM_WRONG_KIND, "holds a private key"),
    ],
    ids=["leaf", "no constraints", "other key", "key twice"],
)
def test_what_is_no_authority(cert_pem: bytes, key_pem: bytes, code: Code, words: str) -> None:
    with pytest.raises(IdentityError) as caught:
        Authority.load(cert_pem, key_pem, source="ca folder")
    assert caught.value.code is code
    assert caught.value.sentence.startswith("ca folder")
    assert words in caught.value.sentence


def test_values_that_no_certificate_can_hold() -> None:
    with pytest.raises(ValueError, match="at least one name"):
        ROOT.issue_server([], now=NOW)
    with pytest.raises(ValueError, match="aware datetime"):
        ROOT.issue_client("a", now=NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="64"):
        ROOT.issue_client("a" * 65, now=NOW)


def test_keys_stay_out_of_every_repr() -> None:
    issued = ROOT.issue_client("app", now=NOW)
    assert "PRIVATE" not in repr(issued)
    assert "key" not in repr(ROOT).lower()


# A handshake, in memory. It runs on the machine's clock, so these certificates begin now.


def context(authority: Authority, issued: Issued, folder: Path, *, server: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=authority.cert_pem.decode())
    path = folder / ("server.pem" if server else "client.pem")
    path.write_bytes(issued.cert_pem + issued.key_pem)
    made.load_cert_chain(path)
    return made


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """Both ends to the end of the handshake; what the server knows of the client."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up, server_hostname=name)
    theirs = server.wrap_bio(up, down, server_side=True)
    open_ends = [ours, theirs]
    for _ in range(10):
        for end in open_ends.copy():
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            open_ends.remove(end)
    assert not open_ends
    return dict(theirs.getpeercert() or {})


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_both_ends_of_a_handshake_accept_each_other(name: str, tmp_path: Path) -> None:
    now = datetime.now().astimezone()
    authority = Authority.create("handshake root", now=now)
    server = context(authority, authority.issue_server(["localhost", "127.0.0.1"], now=now), tmp_path, server=True)
    issued = authority.issue_client("app", now=now)
    client = context(authority, issued, tmp_path, server=False)
    assert shake_hands(server, client, name)["subject"] == ((("commonName", "app"),),)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(server, client, "elsewhere.example.com" if name == "localhost" else "127.0.0.2")


@pytest.mark.parametrize("revoked", [False, True])
def test_a_revoked_client_is_refused_in_the_handshake(revoked: bool, tmp_path: Path) -> None:
    now = datetime.now().astimezone()
    authority = Authority.create("handshake root", now=now)
    issued = authority.issue_client("app", now=now)
    server = context(authority, authority.issue_server(["localhost"], now=now), tmp_path, server=True)
    (tmp_path / "crl.pem").write_bytes(authority.revocation_list([issued.serial] if revoked else [], now=now))
    server.load_verify_locations(tmp_path / "crl.pem")
    server.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    client = context(authority, issued, tmp_path, server=False)
    if revoked:
        with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
            shake_hands(server, client, "localhost")
    else:
        assert shake_hands(server, client, "localhost")
