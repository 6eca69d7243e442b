"""The proof before the switch: a real connection to each endpoint of each tunnel, made with the new pair.

A server that refuses a client certificate says so in the handshake, or under TLS 1.3 after it, when its first message
is waited for. So a Postgres server is asked for a session, up to its first message: a request for authentication, or
an error about who may log in, both come after it has taken the certificate. No password is sent. Any other server is
listened to for a moment: it may say nothing for as long as it likes, but an alert comes at once.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import trio
from cryptography.x509.oid import NameOID

from mtlskit.config.values import Endpoint, IdentityConfig, Negotiation, TunnelConfig, TunnelKind
from mtlskit.errors import Code, MtlskitError, UpstreamError, UpstreamRefusedUs, UpstreamTimeout, UpstreamUntrusted
from mtlskit.net.dial import POSTGRES_ALPN, Dialler, Upstream
from mtlskit.net.faults import closed_early, tcp_fault, tls_fault
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.store.identities import Version
from mtlskit.wire.postgres.login import (
    AuthenticationAccepted,
    AuthenticationRequested,
    ChannelBinding,
    LoginFinished,
    MechanismsOffered,
    ServerLogin,
)
from mtlskit.wire.postgres.messages import startup_message

__all__ = ["Proof", "files_of", "prove_tunnel"]

_SILENCE = 1.0
"""Seconds to wait for an alert of a server that need not speak first; it is on its way when the handshake is done."""


@dataclass(frozen=True)
class Proof:
    """What one endpoint made of a pair."""

    tunnel: str
    endpoint: str
    answer: str
    """What it said, for people; empty where it could not be asked."""
    error: MtlskitError | None = None
    shaken: bool = False
    """The TLS handshake was done."""

    @property
    def refused(self) -> bool:
        """It has said no to the certificate, or is not who it should be; not merely out of reach.

        Who ends the connection after the handshake is taken to refuse: an alert that says so may be lost on its way.
        """
        if self.shaken:
            return self.error is not None and not isinstance(self.error, UpstreamTimeout)
        return isinstance(self.error, UpstreamRefusedUs | UpstreamUntrusted)


def files_of(identity: IdentityConfig, version: Version) -> IdentityConfig:
    """The identity with the files of one version in place of those of `current`."""
    current = identity.cert.parent
    ca = identity.ca
    if ca is not None and ca.parent == current:
        ca = version.folder / ca.name
    return replace(identity, cert=version.cert, key=version.key, ca=ca)


async def prove_tunnel(tunnel: TunnelConfig, identity: IdentityConfig, *, now: datetime) -> Sequence[Proof]:
    """Try the pair of `identity` at every endpoint of a tunnel, all at once, each within the tunnel's dial time.

    Raises IdentityError if the pair cannot even be loaded.
    """
    direct = tunnel.kind is TunnelKind.POSTGRES and tunnel.negotiation is Negotiation.DIRECT
    alpn = (POSTGRES_ALPN,) if direct else ()
    snapshot = load_snapshot(identity, verify=tunnel.verify, alpn=alpn, now=now)
    proofs: dict[Endpoint, Proof] = {}

    async def prove(endpoint: Endpoint) -> None:
        proofs[endpoint] = await _prove_endpoint(tunnel, endpoint, snapshot)

    async with trio.open_nursery() as nursery:
        for endpoint in tunnel.upstream:
            nursery.start_soon(prove, endpoint)
    return [proofs[endpoint] for endpoint in tunnel.upstream]


async def _prove_endpoint(tunnel: TunnelConfig, endpoint: Endpoint, snapshot: IdentitySnapshot) -> Proof:
    patience = tunnel.timeouts.dial
    dialler = Dialler(tunnel.kind, (endpoint,), tunnel.negotiation, tunnel.pins, patience)
    shaken = False
    try:
        upstream = await dialler.dial(snapshot)
        shaken = True
        try:
            answer = await _heard(tunnel, upstream, snapshot)
        finally:
            upstream.tls.close()
    except UpstreamError as exc:
        return Proof(tunnel.name, str(endpoint), "", exc, shaken)
    return Proof(tunnel.name, str(endpoint), answer, shaken=shaken)


async def _heard(tunnel: TunnelConfig, upstream: Upstream, snapshot: IdentitySnapshot) -> str:
    """What the server said after the handshake. Raises UpstreamError."""
    where, patience = str(upstream.route), tunnel.timeouts.dial
    try:
        with trio.fail_after(patience):
            answer = await _answer(tunnel.kind, upstream, snapshot)
    except trio.TooSlowError as exc:
        raise UpstreamTimeout(
            Code.TLS_TIMEOUT,
            f"{where} said nothing for {patience:.3g} s after the TLS handshake",
            "the server or something before it accepts connections but does not answer: look at its load and its log",
        ) from exc
    except ssl.SSLError as exc:
        raise tls_fault(where, exc, tunnel.verify) from exc
    except OSError as exc:
        raise tcp_fault(where, exc) from exc
    if not answer:
        raise closed_early(where, "after the TLS handshake")
    return answer


async def _answer(kind: TunnelKind, upstream: Upstream, snapshot: IdentitySnapshot) -> str:
    """What the server said after the handshake; empty if it closed the connection."""
    if kind is TunnelKind.POSTGRES:
        return await _postgres_answer(upstream, _user_of(snapshot))
    with trio.move_on_after(_SILENCE):
        return "takes the certificate" if await upstream.tls.receive_some() else ""
    return "takes the certificate"


async def _postgres_answer(upstream: Upstream, user: str) -> str:
    # A server that refuses us has closed by then, and the alert that says why waits to be read.
    with suppress(OSError):
        await upstream.tls.send_all(
            startup_message({"user": user, "database": user, "application_name": "mtlskit proof"})
        )
    login = ServerLogin(ChannelBinding.KEEP)  # what it offers is not judged here
    while True:
        data = await upstream.tls.receive_some()
        if not data:
            return ""
        _, events = login.receive(data)
        for event in events:
            match event:
                case AuthenticationRequested():
                    return "takes the certificate, and asks for authentication"
                case AuthenticationAccepted():
                    return f"takes the certificate, and lets {user} in"
                case MechanismsOffered(before=mechanisms):
                    return f"takes the certificate, and asks for {' or '.join(mechanisms)}"
                case LoginFinished(error=error):
                    # The certificate was taken in the handshake: this is about the user that we made up.
                    said = f": {error.message} ({error.sqlstate})" if error is not None else ""
                    return f"takes the certificate, and refuses the user {user}{said}"


def _user_of(snapshot: IdentitySnapshot) -> str:
    """The common name, which is the user where the server maps certificates to users; else one that says who asks."""
    names = snapshot.pair.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return name if name.isprintable() and 0 < len(name) <= 63 else "mtlskit"
