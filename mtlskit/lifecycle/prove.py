"""The proof before the switch: a real connection to each endpoint of each tunnel, made with the new pair.

What a server makes of a certificate shows in its first answer (`mtlskit.net.first_answer`).

That a server answers proves nothing where it would answer anybody: it may not ask for certificates, or OpenSSL may have
shown none, because the server takes no signatures of that kind of key. So the same is asked without a certificate, and
where the answer is the same too, that is said; where the old pair gets another one, the proof has failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import trio

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
from mtlskit.net.dial import POSTGRES_ALPN, Dialler, Route
from mtlskit.net.first_answer import Heard, first_answer, user_of
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.store.identities import Version

__all__ = ["Proof", "files_of", "prove_tunnel"]


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


async def _prove_endpoint(tunnel: TunnelConfig, endpoint: Endpoint, witnesses: _Witnesses) -> Proof:
    shaken = trio.Event()
    user = user_of(witnesses.new)
    try:
        heard = await _ask(tunnel, endpoint, witnesses.new, user, shaken=shaken)
        note = await _doubt(tunnel, endpoint, witnesses, heard, user)
    except UpstreamError as exc:
        return Proof(tunnel.name, str(endpoint), "", exc, shaken.is_set())
    return Proof(tunnel.name, str(endpoint), heard.text, shaken=True, note=note)


async def _doubt(tunnel: TunnelConfig, endpoint: Endpoint, witnesses: _Witnesses, heard: Heard, user: str) -> str:
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
        before: Heard | None = None
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
) -> Heard:
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
        heard = await first_answer(tunnel.kind, upstream, user, verify=tunnel.verify, patience=tunnel.timeouts.dial)
        return replace(heard, route=upstream.route)
    finally:
        upstream.tls.close()
