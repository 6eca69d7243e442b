"""Where foreign exceptions of the upstream side become ours: `OSError` and `ssl.SSLError` in, `UpstreamError` out.

`where` names the peer in the sentence: the host and port as configured, and the address that was tried.
"""

from __future__ import annotations

import errno
import re
import shlex
import socket
import ssl
from base64 import b64encode
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
    UpstreamProtocolError,
    UpstreamRefusedUs,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from mtlskit.net.presented import Presented
from mtlskit.wire.alerts import meaning_of
from mtlskit.wire.greetings import recognised, shown

__all__ = [
    "HANDSHAKE",
    "OTHER_NAME",
    "answer_fault",
    "closed_early",
    "dns_fault",
    "pin_fault",
    "source_fault",
    "tcp_fault",
    "tcp_silence",
    "tls_fault",
    "tls_silence",
]

_ALLOWLIST_HINT = "check that this host's external IP is on the allowlist of the server, and that it is up"

_ROUTE_HINT = "check the route and the firewall of this host"

_RESOLVER_HINT = "look at /etc/resolv.conf, and whether the servers named there can be reached"

_UNREACHABLE = {
    errno.ENETUNREACH: ("this host has no route to it (Network is unreachable)", "check VPN and routes: `ip route`"),
    errno.EHOSTUNREACH: (
        "a router, or this host itself, says that nothing can be delivered there (No route to host)",
        "the host is down or a firewall rejects us: check its address, and VPN and routes of this host",
    ),
    errno.EADDRNOTAVAIL: (
        "this host has no address to start from (Cannot assign requested address)",
        "check its addresses (`ip address`); or all its ports to that server are in use (`ss -s`)",
    ),
    errno.EAFNOSUPPORT: (
        "this host does not have that family of addresses (Address family not supported)",
        "use a name or an address of the other family",
    ),
    errno.EACCES: (
        "this host forbids it (Permission denied)",
        "look at its firewall, and for `prohibit` in `ip route`",
    ),
    errno.EPERM: (
        "this host forbids it (Operation not permitted)",
        "look at its firewall's rules for outgoing connections (`nft list ruleset`, `iptables -L OUTPUT`)",
    ),
}
"""What connect(2) and icmp(7) say, and what to look at."""

_OURS = {
    number: (f"{name} has no file descriptor left ({said})", "raise the limit (`ulimit -n`), or look what holds them")
    for number, name, said in (
        (errno.EMFILE, "this process", "Too many open files"),
        (errno.ENFILE, "this host", "Too many open files in system"),
    )
}
"""Not the network's fault."""

_NO_ADDRESS = frozenset(getattr(socket, name) for name in ("EAI_NODATA", "EAI_ADDRFAMILY") if hasattr(socket, name))
_NO_ANSWER = frozenset({socket.EAI_AGAIN, socket.EAI_FAIL})
"""Numbers of getaddrinfo(3). EAI_NONAME, the name that does not exist, has words of its own that say so."""

HANDSHAKE = "finish the TLS handshake"
"""The stage in which packets become large for the first time."""

# Codes of X509_verify_cert that concern the leaf itself (openssl-verification-options(1)).
_EXPIRED = frozenset({9, 10})
OTHER_NAME = frozenset({62, 63, 64})
"""Codes of X509_verify_cert for a certificate that stands for another name, address or mailbox."""
_TOO_WEAK = frozenset({66, 67, 68})
_NOT_FOR_SERVERS = 26

_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"})
_NO_COMMON_GROUND = frozenset({"UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})


def dns_fault(host: str, exc: OSError) -> UpstreamError:
    """A name that does not resolve, or a resolver that does not answer."""
    reason = exc.strerror or str(exc)
    look_up = f"`getent hosts {shlex.quote(host)}`"  # a cluster of Kafka's may have chosen the name
    hint = f"check the spelling and the resolver: {look_up}"
    if isinstance(exc, socket.gaierror) and exc.errno in _NO_ADDRESS:
        reason = f"the name exists and has no address ({reason})"
        hint = f"an A or AAAA record is missing, or it is not the full name of a host: {look_up}"
    elif isinstance(exc, socket.gaierror) and exc.errno in _NO_ANSWER:
        reason = f"no resolver gives an answer ({reason})"
        hint = f"{_RESOLVER_HINT}: {look_up}"
    elif isinstance(exc, TimeoutError):  # the reason says so already
        hint = f"{_RESOLVER_HINT}: {look_up}"
    elif exc.errno in _OURS:
        reason, hint = _OURS[exc.errno]
    return UpstreamUnreachable(Code.DNS_FAILED, f"{host} cannot be resolved: {reason}", hint)


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
        return UpstreamLost(
            Code.TCP_RESET,
            f"{where} reset the connection",
            f"{_ALLOWLIST_HINT}; a load balancer without a server behind it does so, too",
        )
    reason, hint = (
        _OURS.get(exc.errno or 0) or _UNREACHABLE.get(exc.errno or 0) or (str(exc.strerror or exc), _ROUTE_HINT)
    )
    return UpstreamUnreachable(Code.TCP_UNREACHABLE, f"{where} cannot be reached: {reason}", hint)


def source_fault(where: str, source: str, exc: OSError) -> UpstreamError:
    """The system does not let a connection start from the address `source`."""
    return UpstreamUnreachable(
        Code.TCP_UNREACHABLE,
        f"no connection to {where} can start from {source}: {exc.strerror or exc}",
        "`source` must be an address of this host: `ip address` lists them",
    )


def tcp_silence(where: str, seconds: float) -> UpstreamError:
    """No answer of any kind to the first packet."""
    return UpstreamTimeout(
        Code.TCP_TIMEOUT,
        f"{where} did not accept a TCP connection within {seconds:.3g} s",
        "silence usually means a firewall or an IP allowlist: check that this host's external IP is on it",
    )


def tls_silence(where: str, stage: str, seconds: float) -> UpstreamError:
    """Connected, and then nothing. `stage` completes "did not …"."""
    hint = (
        "connections are accepted and not answered: look whether this host's external IP is on the allowlist"
        " (mtlskit my-ip, mtlskit allowlist list), then at the server's load and log"
    )
    if stage == HANDSHAKE:
        hint += "; a VPN or tunnel between that loses large packets (MTU) shows only now: `tracepath` tells its size"
    return UpstreamTimeout(Code.TLS_TIMEOUT, f"{where} did not {stage} within {seconds:.3g} s", hint)


def answer_fault(where: str, answer: bytes) -> UpstreamError:
    """An answer to the SSLRequest that is not `S` alone (PostgreSQL documentation, protocol flow)."""
    if not answer:
        return closed_early(where, "after the SSLRequest")
    stranger = recognised(answer)
    if answer[:1] == b"S" and stranger is None:
        # CVE-2021-23222: what was put there before the encryption must not be read as if it came through it.
        return UpstreamProtocolError(
            Code.TLS_BYTES_AFTER_ANSWER,
            f"{where} sent bytes between its answer to the SSLRequest and the TLS handshake",
            "something between here and the server is injecting data; do not send a password through it",
        )
    if answer[:1] == b"N":
        return UpstreamRefusedUs(
            Code.TLS_NOT_OFFERED,
            f"{where} does not offer TLS",
            "mtlskit never falls back to plain text: switch TLS on at the server (ssl = on), or check the port",
        )
    if answer[:1] == b"E":
        # Its text is not shown: whoever sits between could have written it (CVE-2024-10977).
        return UpstreamRefusedUs(
            Code.TLS_UNKNOWN_ANSWER,
            f"{where} answered the SSLRequest with an error",
            "the server may be out of processes or very old: look at its log",
        )
    return UpstreamProtocolError(
        Code.TLS_UNKNOWN_ANSWER,
        f"{where} does not speak the Postgres protocol: "
        + (f"it is {stranger}; " if stranger else "")
        + f"it answered the SSLRequest with {shown(answer)}",
        "check the host and the port",
    )


def closed_early(where: str, when: str) -> UpstreamError:
    """The connection ended without a word. `when` completes "closed the connection …"."""
    return UpstreamLost(
        Code.UPSTREAM_CLOSED,
        f"{where} closed the connection {when} without saying why",
        "a server may do so when it refuses the client certificate or this host's IP, and a port of Kafka's that is"
        " plain does so too: look at all three, and at its log",
    )


def no_answer(where: str, question: str, seconds: float) -> UpstreamError:
    """The connection stands, and `question` ("a Metadata request") was met by silence."""
    return UpstreamTimeout(
        Code.TCP_TIMEOUT,
        f"{where} did not answer {question} within {seconds:.3g} s",
        "the connection stands and nothing comes back: look at the server's load and log, and whether a firewall or"
        " a VPN between lets large packets pass (MTU)",
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


def pin_fault(where: str, found: bytes, pins: int) -> UpstreamError:
    """A server whose key is none of the pinned ones. `found` is its digest, `pins` how many there are."""
    wanted = "not the pinned one" if pins == 1 else f"none of the {pins} pinned ones"
    return UpstreamUntrusted(
        Code.TLS_PIN_MISMATCH,
        f"{where} presents the key sha256/{b64encode(found).decode('ascii')}, which is {wanted}",
        "if the server's key was replaced on purpose, add the new pin beside the old one",
    )


def _verification_fault(
    where: str, exc: ssl.SSLCertVerificationError, verify: Verify, trust: str, leaf: Presented | None
) -> UpstreamError:
    said = exc.verify_message.rstrip(".")
    if exc.verify_code in OTHER_NAME:
        return _name_fault(where, verify, leaf)
    if exc.verify_code in _EXPIRED:
        return _date_fault(where, said, leaf, datetime.now(UTC))
    if exc.verify_code in _TOO_WEAK:
        return UpstreamUntrusted(
            Code.TLS_SERVER_WEAK,
            f"{where} presents a chain that is too weak: {said}"
            + (f"; its certificate is {leaf.subject}, issued by {leaf.issuer}" if leaf else ""),
            "the server needs a certificate with an RSA key of 2048 bits or more, or an EC key, signed with SHA-256",
        )
    if exc.verify_code == _NOT_FOR_SERVERS:
        return UpstreamUntrusted(
            Code.TLS_CHAIN_NOT_TRUSTED,
            f"{where} presents a certificate that is not for servers: {said}"
            + (f"; it is {leaf.subject}, issued by {leaf.issuer}" if leaf else ""),
            "the server needs a certificate whose extended key usage has serverAuth, issued by a CA certificate",
        )
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
    if leaf is not None and leaf.names == leaf.subject:
        return UpstreamUntrusted(
            Code.TLS_NAME_MISMATCH,
            f"{where} presents a certificate without a subjectAltName, so it is for no name; its subject is"
            f" {leaf.subject}",
            f"have it issued with {expected} as a subjectAltName; until then --verify ca, where only its CA counts",
        )
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
