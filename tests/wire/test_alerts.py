"""Every alert that OpenSSL can name has a meaning, however the name is spelt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlskit.errors import Code
from mtlskit.wire.alerts import ALERT_NUMBERS, meaning_of

# The names of sslerr.h (OpenSSL 3.0), where a reason is 1000 plus the alert's number.
OPENSSL_REASONS = {
    "SSLV3_ALERT_UNEXPECTED_MESSAGE": 10,
    "SSLV3_ALERT_BAD_RECORD_MAC": 20,
    "TLSV1_ALERT_DECRYPTION_FAILED": 21,
    "TLSV1_ALERT_RECORD_OVERFLOW": 22,
    "SSLV3_ALERT_DECOMPRESSION_FAILURE": 30,
    "SSLV3_ALERT_HANDSHAKE_FAILURE": 40,
    "SSLV3_ALERT_NO_CERTIFICATE": 41,
    "SSLV3_ALERT_BAD_CERTIFICATE": 42,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": 43,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": 44,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": 45,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": 46,
    "SSLV3_ALERT_ILLEGAL_PARAMETER": 47,
    "TLSV1_ALERT_UNKNOWN_CA": 48,
    "TLSV1_ALERT_ACCESS_DENIED": 49,
    "TLSV1_ALERT_DECODE_ERROR": 50,
    "TLSV1_ALERT_DECRYPT_ERROR": 51,
    "TLSV1_ALERT_EXPORT_RESTRICTION": 60,
    "TLSV1_ALERT_PROTOCOL_VERSION": 70,
    "TLSV1_ALERT_INSUFFICIENT_SECURITY": 71,
    "TLSV1_ALERT_INTERNAL_ERROR": 80,
    "TLSV1_ALERT_INAPPROPRIATE_FALLBACK": 86,
    "TLSV1_ALERT_USER_CANCELLED": 90,
    "TLSV1_ALERT_NO_RENEGOTIATION": 100,
    "TLSV13_ALERT_MISSING_EXTENSION": 109,
    "TLSV1_UNSUPPORTED_EXTENSION": 110,
    "TLSV1_CERTIFICATE_UNOBTAINABLE": 111,
    "TLSV1_UNRECOGNIZED_NAME": 112,
    "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE": 113,
    "TLSV1_BAD_CERTIFICATE_HASH_VALUE": 114,
    "TLSV1_ALERT_UNKNOWN_PSK_IDENTITY": 115,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": 116,
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": 120,
}


@pytest.mark.parametrize(("reason", "number"), OPENSSL_REASONS.items())
def test_each_reason_of_openssl_is_the_alert_of_its_number(reason: str, number: int) -> None:
    meaning = meaning_of(reason)
    assert meaning is not None
    assert meaning.alert == ALERT_NUMBERS[number]
    assert meaning.code.startswith("MTLS-TLS-")


@pytest.mark.parametrize("alert", ALERT_NUMBERS.values())
@pytest.mark.parametrize("prefix", ["SSLV3_ALERT_", "TLSV1_ALERT_", "TLSV1_", "TLSV13_ALERT_", "SSL/TLS_ALERT_"])
def test_the_prefix_does_not_matter(prefix: str, alert: str) -> None:
    meaning = meaning_of(prefix + alert.upper())
    assert meaning is not None
    assert meaning.alert == alert


def test_the_spaced_words_of_an_error_string_are_understood() -> None:
    assert meaning_of("ssl/tls alert bad certificate") == meaning_of("SSLV3_ALERT_BAD_CERTIFICATE")
    assert meaning_of("tlsv1 alert unknown ca") == meaning_of("TLSV1_ALERT_UNKNOWN_CA")


@pytest.mark.parametrize("alert", ALERT_NUMBERS.values())
def test_the_words_are_for_people(alert: str) -> None:
    meaning = meaning_of(f"TLSV1_ALERT_{alert}")
    assert meaning is not None
    assert meaning.hint
    assert "\n" not in meaning.sentence_part + meaning.hint
    assert not meaning.sentence_part.endswith(".")
    assert meaning.sentence_part[0].islower()


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", Code.TLS_CLIENT_CERTIFICATE_REQUIRED),
        ("TLSV1_ALERT_UNKNOWN_CA", Code.TLS_CLIENT_CA_UNKNOWN),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", Code.TLS_CLIENT_CERTIFICATE_EXPIRED),
        ("SSLV3_ALERT_CERTIFICATE_REVOKED", Code.TLS_CLIENT_CERTIFICATE_REVOKED),
        ("SSLV3_ALERT_BAD_CERTIFICATE", Code.TLS_CLIENT_CERTIFICATE_REFUSED),
        ("TLSV1_ALERT_PROTOCOL_VERSION", Code.TLS_VERSION),
        ("TLSV1_ALERT_NO_APPLICATION_PROTOCOL", Code.TLS_ALPN),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", Code.TLS_HANDSHAKE_FAILED),
    ],
)
def test_the_codes_that_scripts_match_on(reason: str, code: Code) -> None:
    meaning = meaning_of(reason)
    assert meaning is not None
    assert meaning.code is code


@pytest.mark.parametrize(
    "reason",
    ["", "CERTIFICATE_VERIFY_FAILED", "BAD_CERTIFICATE", "UNKNOWN_CA", "TLSV1_ALERT_", "SSLV3_ROLLBACK_ATTACK"],
)
def test_errors_of_our_own_side_are_no_alerts(reason: str) -> None:
    assert meaning_of(reason) is None


@given(st.text())
def test_any_text_may_be_asked_for(reason: str) -> None:
    meaning = meaning_of(reason)
    assert meaning is None or meaning.alert in ALERT_NUMBERS.values()
