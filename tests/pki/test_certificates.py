"""Certificates out of PEM files as they are found in the wild, and facts about them that OpenSSL agrees with."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, pkcs7, pkcs12

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.authority import Authority
from mtlskit.pki.certificates import (
    certificates_pem,
    extension,
    fingerprint_sha256,
    is_issued_by,
    load_certificates,
    serial_text,
    spki_sha256,
    subject_text,
)
from mtlskit.pki.der import DerError, describe, elements, read_element, subject_public_key_info
from mtlskit.pki.keys import KeyType, generate_key, public_key_der
from mtlskit.pki.pem import MAX_BYTES
from tests.support.openssl import openssl
from tests.support.x509_builder import NOW, make_certificate, make_request

ONE = make_certificate("one")
TWO = make_certificate("two")
PLAIN = ONE.cert_pem
DER = ONE.certificate.public_bytes(Encoding.DER)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = Authority.create("ca", now=NOW)


def sequence(*parts: bytes) -> bytes:
    content = b"".join(parts)
    length = len(content)
    return (b"\x30\x81" if length < 256 else b"\x30\x82") + length.to_bytes(1 + (length > 255), "big") + content


def p12() -> bytes:
    return pkcs12.serialize_key_and_certificates(b"me", EC_KEY, None, None, NoEncryption())


@pytest.mark.parametrize(
    "text",
    [
        PLAIN + TWO.cert_pem,
        b"subject=CN = one\nissuer=...\n" + PLAIN + b"\n\n  2 s:/CN=two\n" + TWO.cert_pem + b"the end",
        (PLAIN + TWO.cert_pem).replace(b"\n", b"\r\n"),
        (PLAIN + TWO.cert_pem).replace(b"\n", b"\r"),
        b"\xef\xbb\xbf" + PLAIN + TWO.cert_pem,
        b"".join(b"    " + line + b"  \n" for line in (PLAIN + TWO.cert_pem).splitlines()),
        PLAIN + ONE.key_pem + TWO.cert_pem,
        (PLAIN + TWO.cert_pem).replace(b"CERTIFICATE", b"X509 CERTIFICATE"),
        b"caf\xe9 \x0c\n" + PLAIN + TWO.cert_pem.rstrip(),
    ],
    ids=["plain", "text between", "crlf", "cr", "bom", "indented", "key between", "old label", "latin-1"],
)
def test_bundles_as_they_are_found(text: bytes) -> None:
    assert load_certificates(text, source="f") == (ONE.certificate, TWO.certificate)


def test_a_bundle_survives_being_written() -> None:
    pem = certificates_pem([TWO.certificate, ONE.certificate])
    assert load_certificates(pem, source="f") == (TWO.certificate, ONE.certificate)


def test_the_number_and_the_size_are_bounded() -> None:
    assert len(load_certificates(PLAIN * 100, source="f")) == 100
    assert len(load_certificates(PLAIN * 101, source="f", limit=101)) == 101
    with pytest.raises(IdentityError) as caught:
        load_certificates(PLAIN * 101, source="many.pem")
    assert caught.value.code is Code.PEM_TOO_LARGE
    assert "many.pem holds 101 certificates, more than the 100" in caught.value.sentence
    load_certificates(PLAIN.ljust(MAX_BYTES, b"\n"), source="f")
    with pytest.raises(IdentityError) as caught:
        load_certificates(PLAIN.ljust(MAX_BYTES + 1, b"\n"), source="big.pem")
    assert caught.value.code is Code.PEM_TOO_LARGE
    assert "big.pem" in caught.value.sentence


WRONG_KIND = {
    "private key": (ONE.key_pem, "holds a private key, not a certificate", "are cert and key exchanged?"),
    "request": (
        make_request(EC_KEY).public_bytes(Encoding.PEM),
        "holds a certificate request, not a certificate",
        "issued for the request",
    ),
    "der": (DER, "holds a DER certificate, not PEM", "openssl x509 -inform DER -in f.crt"),
    "der request": (
        make_request(EC_KEY).public_bytes(Encoding.DER),
        "holds a DER certificate request, not PEM",
        "issued for the request",
    ),
    "pkcs12": (p12(), "holds a PKCS #12 archive, not PEM", "openssl pkcs12 -in f.crt"),
    "pkcs7 der": (
        pkcs7.serialize_certificates([ONE.certificate], Encoding.DER),
        "holds a PKCS #7 bundle, not PEM",
        "openssl pkcs7 -inform DER",
    ),
    "pkcs7 pem": (
        pkcs7.serialize_certificates([ONE.certificate], Encoding.PEM),
        "holds a PKCS #7 bundle, not a certificate",
        "openssl pkcs7 -in f.crt -print_certs",
    ),
    "trusted": (
        PLAIN.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE"),
        "holds an OpenSSL trusted certificate",
        "openssl x509 -in f.crt",
    ),
    "revocation list": (AUTHORITY.revocation_list([], now=NOW), "holds a revocation list", "BEGIN CERTIFICATE"),
    "unknown label": (PLAIN.replace(b"CERTIFICATE", b"THING"), "holds a THING block", "BEGIN CERTIFICATE"),
    "empty": (b"", "f.crt is empty", "must hold a certificate"),
    "blank": (b" \r\n\n", "f.crt is empty", "must hold a certificate"),
    "prose": (b"not here yet\n", "holds no PEM block", "must hold a certificate"),
    "utf-16": (PLAIN.decode().encode("utf-16"), "is UTF-16 text", "iconv"),
    "java": (b"\xfe\xed\xfe\xed\0\0\0\2", "is a Java keystore", "keytool"),
    "base64 alone": (b"\n".join(PLAIN.splitlines()[1:-1]), "holds no PEM block", "must hold a certificate"),
    "cut der": (DER[:100], "holds no PEM block", "must hold a certificate"),
    "der of three": (sequence(sequence(), sequence(), sequence()), "holds no PEM block", "must hold a certificate"),
    "other der": (b"\x30\x03\x02\x01\x05", "holds no PEM block", "must hold a certificate"),
}


@pytest.mark.parametrize("name", WRONG_KIND)
def test_the_wrong_kind_of_file_is_named(name: str) -> None:
    data, words, hint = WRONG_KIND[name]
    with pytest.raises(IdentityError) as caught:
        load_certificates(data, source="f.crt")
    assert caught.value.code is Code.PEM_WRONG_KIND
    assert words in caught.value.sentence
    assert hint in caught.value.hint
    assert "\n" not in caught.value.sentence + caught.value.hint


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_der_key_in_place_of_a_certificate_is_named(encrypted: bool) -> None:
    extra = ["-topk8", "-v2", "aes-256-cbc", "-passout", "pass:x"] if encrypted else ["-topk8", "-nocrypt"]
    data = openssl("pkcs8", "-outform", "DER", *extra, stdin=ONE.key_pem)
    with pytest.raises(IdentityError) as caught:
        load_certificates(data, source="f.crt")
    kind = "an encrypted DER private key" if encrypted else "a DER private key"
    assert f"holds {kind}, not PEM" in caught.value.sentence
    assert "openssl pkey -inform DER" in caught.value.hint


LINES = PLAIN.splitlines(keepends=True)

DAMAGED = {
    "cut short": (b"".join(LINES[:4]), "(CERTIFICATE, from line 1)", "ends in line 5 before its END"),
    "no end": (b"".join(LINES[:-1]) + PLAIN, "block 1", f"begins in line {len(LINES)}"),
    "other end": (PLAIN.replace(b"END CERTIFICATE", b"END PRIVATE KEY"), "block 1", "ends PRIVATE KEY instead"),
    "bad character": (b"".join([*LINES[:3], b"a?b\n", *LINES[3:]]), "block 1", "line 4 is not base64"),
    "lost character": (b"".join([*LINES[:2], LINES[2][1:], *LINES[3:]]), "block 1", "base64 is missing"),
    "padding inside": (b"".join([*LINES[:2], b"QQ==\n", *LINES[2:]]), "block 1", "line 3 is not base64"),
    "lost line": (b"".join(LINES[:3] + LINES[4:]), "block 1 (CERTIFICATE, from line 1)", "no X.509 certificate"),
    "second block": (
        b"# two\n" + PLAIN + b"".join(LINES[:2] + LINES[3:]),
        f"block 2 (CERTIFICATE, from line {len(LINES) + 2})",
        "no X.509",
    ),
    "nothing inside": (LINES[0] + LINES[-1], "block 1", "nothing stands between"),
    "a key in it": (
        LINES[0] + b"".join(ONE.key_pem.splitlines(keepends=True)[1:-1]) + LINES[-1],
        "block 1",
        "no X.509",
    ),
    "escaped": (PLAIN.replace(b"\n", b"\\n"), "line 1", "written as \\n"),
    "one line": (PLAIN.replace(b"\n", b" "), "line 1", "not a line of its own"),
    "odd header": (LINES[0] + b"Comment: caf\xe9\n\n" + b"".join(LINES[1:]), "block 1", "not ASCII"),
    "long label": (b"-----BEGIN " + b"A" * 500 + b"-----\n", "A" * 40 + "…", "before its END"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_located(name: str) -> None:
    data, where, what = DAMAGED[name]
    with pytest.raises(IdentityError) as caught:
        load_certificates(data, source="f.crt")
    assert caught.value.code is Code.PEM_DAMAGED
    assert caught.value.sentence.startswith("f.crt")
    assert where in caught.value.sentence
    assert what in caught.value.sentence
    assert caught.value.hint


@pytest.mark.parametrize("kind", [KeyType.EC_P256, KeyType.ED25519, KeyType.RSA_2048])
def test_openssl_agrees_on_digests_and_serial(kind: KeyType) -> None:
    made = make_certificate("somebody, else", key=generate_key(kind))
    public = openssl(
        "pkey", "-pubin", "-outform", "DER", stdin=openssl("x509", "-noout", "-pubkey", stdin=made.cert_pem)
    )
    assert spki_sha256(made.certificate) == hashlib.sha256(public).digest()
    shown = openssl("x509", "-noout", "-fingerprint", "-sha256", "-serial", stdin=made.cert_pem).decode()
    assert fingerprint_sha256(made.certificate).hex(":").upper() in shown
    serial = shown.partition("serial=")[2].split()[0]
    assert serial_text(made.certificate) == serial.lower().lstrip("0")  # OpenSSL writes whole bytes
    assert subject_text(made.certificate) == "CN=somebody\\, else"


def test_a_pin_is_taken_of_the_bytes_as_they_stand(tmp_path: Path) -> None:
    """A compressed point re-encodes to other bytes: the pin is of the certificate's own."""
    (tmp_path / "key").write_bytes(openssl("pkey", "-ec_conv_form", "compressed", stdin=ONE.key_pem))
    pem = openssl("req", "-x509", "-key", tmp_path / "key", "-subj", "/CN=small", "-days", "9")
    public = openssl("x509", "-noout", "-pubkey", stdin=pem)
    der = base64.b64decode(b"".join(public.splitlines()[1:-1]))
    (certificate,) = load_certificates(pem, source="f")
    assert spki_sha256(certificate) == hashlib.sha256(der).digest()
    assert len(der) < len(public_key_der(ONE.key))


def test_a_version_1_certificate_is_read() -> None:
    """Old roots are of version 1: no version field, no extensions, so the key stands one place earlier."""
    tbs, *signature = elements(read_element(DER)[0].content, 3)
    fields = [field.raw for field in elements(tbs.content, 8)][1:7]
    old = sequence(sequence(*fields), *(field.raw for field in signature))
    assert describe(old) == "a DER certificate"
    pem = openssl("x509", "-inform", "DER", stdin=old)
    (certificate,) = load_certificates(pem, source="f")
    assert certificate.version is x509.Version.v1
    assert spki_sha256(certificate) == spki_sha256(ONE.certificate)


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x80\0\0", b"\x30\x82\x01", b"\x30\x02\x30\0", b"\x30\0"])
def test_no_public_key_in_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(DerError):
        subject_public_key_info(data)
    assert describe(data) is None


def test_an_empty_subject_is_spoken_of_by_its_serial() -> None:
    long_name = "a" * 60 + ".example.com"
    certificate = AUTHORITY.issue_server([long_name], now=NOW).certificate
    assert subject_text(certificate) == f"serial {serial_text(certificate)}"


def test_a_subject_cannot_write_into_a_log() -> None:
    spoken = subject_text(make_certificate("me\n\x1b[2JERROR \u202e").certificate)
    assert spoken == "CN=me\\0a\\1b[2JERROR \\e2\\80\\ae"
    parts = [x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "u" * 60)] * 20
    long_subject = make_certificate("end", before=parts).certificate
    assert len(subject_text(long_subject)) == 256


def test_an_extension_that_cannot_be_read_is_an_error_and_a_missing_one_is_none() -> None:
    assert extension(ONE.certificate, x509.SubjectAlternativeName, source="f.crt") is None
    broken = x509.UnrecognizedExtension(x509.OID_SUBJECT_ALTERNATIVE_NAME, b"\x30\x05ab")
    certificate = make_certificate("odd", further=[broken]).certificate
    with pytest.raises(IdentityError) as caught:
        extension(certificate, x509.SubjectAlternativeName, source="f.crt")
    assert caught.value.code is Code.PEM_DAMAGED
    assert "f.crt: the extensions of CN=odd" in caught.value.sentence


def test_an_issuer_is_known_by_name_and_signature() -> None:
    root = make_certificate("root", ca=True)
    namesake = make_certificate("root", ca=True)
    other_kind = make_certificate("root", ca=True, key=generate_key(KeyType.ED25519))
    leaf = make_certificate("leaf", issuer=root)
    assert is_issued_by(leaf.certificate, root.certificate)
    assert not is_issued_by(leaf.certificate, namesake.certificate)
    assert not is_issued_by(leaf.certificate, other_kind.certificate)
    assert not is_issued_by(root.certificate, leaf.certificate)


def test_where_the_signature_is_of_an_unknown_kind_the_names_decide() -> None:
    """The server decides on the signature in the end; a chain is not to be torn apart for it here."""
    root = make_certificate("root", ca=True)
    leaf = make_certificate("leaf", issuer=root)
    der = leaf.certificate.public_bytes(Encoding.DER)
    ecdsa_with_sha256 = bytes.fromhex("06082a8648ce3d040302")
    assert der.count(ecdsa_with_sha256) == 2
    strange = x509.load_der_x509_certificate(der.replace(ecdsa_with_sha256, bytes.fromhex("06082a8648ce3d04037f")))
    assert is_issued_by(strange, root.certificate)
    assert not is_issued_by(strange, ONE.certificate)
