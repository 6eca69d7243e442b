"""The facts of a certificate are those that `openssl x509 -text` shows, and oddities are named."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from mtlskit.pki.authority import Authority
from mtlskit.pki.bundles import read_bundle
from mtlskit.pki.facts import MAX_NAMES, certificate_facts
from mtlskit.pki.inspection import inspect
from mtlskit.pki.keys import KeyType, generate_key
from mtlskit.pki.requests import alternative_name
from tests.support.openssl import openssl
from tests.support.x509_builder import DAY, NOW, Made, make_certificate

KINDS = [KeyType.EC_P256, KeyType.EC_P384, KeyType.ED25519, KeyType.RSA_2048]
NAMES = ("DNS:bi.example.com", "IP:192.0.2.7", "URI:spiffe://example.com/bi", "email:ops@example.com")
ROOT = Authority.create("our root", now=NOW)


def text_of(made: Made) -> str:
    return openssl("x509", "-noout", "-text", "-nameopt", "RFC2253", stdin=made.cert_pem).decode()


@pytest.mark.parametrize("kind", KINDS)
def test_openssl_shows_the_same(kind: KeyType) -> None:
    issuer = make_certificate("our, issuer", ca=True, key=generate_key(kind))
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    key = generate_key(kind)
    made = make_certificate(
        "me",
        issuer=issuer,
        key=key,
        usages=usages,
        further=[
            x509.SubjectAlternativeName([alternative_name(name) for name in NAMES]),
            x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
        ],
    )
    facts = certificate_facts(made.certificate, NOW)
    text = text_of(made)
    assert f"Subject: {facts.subject}\n" in text
    assert f"Issuer: {facts.issuer}\n" in text
    assert facts.names == NAMES
    assert "DNS:bi.example.com, IP Address:192.0.2.7, URI:spiffe://example.com/bi, email:ops@example.com" in text
    assert facts.key_usages == ("digitalSignature",)
    assert re.search(r"X509v3 Key Usage: critical\n\s+Digital Signature\n", text)
    assert facts.purposes == ("clientAuth", "serverAuth")
    assert "TLS Web Client Authentication, TLS Web Server Authentication" in text
    assert f"Signature Algorithm: {facts.signature}\n" in text
    assert f"Not Before: {facts.not_before:%b %e %H:%M:%S %Y} GMT" in text
    assert f"Not After : {facts.not_after:%b %e %H:%M:%S %Y} GMT" in text
    for identifier in (facts.subject_key_identifier, facts.authority_key_identifier):
        assert identifier is not None
        assert bytes.fromhex(identifier).hex(":").upper() in text
    shown = openssl("x509", "-noout", "-serial", "-fingerprint", "-sha256", stdin=made.cert_pem).decode()
    assert bytes.fromhex(facts.fingerprint_sha256).hex(":").upper() in shown
    assert int(facts.serial, 16) == int(shown.partition("serial=")[2].split()[0], 16)
    assert (facts.is_ca, facts.path_length, facts.other_extensions, facts.oddities) == (False, None, (), ())


def test_a_root() -> None:
    facts = certificate_facts(ROOT.certificate, NOW)
    assert (facts.is_ca, facts.path_length, facts.key_usages) == (True, 0, ("keyCertSign", "cRLSign"))
    assert (facts.names, facts.purposes) == ((), ())


@pytest.mark.parametrize(
    ("now", "state", "days"),
    [
        (NOW, "valid", 265),
        (NOW + 265 * DAY, "valid", 0),
        (NOW + 265 * DAY + timedelta(seconds=1), "expired", -1),
        (NOW + 275 * DAY, "expired", -10),
        (NOW - 100 * DAY - timedelta(seconds=1), "not yet valid", 365),
    ],
)
def test_the_dates(now: datetime, state: str, days: int) -> None:
    facts = certificate_facts(make_certificate().certificate, now)
    assert (facts.state, facts.days_left, facts.valid) == (state, days, state == "valid")


def test_a_certificate_without_an_end() -> None:
    """RFC 5280, section 4.1.2.5: 99991231235959Z."""
    made = make_certificate(ends=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert certificate_facts(made.certificate, NOW).days_left > 2_900_000


def test_every_key_usage_and_purpose() -> None:
    usage = x509.KeyUsage(True, True, True, True, True, True, True, True, True)
    purposes = [ObjectIdentifier("1.2.3.4"), ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]
    made = make_certificate(digital_signature=None, usages=purposes, further=[usage])
    facts = certificate_facts(made.certificate, NOW)
    assert len(facts.key_usages) == 9
    assert facts.purposes == ("1.2.3.4", "anyExtendedKeyUsage")
    text = text_of(made)
    assert "Decipher Only" in text
    assert "1.2.3.4, Any Extended Key Usage" in text


def test_odd_extensions_are_named() -> None:
    odd = [
        x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00"),
        x509.CertificatePolicies([x509.PolicyInformation(ObjectIdentifier("1.2.3"), None)]),
    ]
    facts = certificate_facts(make_certificate(further=odd).certificate, NOW)
    assert facts.other_extensions == ("1.3.6.1.4.1.55555.1", "certificatePolicies")


def test_extensions_that_cannot_be_read_are_named() -> None:
    broken = x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, b"\x30\x05ab")
    facts = certificate_facts(make_certificate(further=[broken]).certificate, NOW)
    assert facts.oddities == ("its extensions cannot be read",)
    assert facts.subject == "CN=someone"


def test_a_key_and_a_signature_of_an_unknown_kind() -> None:
    der = make_certificate().certificate.public_bytes(Encoding.DER)
    for known, strange in (
        ("06072a8648ce3d0201", "06072a8648ce3d027f"),
        ("06082a8648ce3d040302", "06082a8648ce3d04037f"),
    ):
        der = der.replace(bytes.fromhex(known), bytes.fromhex(strange))
    facts = certificate_facts(x509.load_der_x509_certificate(der), NOW)
    assert facts.key == "of an unknown kind (1.2.840.10045.2.127)"
    assert facts.signature == "1.2.840.10045.4.3.127"


def test_a_serial_that_is_not_positive_is_named() -> None:
    """cryptography makes no such certificate, and warns of one in words that help nobody here."""
    certificate = make_certificate().certificate
    der = bytearray(certificate.public_bytes(Encoding.DER))
    place = der.index(bytes.fromhex("a003020102")) + 7
    der[place] |= 0x80
    (found,) = read_bundle(bytes(der), source="f").certificates
    facts = certificate_facts(found, NOW)
    assert facts.serial.startswith("-")
    assert facts.oddities == ("its serial number is not positive",)


def test_a_great_many_names_are_cut() -> None:
    names = [x509.DNSName(f"n{n}.example.com") for n in range(MAX_NAMES + 7)]
    facts = certificate_facts(make_certificate(further=[x509.SubjectAlternativeName(names)]).certificate, NOW)
    assert len(facts.names) == MAX_NAMES
    assert facts.oddities == ("7 more of its names are not shown",)


# A file, looked into.

CLIENT = make_certificate("client", issuer=Made(ROOT.certificate, ROOT.key))
STRANGER = make_certificate("stranger", ca=True)


def test_a_chain_with_its_key() -> None:
    found = inspect(ROOT.cert_pem + CLIENT.cert_pem + CLIENT.key_pem, source="f", now=NOW)
    assert [facts.subject for facts in found.certificates] == ["CN=client", "CN=our root"]
    assert (found.chain, found.root_included, found.open_end) == (("CN=client", "CN=our root"), True, None)
    assert found.key is not None
    assert (found.key.fits, found.good) == ("CN=client", True)


def test_a_key_from_elsewhere() -> None:
    found = inspect(CLIENT.cert_pem, source="f", now=NOW, key=("k", STRANGER.key_pem))
    assert found.key is not None
    assert (found.key.source, found.key.fits, found.good) == ("k", None, False)
    assert found.open_end == "CN=our root"
    assert not inspect(CLIENT.cert_pem, source="f", now=NOW, key=("k", CLIENT.cert_pem)).key


def test_a_collection_of_roots_is_no_chain() -> None:
    found = inspect(ROOT.cert_pem + STRANGER.cert_pem, source="f", now=NOW)
    assert (found.chain, found.gaps, found.notes, found.good) == ((), (), (), True)
    assert len(found.certificates) == 2
    assert not inspect(ROOT.cert_pem, source="f", now=NOW + 9999 * DAY).good


def test_a_key_alone() -> None:
    found = inspect(CLIENT.key_pem, source="f", now=NOW)
    assert (found.certificates, found.chain, found.good) == ((), (), True)
