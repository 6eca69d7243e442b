"""Where foreign exceptions of the upstream side become ours: `OSError` and `ssl.SSLError` in, `UpstreamError` out.

`where` names the peer in the sentence: the host and port as configured, and the address that was tried.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from mtlskit.config.addresses import parse_host
from mtlskit.config.values import Verify, VerifyMode
from mtlskit.errors import (
    Code,
    ConfigError,
    UpstreamError,
    UpstreamLost,
    UpstreamRefusedUs,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from mtlskit.net.presented import Presented
from mtlskit.wire.alerts import meaning_of

__all__ = ["closed_early", "dns_fault", "tcp_fault", "tls_fault"]

_ALLOWLIST_HINT = "check that this host's external IP is on the allowlist of the server, and that it is up"

# Codes of X509_verify_cert that concern the leaf itself (openssl-verification-options(1)).
_EXPIRED = frozenset({9, 10})
_OTHER_NAME = frozenset({62, 63, 64})

_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
_NO_COMMON_GROUND = frozenset({"UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})


def dns_fault(host: str, exc: OSError) -> UpstreamError:
    """A name that does not resolve."""
    reason = exc.strerror or str(exc)
    return UpstreamUnreachable(
        Code.DNS_FAILED,
        f"{host} cannot be resolved: {reason}",
        f"check the spelling and the resolver: `getent hosts {host}`",
    )


def tcp_fault(where: str, exc: OSError) -> UpstreamError:
    """No TCP connection, or one that broke."""
    if isinstance(exc, socket.gaierror):
        return dns_fault(where, exc)
    if exc.errno == errno.ECONNREFUSED:
        return UpstreamUnreachable(
            Code.TCP_REFUSED, f"{where} refused the connection", "nothing listens there: check the host and the port"
        )
    if exc.errno == errno.ETIMEDOUT:
        return UpstreamTimeout(Code.TCP_TIMEOUT, f"{where} did not answer", _ALLOWLIST_HINT)
    if exc.errno in (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED):
        return UpstreamLost(Code.TCP_RESET, f"{where} reset the connection", _ALLOWLIST_HINT)
    return UpstreamUnreachable(
        Code.TCP_UNREACHABLE,
        f"{where} cannot be reached: {exc.strerror or exc}",
        "check the route and the firewall of this host",
    )


def closed_early(where: str, when: str) -> UpstreamError:
    """The connection ended without a word. `when` completes "closed the connection …"."""
    return UpstreamLost(
        Code.UPSTREAM_CLOSED,
        f"{where} closed the connection {when} without saying why",
        "a server may do so when it refuses the client certificate or this host's IP, and a port of Kafka's that is"
        " plain does so too: look at all three, and at its log",
    )


def tls_fault(
    where: str, exc: ssl.SSLError, verify: Verify, *, trust: str = "", leaf: Presented | None = None
) -> UpstreamError:
    """A handshake that failed, or an alert that came after it.

    `trust`: what the server's chain was compared with; `leaf`: what the server presented.
    """
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _verification_fault(where, exc, verify, trust, leaf)
    if isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return closed_early(where, "during the TLS handshake")
    reason = exc.reason or ""
    meaning = meaning_of(reason)
    if meaning is not None:
        return UpstreamRefusedUs(meaning.code, f"{where} refused the handshake: {meaning.sentence_part}", meaning.hint)
    if reason in _NOT_TLS:
        return UpstreamRefusedUs(
            Code.TLS_HANDSHAKE_FAILED,
            f"{where} does not speak TLS there",
            "check the port: for Kafka it is that of a listener with TLS (SSL or SASL_SSL), for Postgres see whether"
            " `negotiation` fits the server (direct TLS needs PostgreSQL 17)",
        )
    if reason in _NO_COMMON_GROUND:
        return UpstreamRefusedUs(
            Code.TLS_VERSION,
            f"{where} speaks no TLS version that we accept (1.2 and 1.3)",
            "update the server's TLS settings (ssl_min_protocol_version in PostgreSQL, ssl.enabled.protocols in Kafka)",
        )
    return UpstreamRefusedUs(
        Code.TLS_HANDSHAKE_FAILED,
        f"{where}: the TLS handshake failed: {reason or exc}",
        "the server's log usually names the other half of the reason",
    )


def _verification_fault(
    where: str, exc: ssl.SSLCertVerificationError, verify: Verify, trust: str, leaf: Presented | None
) -> UpstreamError:
    said = exc.verify_message.rstrip(".")
    if exc.verify_code in _OTHER_NAME:
        return _name_fault(where, verify, leaf)
    if exc.verify_code in _EXPIRED:
        return _date_fault(where, said, leaf, datetime.now(UTC))
    return UpstreamUntrusted(
        Code.TLS_CHAIN_NOT_TRUSTED,
        f"{where} presents a chain that we do not trust: {said}"
        + (f"; its certificate is {leaf.subject}, issued by {leaf.issuer}" if leaf else "")
        + (f"; compared with {trust}" if trust else ""),
        "name the server's own CA with `ca` (--ca); for Heroku it is the PREFIXroot.crt of the downloaded bundle, for"
        " its Kafka what KAFKA_TRUSTED_CERT holds",
    )


def _date_fault(where: str, said: str, leaf: Presented | None, now: datetime) -> UpstreamError:
    """A server whose certificate begins in the future is rare; a clock that is behind is not."""
    dates, hint = "", "check this host's clock with `date -u`; if it is right, the server's certificate must be renewed"
    if leaf is not None and leaf.begins is not None and leaf.ends is not None:
        dates = (
            f"; its certificate is valid from {leaf.begins:%Y-%m-%d %H:%M} to {leaf.ends:%Y-%m-%d %H:%M} UTC,"
            f" and this host's clock says {now:%Y-%m-%d %H:%M}"
        )
        if now < leaf.begins:
            behind = leaf.begins - now
            hint = f"this host's clock seems to be behind, by {_told(behind)} at least: set it (`date -u` shows it)"
    return UpstreamUntrusted(
        Code.TLS_SERVER_EXPIRED, f"{where} presents a chain that is outside its dates: {said}{dates}", hint
    )


def _told(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    for unit, size in (("day", 1440), ("hour", 60)):
        if minutes >= size:
            count = minutes // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{minutes} minutes"


def _name_fault(where: str, verify: Verify, leaf: Presented | None) -> UpstreamError:
    # OpenSSL's own words are left out: they repeat the name that was expected.
    expected = verify.name if verify.mode is VerifyMode.NAME else _host_of(where)
    name = _usable_name(leaf) or "THE-NAME-IN-ITS-CERTIFICATE"
    return UpstreamUntrusted(
        Code.TLS_NAME_MISMATCH,
        f"{where} presents a certificate for another name than {expected}"
        + (f"; its certificate is for {leaf.names}" if leaf else ""),
        f'if this is the right server: --verify name:{name} (in a file: verify = "name:{name}"), or --verify ca where '
        "only its CA counts",
    )


def _host_of(where: str) -> str:
    """The host of "HOST:PORT" or "HOST:PORT (ADDRESS)"."""
    return where.partition(" ")[0].rpartition(":")[0].strip("[]")


def _usable_name(leaf: Presented | None) -> str | None:
    """The first name of the certificate that `verify` takes, a DNS name before an address; None where none is known.

    A stranger chose them, and they go into a command that is copied: only what is a host name or an address passes.
    """
    if leaf is None or leaf.names == leaf.subject:  # no names, but the subject in their stead
        return None
    found: list[str] = []
    for text in re.split(r", | and \d+ more$", leaf.names):
        with suppress(ConfigError):
            found.append(parse_host(text, hint=""))
    return min(found, key=_is_address, default=None)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
