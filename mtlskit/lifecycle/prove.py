"""The proof before the switch: a real connection to each endpoint of each tunnel, made with the new pair.

A server that refuses a client certificate says so in the handshake, or under TLS 1.3 after it, when its first message
is waited for. So a Postgres server is asked for a session, up to its first message: a request for authentication, or
an error about who may log in, both come after it has taken the certificate. No password is sent. A Kafka broker is
asked what it speaks, which it tells everybody who has come so far. Any other server is listened to for a moment: it may
say nothing for as long as it likes, but an alert comes at once.

That a server answers proves nothing where it would answer anybody: it may not ask for certificates, or OpenSSL may have
shown none, because the server takes no signatures of that kind of key. So the same is asked without a certificate, and
where the answer is the same too, that is said; where the old pair gets another one, the proof has failed.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import trio
from cryptography.x509.oid import NameOID

from mtlskit.config.values import Endpoint, IdentityConfig, Negotiation, TunnelConfig, TunnelKind
from mtlskit.errors import (
    Code,
    IdentityError,
    MtlskitError,
    UpstreamError,
    UpstreamRefusedUs,
    UpstreamTimeout,
    UpstreamUntrusted,
)
from mtlskit.net.dial import POSTGRES_ALPN, Dialler, Route, Upstream
from mtlskit.net.faults import closed_early, tcp_fault, tls_fault
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.store.identities import Version
from mtlskit.wire.kafka.asking import AnswerReader, api_versions_of, api_versions_request
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

_CORRELATION_ID = 1
"""Of the only request on a connection to a Kafka broker."""


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
    note: str = ""
    """What keeps the answer from being a proof."""

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


async def prove_tunnel(
    tunnel: TunnelConfig, identity: IdentityConfig, *, now: datetime, old: IdentityConfig | None = None
) -> Sequence[Proof]:
    """Try the pair of `identity` at every endpoint of a tunnel, all at once, each within the tunnel's dial time.

    The endpoints are those of `tunnel.upstream`: where Heroku tells them, it has been asked before.

    `old` is the identity with the pair that is in use, to compare with. Raises IdentityError if the new pair cannot
    even be loaded.
    """
    witnesses = _witnesses(tunnel, identity, old, now)
    proofs: dict[Endpoint, Proof] = {}

    async def prove(endpoint: Endpoint) -> None:
        proofs[endpoint] = await _prove_endpoint(tunnel, endpoint, witnesses)

    async with trio.open_nursery() as nursery:
        for endpoint in tunnel.upstream:
            nursery.start_soon(prove, endpoint)
    return [proofs[endpoint] for endpoint in tunnel.upstream]


@dataclass(frozen=True)
class _Witnesses:
    """The new pair, nobody, and the old pair if there is one that can be loaded."""

    new: IdentitySnapshot
    nobody: IdentitySnapshot
    old: IdentitySnapshot | None


def _witnesses(tunnel: TunnelConfig, identity: IdentityConfig, old: IdentityConfig | None, now: datetime) -> _Witnesses:
    direct = tunnel.kind is TunnelKind.POSTGRES and tunnel.negotiation is Negotiation.DIRECT
    load = partial(load_snapshot, verify=tunnel.verify, alpn=(POSTGRES_ALPN,) if direct else (), now=now)
    before = None
    if old is not None:
        with suppress(IdentityError):  # one that has expired is no witness
            before = load(old)
    return _Witnesses(load(identity), load(identity, show=False), before)


@dataclass(frozen=True)
class _Heard:
    """What a server said once it knew, or could have known, the certificate."""

    text: str
    refusal: tuple[str, str] | None = None
    """SQLSTATE and message, where it wants nothing to do with the user; the same twice, the certificate counts for
    nothing."""
    route: Route | None = None
    """By which address it was reached."""


async def _prove_endpoint(tunnel: TunnelConfig, endpoint: Endpoint, witnesses: _Witnesses) -> Proof:
    shaken = trio.Event()
    user = _user_of(witnesses.new)
    try:
        heard = await _ask(tunnel, endpoint, witnesses.new, user, shaken=shaken)
        note = await _doubt(tunnel, endpoint, witnesses, heard, user)
    except UpstreamError as exc:
        return Proof(tunnel.name, str(endpoint), "", exc, shaken.is_set())
    return Proof(tunnel.name, str(endpoint), heard.text, shaken=True, note=note)


async def _doubt(tunnel: TunnelConfig, endpoint: Endpoint, witnesses: _Witnesses, heard: _Heard, user: str) -> str:
    """What keeps the answer from being a proof: a server that says the same to somebody without a certificate.

    Raises UpstreamRefusedUs where the old pair was told something else.
    """
    try:
        stranger = await _ask(tunnel, endpoint, witnesses.nobody, user, route=heard.route)
    except UpstreamError:
        return ""  # without a certificate one gets nowhere
    if stranger.refusal != heard.refusal:
        return ""
    if heard.refusal is None:
        return f"{endpoint} does not insist on a client certificate: that it answers proves nothing about this one"
    if witnesses.old is not None:
        before: _Heard | None = None
        with suppress(UpstreamError):
            before = await _ask(tunnel, endpoint, witnesses.old, user, route=heard.route)
        if before is not None and before.refusal != heard.refusal:
            raise UpstreamRefusedUs(
                Code.TLS_CLIENT_CERTIFICATE_REQUIRED,
                f"{endpoint} answers as it does without a certificate, and not as it does to the old one:"
                f" {heard.refusal[1]} ({heard.refusal[0]})",
                "the server may not take signatures of this kind of key: see key_type, and the server's log",
            )
    return f"{endpoint} refuses the user {user} with this certificate and without one: that proves little"


async def _ask(
    tunnel: TunnelConfig,
    endpoint: Endpoint,
    snapshot: IdentitySnapshot,
    user: str,
    *,
    shaken: trio.Event | None = None,
    route: Route | None = None,
) -> _Heard:
    """Connect, and hear what the server says. `shaken` is set when the handshake is done. Raises UpstreamError.

    `route` is the address to go to: what several addresses say cannot be compared, as servers name their client's.
    """
    dialler = Dialler(
        tunnel.kind, (endpoint,), tunnel.negotiation, tunnel.pins, tunnel.timeouts.dial, source=tunnel.source
    )
    upstream = await (dialler.dial(snapshot) if route is None else dialler.dial_route(route, snapshot))
    if shaken is not None:
        shaken.set()
    try:
        return replace(await _heard(tunnel, upstream, user), route=upstream.route)
    finally:
        upstream.tls.close()


async def _heard(tunnel: TunnelConfig, upstream: Upstream, user: str) -> _Heard:
    """What the server said after the handshake. Raises UpstreamError."""
    where, patience = str(upstream.route), tunnel.timeouts.dial
    try:
        with trio.fail_after(patience):
            answer = await _answer(tunnel.kind, upstream, user)
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
    if answer is None:
        raise closed_early(where, "after the TLS handshake")
    return answer


async def _answer(kind: TunnelKind, upstream: Upstream, user: str) -> _Heard | None:
    """What the server said after the handshake; None if it closed the connection."""
    if kind is TunnelKind.POSTGRES:
        return await _postgres_answer(upstream, user)
    if kind is TunnelKind.KAFKA:
        return await _kafka_answer(upstream)
    taken = _Heard("takes the certificate")
    with trio.move_on_after(_SILENCE):
        return taken if await upstream.tls.receive_some() else None
    return taken


async def _postgres_answer(upstream: Upstream, user: str) -> _Heard | None:
    # A server that refuses us has closed by then, and the alert that says why waits to be read.
    with suppress(OSError):
        await upstream.tls.send_all(
            startup_message({"user": user, "database": user, "application_name": "mtlskit proof"})
        )
    login = ServerLogin(ChannelBinding.KEEP)  # what it offers is not judged here
    while True:
        data = await upstream.tls.receive_some()
        if not data:
            return None
        _, events = login.receive(data)
        for event in events:
            match event:
                case AuthenticationRequested():
                    return _Heard("takes the certificate, and asks for authentication")
                case AuthenticationAccepted():
                    return _Heard(f"takes the certificate, and lets {user} in")
                case MechanismsOffered(before=mechanisms):
                    return _Heard(f"takes the certificate, and asks for {' or '.join(mechanisms)}")
                case LoginFinished(error=error):
                    # The certificate was taken in the handshake: this is about the user that we made up.
                    refusal = ("", "") if error is None else (error.sqlstate, error.message)
                    said = f": {refusal[1]} ({refusal[0]})" if error is not None else ""
                    return _Heard(f"takes the certificate, and refuses the user {user}{said}", refusal)


async def _kafka_answer(upstream: Upstream) -> _Heard | None:
    with suppress(OSError):  # as above
        await upstream.tls.send_all(api_versions_request(_CORRELATION_ID))
    reader = AnswerReader(_CORRELATION_ID)
    while data := await upstream.tls.receive_some():
        if (answer := reader.receive(data)) is not None:
            api_versions_of(answer)
            return _Heard("takes the certificate, and answers as a Kafka broker")
    return None


def _user_of(snapshot: IdentitySnapshot) -> str:
    """The common name, which is the user where the server maps certificates to users; else one that says who asks."""
    names = snapshot.pair.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return name if name.isprintable() and 0 < len(name) <= 63 else "mtlskit"
