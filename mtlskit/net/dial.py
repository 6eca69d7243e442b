"""Dialling an upstream: DNS, TCP (happy eyeballs), the question for TLS, the handshake, the pins; all under deadlines.

Endpoints are tried in the order in which they are written, as libpq does, and each has its share of the time that is
left, so that a black hole at the front does not eat the time of those behind it. When all have failed, the error of
the one that came furthest is raised, and its sentence names them all.
"""

from __future__ import annotations

import errno
import ssl
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import trio
from cryptography import x509

from mtlskit.config.values import Endpoint, Negotiation, TunnelKind, VerifyMode
from mtlskit.errors import (
    Code,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from mtlskit.net.connect import connect_tcp, family_of
from mtlskit.net.faults import (
    HANDSHAKE,
    answer_fault,
    closed_early,
    dns_fault,
    pin_fault,
    tcp_fault,
    tcp_silence,
    tls_fault,
    tls_silence,
)
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.names import Names
from mtlskit.net.presented import presented
from mtlskit.net.sockets import tune
from mtlskit.net.tls import TlsConnection, TlsEngine
from mtlskit.pki.certificates import spki_sha256
from mtlskit.wire.greetings import LONGEST_GREETING
from mtlskit.wire.postgres.messages import SSL_REQUEST

__all__ = ["POSTGRES_ALPN", "Dialler", "Route", "Upstream", "ask_for_tls", "is_address"]

POSTGRES_ALPN = "postgresql"
"""The ALPN name that direct TLS demands (PostgreSQL documentation, protocol flow, "SSL Session Encryption")."""


@dataclass(frozen=True)
class Route:
    """The very address that a connection reached, and the endpoint it stands for; a cancel travels it again."""

    endpoint: Endpoint
    address: str
    port: int

    def __str__(self) -> str:
        if self.address == self.endpoint.host:
            return str(self.endpoint)
        return f"{self.endpoint} ({self.address})"


@dataclass(frozen=True)
class Upstream:
    """A connection that has finished its TLS handshake, and the identity that it was made with."""

    tls: TlsConnection
    route: Route
    identity: IdentitySnapshot
    skipped: tuple[tuple[Endpoint, UpstreamError], ...] = ()
    """The endpoints that were tried before this one, and why each did not take us."""


@dataclass(frozen=True)
class Dialler:
    """How a tunnel reaches its upstream. `pins` are SHA-256 digests of SubjectPublicKeyInfo.

    `source` is the local IP address that every connection starts from; None: the system chooses.
    """

    kind: TunnelKind
    endpoints: tuple[Endpoint, ...]
    negotiation: Negotiation
    pins: tuple[bytes, ...]
    timeout: float
    names: Names = field(default_factory=Names, repr=False, compare=False)
    """What the endpoints' names have led to a moment ago."""
    source: str | None = None

    async def dial(self, identity: IdentitySnapshot) -> Upstream:
        """Connect to the first endpoint that takes us. Raises UpstreamError within `timeout` seconds."""
        deadline = trio.current_time() + self.timeout
        skipped: list[tuple[Endpoint, UpstreamError]] = []
        for index, endpoint in enumerate(self.endpoints):
            share = (deadline - trio.current_time()) / (len(self.endpoints) - index)
            try:
                upstream = await self._within(share, endpoint, identity, Route(endpoint, endpoint.host, endpoint.port))
            except UpstreamError as exc:
                skipped.append((endpoint, exc))
            else:
                return replace(upstream, skipped=tuple(skipped))
        raise _worst([exc for _, exc in skipped])

    async def dial_route(self, route: Route, identity: IdentitySnapshot) -> Upstream:
        """Connect to one address again, for a cancel. Raises UpstreamError within `timeout` seconds."""
        return await self._within(self.timeout, route.endpoint, identity, route)

    async def resolve(self) -> set[Route]:
        """Every address that the endpoints have now. Raises UpstreamError if none of them resolves."""
        routes: set[Route] = set()
        failure: UpstreamError | None = None
        family = trio.socket.AF_UNSPEC if self.source is None else family_of(self.source)
        for endpoint in self.endpoints:
            try:
                with trio.fail_after(self.timeout):
                    found = await trio.socket.getaddrinfo(
                        endpoint.host, endpoint.port, family=family, type=trio.socket.SOCK_STREAM
                    )
            except OSError as exc:
                failure = dns_fault(endpoint.host, exc)
            except trio.TooSlowError:
                failure = dns_fault(endpoint.host, TimeoutError("the resolver does not answer"))
            else:
                routes |= {Route(endpoint, *address[:2]) for *_, address in found}
        if not routes and failure is not None:
            raise failure
        return routes

    async def _within(self, seconds: float, endpoint: Endpoint, identity: IdentitySnapshot, target: Route) -> Upstream:
        progress = _Progress(endpoint)
        with trio.move_on_after(max(seconds, 0.001)):
            return await self._connect(endpoint, identity, target, progress)
        raise progress.too_slow(seconds)

    async def _connect(
        self, endpoint: Endpoint, identity: IdentitySnapshot, target: Route, progress: _Progress
    ) -> Upstream:
        sock = await connect_tcp(target.address, target.port, endpoint, self.names, progress.resolved, self.source)
        try:
            route = _route_of(sock, endpoint)
            progress.where = str(route)
            tune(sock)
            if self.kind is TunnelKind.POSTGRES and self.negotiation is Negotiation.SSLREQUEST:
                progress.stage = "answer the SSLRequest"
                await ask_for_tls(sock, str(route))
            progress.stage = HANDSHAKE
            tls = await self._handshake(sock, endpoint, identity, str(route))
        except BaseException:
            sock.close()
            raise
        return Upstream(tls, route, identity)

    async def _handshake(
        self, sock: trio.socket.SocketType, endpoint: Endpoint, identity: IdentitySnapshot, where: str
    ) -> TlsConnection:
        verify = identity.verify
        name = verify.name if verify.mode is VerifyMode.NAME else endpoint.host
        if verify.mode is VerifyMode.CA and is_address(endpoint.host):
            name = None  # SNI carries names only (RFC 6066 section 3), and no name is checked
        tls = TlsConnection(sock, TlsEngine(identity.context, server_hostname=name))
        try:
            await tls.handshake()
        except (ssl.SSLEOFError, ConnectionResetError) as exc:
            raise self._cut_off(where) from exc
        except ssl.SSLError as exc:
            leaf = presented(tls.engine.presented_certificate())
            raise tls_fault(where, exc, verify, trust=identity.trust, leaf=leaf) from exc
        except OSError as exc:
            raise tcp_fault(where, exc) from exc
        self._check_pins(tls.engine, where)
        if self._direct and tls.engine.alpn != POSTGRES_ALPN:
            raise UpstreamProtocolError(
                Code.TLS_ALPN,
                f"{where} did not agree to ALPN `{POSTGRES_ALPN}`",
                'direct TLS needs PostgreSQL 17 or later; use negotiation = "sslrequest"',
            )
        return tls

    @property
    def _direct(self) -> bool:
        return self.kind is TunnelKind.POSTGRES and self.negotiation is Negotiation.DIRECT

    def _cut_off(self, where: str) -> UpstreamError:
        error = closed_early(where, "during the TLS handshake")
        if self._direct:
            # What PostgreSQL 16 and older do: to them a ClientHello is a start-up packet of an impossible length.
            return type(error)(
                error.code, error.sentence, 'direct TLS needs PostgreSQL 17 or later; use negotiation = "sslrequest"'
            )
        return error

    def _check_pins(self, engine: TlsEngine, where: str) -> None:
        if not self.pins:
            return
        leaf = engine.peer_certificate()
        try:
            found = b"" if leaf is None else spki_sha256(x509.load_der_x509_certificate(leaf))
        except ValueError:  # OpenSSL is content with more than cryptography is; what cannot be read matches nothing
            found = b""
        if found not in self.pins:
            raise pin_fault(where, found, len(self.pins))


class _Progress:
    """How far an attempt came, for the sentence when its time is up."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.where = str(endpoint)
        self.stage = ""
        self._host = endpoint.host
        self._resolved = is_address(endpoint.host)

    def resolved(self) -> None:
        """The name has led to addresses."""
        self._resolved = True

    def too_slow(self, seconds: float) -> UpstreamError:
        if not self._resolved:
            return dns_fault(self._host, TimeoutError(f"the resolver did not answer within {seconds:.3g} s"))
        if not self.stage:
            return tcp_silence(self.where, seconds)
        return tls_silence(self.where, self.stage, seconds)


def _route_of(sock: trio.socket.SocketType, endpoint: Endpoint) -> Route:
    try:
        return Route(endpoint, *sock.getpeername()[:2])
    except OSError as exc:
        # A connection that was reset as soon as it stood has no peer any more: ENOTCONN, or EINVAL on macOS.
        raise tcp_fault(str(endpoint), ConnectionResetError(errno.ECONNRESET, "reset at once")) from exc


async def ask_for_tls(sock: trio.socket.SocketType, where: str) -> None:
    """SSLRequest, and nothing but an `S` as its answer (PostgreSQL documentation, protocol flow). Raises
    UpstreamError."""
    try:
        sent = 0
        while sent < len(SSL_REQUEST):
            sent += await sock.send(SSL_REQUEST[sent:])
        answer = await sock.recv(LONGEST_GREETING)
    except OSError as exc:
        raise tcp_fault(where, exc) from exc
    if answer != b"S":
        raise answer_fault(where, answer)


def is_address(host: str) -> bool:
    """Whether this is an IP address and no name."""
    with suppress(ValueError):
        ip_address(host)
        return True
    return False


def _worst(failures: list[UpstreamError]) -> UpstreamError:
    """The failure that came furthest: a refused certificate tells more than a closed port."""
    best = max(failures, key=lambda failure: not isinstance(failure, UpstreamUnreachable | UpstreamTimeout))
    if len(failures) == 1:
        return best
    others = "; ".join(failure.sentence for failure in failures if failure is not best)
    error = type(best)(best.code, f"{best.sentence} (also tried: {others})", best.hint)
    error.__cause__ = best
    return error
