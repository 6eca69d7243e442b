"""What a TLS alert from the server means to the person who has to mend it (RFC 8446, section 6).

OpenSSL tells an alert by a reason name such as ``TLSV13_ALERT_CERTIFICATE_REQUIRED`` (`ssl.SSLError.reason`). The
prefix says in which version of the protocol the alert was first defined, not which one was spoken, and it changes
between versions of OpenSSL and its relatives (``SSLV3_ALERT_``, ``TLSV1_ALERT_``, ``TLSV1_``, ``SSL/TLS_ALERT_``), so
only the rest counts. A name without such a prefix is an error that our own side found, and no alert.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from mtlskit.errors import Code

__all__ = ["ALERT_NUMBERS", "AlertMeaning", "meaning_of"]

ALERT_NUMBERS: Final[dict[int, str]] = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    111: "certificate_unobtainable",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    114: "bad_certificate_hash_value",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}
"""RFC 8446, sections 6 and B.2; the names that B.2 marks RESERVED, which older servers still send, stand without it."""


@dataclass(frozen=True)
class AlertMeaning:
    """`alert` is the RFC's name; `sentence_part` goes on after "the server refused the handshake: "."""

    alert: str
    code: Code
    sentence_part: str
    hint: str


_OUR_CERTIFICATE: Final = "look at the certificate with `openssl x509 -in CERT -noout -text`"
_SERVER_LOG: Final = "the reason is in the server's log at this moment: ask whoever runs it"
_DAMAGE: Final = (
    "the bytes were changed on the way or one side has a fault: try without middleboxes (proxy, VPN, load balancer),"
    " then look into the server's log"
)
_UPGRADE: Final = "the two TLS libraries disagree: bring the older of the two sides up to date"

_MEANINGS: Final[dict[str, tuple[Code, str, str]]] = {
    # About our client certificate.
    "certificate_required": (
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
        "the server demands a client certificate and got none",
        "give this tunnel an identity (--cert and --key), and make sure that the certificate file is not empty",
    ),
    "no_certificate": (
        Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
        "the server demands a client certificate and got none",
        "give this tunnel an identity (--cert and --key), and make sure that the certificate file is not empty",
    ),
    "unknown_ca": (
        Code.TLS_CLIENT_CA_UNKNOWN,
        "the server does not know the CA that signed our client certificate",
        "compare the certificate's issuer with the CA that the server trusts for clients, and append missing"
        " intermediate certificates to the certificate file; for another database, get an identity of its own",
    ),
    "certificate_expired": (
        Code.TLS_CLIENT_CERTIFICATE_EXPIRED,
        "our client certificate, or the server's revocation list (CRL) for it, has expired by the server's clock",
        "renew the client certificate; if `openssl x509 -in CERT -noout -dates` shows good dates, compare the"
        " clocks and ask for the age of the CRL (PostgreSQL: ssl_crl_file)",
    ),
    "certificate_revoked": (
        Code.TLS_CLIENT_CERTIFICATE_REVOKED,
        "our client certificate has been revoked",
        "get a new client certificate; this one will not be taken again",
    ),
    "bad_certificate": (
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the server refuses our client certificate as not valid: damaged, too weak, or not valid yet by its clock",
        _OUR_CERTIFICATE + ", compare the clocks, and check that the chain is in order, leaf first",
    ),
    "unsupported_certificate": (
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the server does not take a client certificate of this kind (its key type or its purpose)",
        _OUR_CERTIFICATE + ": an extended key usage must include clientAuth; otherwise try an EC P-256 or RSA key",
    ),
    "certificate_unknown": (
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the server refuses our client certificate for a reason that it does not name",
        _OUR_CERTIFICATE + "; " + _SERVER_LOG,
    ),
    "access_denied": (
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the server knows our client certificate and does not let it in",
        "the certificate's subject must be allowed on the server; check that it is the identity for this database",
    ),
    "certificate_unobtainable": (
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the server could not fetch our client certificate from where it was told to",
        _SERVER_LOG,
    ),
    "bad_certificate_hash_value": (
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the client certificate that the server fetched is not the one that was announced",
        _SERVER_LOG,
    ),
    # About what the two sides have in common.
    "handshake_failure": (
        Code.TLS_HANDSHAKE_FAILED,
        "the server found no settings that suit both sides, or, under TLS 1.2, misses a client certificate",
        "check that this tunnel has an identity (--cert and --key) of a key type that the server takes; " + _SERVER_LOG,
    ),
    "protocol_version": (
        Code.TLS_VERSION,
        "the server does not speak the TLS versions that we offer (1.2 and later)",
        "enable TLS 1.2 or 1.3 on the server (PostgreSQL: ssl_min_protocol_version and ssl_max_protocol_version)",
    ),
    "inappropriate_fallback": (
        Code.TLS_VERSION,
        "the server speaks a newer TLS version than the one that we fell back to",
        "check that nothing between the two sides lowers the TLS version",
    ),
    "insufficient_security": (
        Code.TLS_HANDSHAKE_FAILED,
        "the server demands stronger ciphers or keys than we offer",
        "use a stronger key for the client certificate (EC P-256 or RSA 3072), or update OpenSSL on this host",
    ),
    "export_restriction": (Code.TLS_HANDSHAKE_FAILED, "the server refuses the strength of our keys", _UPGRADE),
    "no_application_protocol": (
        Code.TLS_ALPN,
        "the server does not speak the application protocol that we named (ALPN)",
        'use negotiation = "sslrequest": direct TLS needs PostgreSQL 17 or later at this very port',
    ),
    "unrecognized_name": (
        Code.TLS_NAME_MISMATCH,
        "the server does not know the host name that we asked for (SNI)",
        "check the upstream's host name: an alias, or a name that was valid before a move, is not enough here",
    ),
    "missing_extension": (
        Code.TLS_HANDSHAKE_FAILED,
        "the server misses an extension in our TLS hello, most often a host name (SNI)",
        "name the upstream by its host name, not by its IP address",
    ),
    "unsupported_extension": (Code.TLS_HANDSHAKE_FAILED, "the server got a TLS extension it did not expect", _UPGRADE),
    "unknown_psk_identity": (
        Code.TLS_HANDSHAKE_FAILED,
        "the server does not know the key of an earlier TLS session",
        "connect again; if that does not help, the server expects pre-shared keys, which are not supported",
    ),
    "bad_certificate_status_response": (
        Code.TLS_HANDSHAKE_FAILED,
        "the OCSP answer that goes with a certificate was not accepted",
        _SERVER_LOG,
    ),
    "no_renegotiation": (Code.TLS_HANDSHAKE_FAILED, "the server does not renegotiate a TLS session", _UPGRADE),
    # About the bytes themselves.
    "decrypt_error": (
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the server could not check a signature of the handshake, most often ours with the client key",
        "check that the key belongs to the certificate; if it does, the server most likely holds a CA of the same name"
        " with another key (an older or newer generation of it): have it trust the CA that issued ours; " + _SERVER_LOG,
    ),
    "unexpected_message": (Code.TLS_HANDSHAKE_FAILED, "the server got a TLS message out of turn", _DAMAGE),
    "bad_record_mac": (Code.TLS_HANDSHAKE_FAILED, "the server got a TLS record that was changed on the way", _DAMAGE),
    "decryption_failed": (Code.TLS_HANDSHAKE_FAILED, "the server could not decrypt a TLS record", _DAMAGE),
    "record_overflow": (Code.TLS_HANDSHAKE_FAILED, "the server got a TLS record that is too long", _DAMAGE),
    "decompression_failure": (Code.TLS_HANDSHAKE_FAILED, "the server could not unpack a TLS record", _DAMAGE),
    "illegal_parameter": (Code.TLS_HANDSHAKE_FAILED, "the server got a TLS message with an illegal value", _UPGRADE),
    "decode_error": (Code.TLS_HANDSHAKE_FAILED, "the server could not read a TLS message of ours", _DAMAGE),
    # About the server itself.
    "internal_error": (
        Code.TLS_HANDSHAKE_FAILED,
        "the server failed for a reason of its own, such as a CA or CRL file that it cannot read",
        _SERVER_LOG,
    ),
    "user_canceled": (Code.TLS_HANDSHAKE_FAILED, "the server gave up the handshake", "connect again; " + _SERVER_LOG),
    "close_notify": (
        Code.TLS_HANDSHAKE_FAILED,
        "the server closed the TLS connection in good order before the session began",
        "the server may be restarting or full: try again; " + _SERVER_LOG,
    ),
}

_REASON: Final = re.compile(r"(?:SSL/TLS|SSLV3|TLSV1[0-3]?)_(?:ALERT_)?(?P<alert>\w+)")

_SPELLINGS: Final = {"user_cancelled": "user_canceled"}  # OpenSSL's, and the RFC's


def meaning_of(reason: str) -> AlertMeaning | None:
    """What the server wants to say with the alert that OpenSSL names `reason`; None where that is not an alert."""
    match = _REASON.fullmatch(reason.upper().replace(" ", "_"))
    if match is None:
        return None
    alert = match["alert"].lower()
    alert = _SPELLINGS.get(alert, alert)
    return AlertMeaning(alert, *_MEANINGS[alert]) if alert in _MEANINGS else None
