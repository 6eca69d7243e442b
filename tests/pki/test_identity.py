"""What makes a client identity, what does not, and what is only worth a word. `openssl verify` is asked as well."""

from __future__ import annotations

import random
import ssl
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.errors import Code, IdentityError
from mtlskit.pki.certificates import certificates_pem, load_certificates, spki_sha256
from mtlskit.pki.identity import CheckedPair, anchor_warnings, check_anchors, check_pair
from mtlskit.pki.keys import KeyType, generate_key, private_key_pem
from tests.support.openssl import openssl, run_openssl
from tests.support.x509_builder import DAY, NOW, Made, make_certificate, make_request

ROOT = make_certificate("root", ca=True, usages=None, digital_signature=False)
MIDDLE = make_certificate("middle", issuer=ROOT, ca=True, usages=None, digital_signature=False)
LEAF = make_certificate("leaf", issuer=MIDDLE)
STRANGER = make_certificate("stranger")
SECOND = timedelta(seconds=1)


def pair(cert_pem: bytes, key_pem: bytes, *, now: datetime = NOW, passphrase: bytes | None = None) -> CheckedPair:
    return check_pair(cert_pem, key_pem, now=now, cert_source="c.crt", key_source="c.key", passphrase=passphrase)


def refused(cert_pem: bytes, key_pem: bytes, *, now: datetime = NOW) -> IdentityError:
    with pytest.raises(IdentityError) as caught:
        pair(cert_pem, key_pem, now=now)
    assert "\n" not in caught.value.sentence + caught.value.hint
    assert caught.value.hint
    return caught.value


def test_a_plain_pair_has_no_warnings() -> None:
    checked = pair(LEAF.cert_pem, LEAF.key_pem)
    assert checked.chain == (LEAF.certificate,)
    assert checked.warnings == ()
    assert checked.not_after == NOW + 265 * DAY
    assert int(checked.serial, 16) == LEAF.certificate.serial_number
    assert checked.chain_pem == LEAF.cert_pem
    assert checked.key_pem == LEAF.key_pem


def test_the_key_stays_out_of_the_repr() -> None:
    assert "key" not in repr(pair(LEAF.cert_pem, LEAF.key_pem)).lower()


def test_one_file_may_hold_both() -> None:
    both = LEAF.key_pem + LEAF.cert_pem + MIDDLE.cert_pem
    assert pair(both, both).chain == (LEAF.certificate, MIDDLE.certificate)


def test_an_encrypted_key_opens_with_its_passphrase() -> None:
    closed = private_key_pem(LEAF.key, b"secret")
    assert pair(LEAF.cert_pem, closed, passphrase=b"secret").key_pem == LEAF.key_pem
    assert refused(LEAF.cert_pem, closed).code is Code.KEY_ENCRYPTED


def test_the_pair_as_it_was_checked_loads_into_openssl(tmp_path: Path) -> None:
    checked = pair(ROOT.cert_pem + MIDDLE.cert_pem + LEAF.cert_pem, LEAF.key_pem)
    (tmp_path / "cert").write_bytes(checked.chain_pem)
    (tmp_path / "key").write_bytes(checked.key_pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(tmp_path / "cert", tmp_path / "key")


def test_files_given_the_wrong_way_round() -> None:
    error = refused(LEAF.key_pem, LEAF.cert_pem)
    assert error.code is Code.PEM_WRONG_KIND
    assert error.sentence == "c.crt holds a private key, not a certificate"


def test_a_request_in_place_of_the_certificate() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    error = refused(make_request(key).public_bytes(Encoding.PEM), private_key_pem(key))
    assert error.code is Code.PEM_WRONG_KIND
    assert error.sentence == "c.crt holds a certificate request, not a certificate"


# The chain.


@pytest.mark.parametrize("seed", range(6))
def test_a_chain_is_put_in_order(seed: int) -> None:
    bundle = [LEAF, MIDDLE, ROOT]
    shuffled = bundle.copy()
    random.Random(seed).shuffle(shuffled)  # noqa: S311 (an order, not a secret)
    checked = pair(b"".join(made.cert_pem for made in shuffled), LEAF.key_pem)
    assert checked.chain == tuple(made.certificate for made in bundle)
    assert bool(checked.warnings) is (shuffled != bundle)
    for warning in checked.warnings:
        assert warning == "c.crt: the certificates were put in order, CN=leaf first, then its issuers"


def test_what_is_no_part_of_the_chain_is_left_out_and_said() -> None:
    checked = pair(STRANGER.cert_pem + LEAF.cert_pem + MIDDLE.cert_pem, LEAF.key_pem)
    assert checked.chain == (LEAF.certificate, MIDDLE.certificate)
    assert checked.warnings == ("c.crt: certificates that are no part of the chain are left out: CN=stranger",)


def test_a_certificate_that_stands_twice_is_sent_once_without_a_word() -> None:
    checked = pair((LEAF.cert_pem + MIDDLE.cert_pem) * 2, LEAF.key_pem)
    assert checked.chain == (LEAF.certificate, MIDDLE.certificate)
    assert checked.warnings == ()


def test_both_forms_of_a_cross_signed_issuer_are_kept() -> None:
    other_root = make_certificate("other root", ca=True, usages=None)
    crossed = make_certificate("middle", issuer=other_root, key=MIDDLE.key, ca=True, usages=None)
    checked = pair(b"".join(made.cert_pem for made in (LEAF, MIDDLE, crossed)), LEAF.key_pem)
    assert checked.chain == (LEAF.certificate, MIDDLE.certificate, crossed.certificate)
    assert checked.warnings == ()


def test_an_expired_issuer_is_a_warning() -> None:
    old = make_certificate("old", ca=True, usages=None, ends=NOW - 3 * DAY)
    leaf = make_certificate("leaf", issuer=old)
    (warning,) = pair(leaf.cert_pem + old.cert_pem, leaf.key_pem).warnings
    assert warning == "c.crt: the issuer CN=old expired on 2026-05-29 12:00:00 UTC, 3 days ago"


@pytest.mark.parametrize("newer_first", [False, True])
def test_of_two_certificates_for_one_key_the_one_that_lasts_longer_is_taken(newer_first: bool) -> None:
    older = make_certificate("me", ends=NOW + 40 * DAY)
    newer = make_certificate("me", key=older.key, ends=NOW + 300 * DAY)
    future = make_certificate("me", key=older.key, begins=NOW + DAY, ends=NOW + 900 * DAY)
    bundle = [newer, older] if newer_first else [older, newer]
    checked = pair(b"".join(made.cert_pem for made in [future, *bundle]), older.key_pem)
    assert checked.leaf == newer.certificate
    assert "left out" in checked.warnings[0]


# The key.


@pytest.mark.parametrize("further", [[], [MIDDLE]])
def test_a_key_of_another_certificate(further: list[Made]) -> None:
    error = refused(b"".join(made.cert_pem for made in [LEAF, *further]), STRANGER.key_pem)
    assert error.code is Code.KEY_MISMATCH
    for part in (
        "c.crt",
        "c.key",
        spki_sha256(LEAF.certificate).hex()[:16],
        spki_sha256(STRANGER.certificate).hex()[:16],
    ):
        assert part in error.sentence
    assert ("2 certificates" in error.sentence) is bool(further)
    assert "certs show c.crt --key" in error.hint


def test_a_certificate_whose_key_is_of_an_unknown_kind_does_not_match() -> None:
    """The key's algorithm becomes an unknown one: nothing else than that the key does not fit can be said of it."""
    der = LEAF.certificate.public_bytes(Encoding.DER)
    elliptic = bytes.fromhex("06072a8648ce3d0201")
    assert der.count(elliptic) == 1
    strange = x509.load_der_x509_certificate(der.replace(elliptic, bytes.fromhex("06072a8648ce3d027f")))
    assert refused(certificates_pem([strange]), LEAF.key_pem).code is Code.KEY_MISMATCH


# The dates.


@pytest.mark.parametrize(
    ("now", "code", "words"),
    [
        (
            LEAF.certificate.not_valid_after_utc + SECOND,
            Code.CERTIFICATE_EXPIRED,
            "expired on 2027-02-21 12:00:00 UTC, 1 second ago",
        ),
        (LEAF.certificate.not_valid_after_utc + 45 * SECOND, Code.CERTIFICATE_EXPIRED, "45 seconds ago"),
        (LEAF.certificate.not_valid_after_utc + 90 * SECOND, Code.CERTIFICATE_EXPIRED, "1 minute ago"),
        (LEAF.certificate.not_valid_after_utc + DAY / 2, Code.CERTIFICATE_EXPIRED, "12 hours ago"),
        (LEAF.certificate.not_valid_after_utc + 400 * DAY, Code.CERTIFICATE_EXPIRED, "400 days ago"),
        (
            LEAF.certificate.not_valid_before_utc - DAY,
            Code.CERTIFICATE_NOT_YET_VALID,
            "is not valid before 2026-02-21 12:00:00 UTC, 1 day from now",
        ),
    ],
    ids=["second", "seconds", "minute", "hours", "days", "not yet"],
)
def test_outside_its_dates(now: datetime, code: Code, words: str) -> None:
    error = refused(LEAF.cert_pem, LEAF.key_pem, now=now)
    assert error.code is code
    assert error.sentence.startswith("c.crt: CN=leaf ")
    assert words in error.sentence


def test_the_first_and_the_last_second_are_valid() -> None:
    pair(LEAF.cert_pem, LEAF.key_pem, now=LEAF.certificate.not_valid_before_utc)
    pair(LEAF.cert_pem, LEAF.key_pem, now=LEAF.certificate.not_valid_after_utc)


@pytest.mark.parametrize(
    ("lifetime", "left", "warned"),
    [(365, 31, False), (365, 29, True), (60, 25, False), (60, 19, True), (3, 2, False)],
)
def test_an_expiry_that_draws_near_is_a_warning(lifetime: int, left: int, warned: bool) -> None:
    made = make_certificate("me", begins=NOW - (lifetime - left) * DAY, ends=NOW + left * DAY)
    warnings = pair(made.cert_pem, made.key_pem).warnings
    assert [warning for warning in warnings if f"in {left} days" in warning] == list(warnings)
    assert bool(warnings) is warned


# The usage.


def test_a_server_certificate_is_not_for_clients() -> None:
    made = make_certificate("srv", usages=[ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.TIME_STAMPING])
    error = refused(made.cert_pem, made.key_pem)
    assert error.code is Code.CERTIFICATE_NOT_FOR_CLIENTS
    assert "its extended key usage is serverAuth, 1.3.6.1.5.5.7.3.8, without clientAuth" in error.sentence
    assert "clientAuth" in error.hint


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (make_certificate(usages=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), "only anyExtendedKeyUsage"),
        (make_certificate(ca=True), "is a CA certificate"),
        (make_certificate(digital_signature=False), "without digitalSignature"),
    ],
    ids=["any usage", "ca", "key usage"],
)
def test_what_only_the_server_can_judge_is_a_warning(made: Made, words: str) -> None:
    (warning,) = pair(made.cert_pem, made.key_pem).warnings
    assert warning.startswith("c.crt: CN=someone ")
    assert words in warning


@pytest.mark.parametrize(
    ("kind", "digest", "name"),
    [
        (KeyType.RSA_2048, "md5", "MD5"),
        (KeyType.RSA_2048, "sha1", "SHA-1"),
        (KeyType.EC_P256, "sha1", "SHA-1"),
        (KeyType.EC_P256, "sha256", None),
    ],
)
def test_a_weak_signature_is_a_warning(kind: KeyType, digest: str, name: str | None, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(private_key_pem(generate_key(kind)))
    # cryptography does not sign with these digests any more.
    made = openssl(
        *("req", "-x509", "-new", f"-{digest}", "-subj", "/CN=old", "-days", "365"),
        *("-key", tmp_path / "key", "-addext", "basicConstraints=critical,CA:FALSE"),
    )
    (certificate,) = load_certificates(made, source="c.crt")
    warnings = pair(made, (tmp_path / "key").read_bytes(), now=certificate.not_valid_before_utc).warnings
    signed = [warning for warning in warnings if "is signed with" in warning]
    assert signed == ([f"c.crt: CN=old is signed with {name}; servers may refuse it"] if name else [])


def test_a_certificate_without_extensions_passes() -> None:
    made = make_certificate(usages=None, ca=None, digital_signature=None)
    assert pair(made.cert_pem, made.key_pem).warnings == ()


@pytest.mark.parametrize(
    ("made", "fine"),
    [
        (make_certificate(), True),
        (make_certificate(usages=None, ca=None, digital_signature=None), True),
        (make_certificate(usages=[ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (make_certificate(usages=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False),
        (make_certificate(digital_signature=False), False),
        (make_certificate(ends=NOW - DAY), False),
        (make_certificate(begins=NOW + DAY), False),
    ],
    ids=["plain", "no extensions", "server", "any usage", "key usage", "expired", "not yet"],
)
def test_openssl_agrees_on_who_may_be_a_client(made: Made, fine: bool, tmp_path: Path) -> None:
    """What OpenSSL accepts passes without a warning, and what it refuses is refused or warned of."""
    path = tmp_path / "c.crt"
    path.write_bytes(made.cert_pem)
    moment = str(int(NOW.timestamp()))
    done = run_openssl("verify", "-attime", moment, "-purpose", "sslclient", "-CAfile", path, path)
    assert (done.returncode == 0) is fine, done.stderr
    try:
        passed = not pair(made.cert_pem, made.key_pem).warnings
    except IdentityError:
        passed = False
    assert passed is fine


# Trust anchors.


def test_anchors_are_handed_back_in_order() -> None:
    assert check_anchors(ROOT.cert_pem + STRANGER.cert_pem, now=NOW, source="ca.crt") == (
        ROOT.certificate,
        STRANGER.certificate,
    )


def test_a_trust_store_may_be_larger_than_a_chain() -> None:
    assert len(check_anchors(ROOT.cert_pem * 200, now=NOW, source="ca.crt")) == 200
    with pytest.raises(IdentityError) as caught:
        check_anchors(ROOT.cert_pem * 1001, now=NOW, source="ca.crt")
    assert caught.value.code is Code.PEM_TOO_LARGE


def test_one_valid_anchor_is_enough_and_the_others_are_told_of() -> None:
    old = make_certificate("old root", ca=True, ends=NOW - 2 * DAY)
    anchors = check_anchors(old.cert_pem + ROOT.cert_pem, now=NOW, source="ca.crt")
    assert anchors == (old.certificate, ROOT.certificate)
    assert anchor_warnings(anchors, now=NOW, source="ca.crt") == (
        "ca.crt: the trust anchor CN=old root expired on 2026-05-30 12:00:00 UTC, 2 days ago",
    )


def test_a_leaf_given_as_an_anchor_is_told_of() -> None:
    lone = make_certificate("lone server")
    assert anchor_warnings([LEAF.certificate, lone.certificate, MIDDLE.certificate], now=NOW, source="ca.crt") == (
        "ca.crt: the trust anchor CN=leaf is no CA certificate, and trusts nobody: "
        "give its issuer's instead (CN=middle)",
    )


@pytest.mark.parametrize(
    ("anchors", "code", "words"),
    [
        (
            [
                make_certificate("older root", ends=NOW - 9 * DAY),
                make_certificate("old root", ends=NOW - 2 * DAY),
            ],
            Code.CERTIFICATE_EXPIRED,
            "ca.crt: trust anchor CN=old root expired on 2026-05-30",
        ),
        (
            [make_certificate("new root", begins=NOW + 2 * DAY)],
            Code.CERTIFICATE_NOT_YET_VALID,
            "ca.crt: trust anchor CN=new root is not valid before 2026-06-03",
        ),
    ],
)
def test_without_a_valid_anchor_nothing_can_be_trusted(anchors: list[Made], code: Code, words: str) -> None:
    with pytest.raises(IdentityError) as caught:
        check_anchors(b"".join(made.cert_pem for made in anchors), now=NOW, source="ca.crt")
    assert caught.value.code is code
    assert caught.value.sentence.startswith(words)


def test_a_key_is_no_anchor() -> None:
    with pytest.raises(IdentityError) as caught:
        check_anchors(ROOT.key_pem, now=NOW, source="ca.crt")
    assert caught.value.sentence == "ca.crt holds a private key, not a certificate"
