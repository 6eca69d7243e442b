"""What a server says first after the TLS handshake: only then is it known what it makes of our certificate.

A server that refuses a client certificate says so in the handshake, or under TLS 1.3 after it, when its first message
is waited for. So a Postgres server is asked for a session, up to its first message: a request for authentication, or
an error about who may log in, both come after it has taken the certificate. No password is sent. A Kafka broker is
asked what it speaks, which it tells everybody who has come so far. Any other server is listened to for a moment: it may
say nothing for as long as it likes, but an alert comes at once.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass

import trio
from cryptography.x509.oid import NameOID

from mtlskit.config.values import TunnelKind, Verify
from mtlskit.errors import Code, UpstreamTimeout
from mtlskit.net.dial import Route, Upstream
from mtlskit.net.faults import closed_early, tcp_fault, tls_fault
from mtlskit.net.identity import IdentitySnapshot
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

__all__ = ["Heard", "first_answer", "user_of"]

_SILENCE = 1.0
"""Seconds to wait for an alert of a server that need not speak first; it is on its way when the handshake is done."""

_CORRELATION_ID = 1
"""Of the only request on a connection to a Kafka broker."""


@dataclass(frozen=True)
class Heard:
    """What a server said once it knew, or could have known, the certificate."""

    text: str
    refusal: tuple[str, str] | None = None
    """SQLSTATE and message, where it wants nothing to do with the user; the same twice, the certificate counts for
    nothing."""
    route: Route | None = None
    """By which address it was reached."""


async def first_answer(kind: TunnelKind, upstream: Upstream, user: str, *, verify: Verify, patience: float) -> Heard:
    """What the server said after the handshake, within `patience` seconds. Raises UpstreamError."""
    where = str(upstream.route)
    try:
        with trio.fail_after(patience):
            answer = await _answer(kind, upstream, user)
    except trio.TooSlowError as exc:
        raise UpstreamTimeout(
            Code.TLS_TIMEOUT,
            f"{where} said nothing for {patience:.3g} s after the TLS handshake",
            "the server or something before it accepts connections but does not answer: look at its load and its log",
        ) from exc
    except ssl.SSLError as exc:
        raise tls_fault(where, exc, verify) from exc
    except OSError as exc:
        raise tcp_fault(where, exc) from exc
    if answer is None:
        raise closed_early(where, "after the TLS handshake")
    return answer


def user_of(snapshot: IdentitySnapshot) -> str:
    """The common name, which is the user where the server maps certificates to users; else one that says who asks."""
    names = snapshot.pair.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    return name if name.isprintable() and 0 < len(name) <= 63 else "mtlskit"


async def _answer(kind: TunnelKind, upstream: Upstream, user: str) -> Heard | None:
    """What the server said after the handshake; None if it closed the connection."""
    if kind is TunnelKind.POSTGRES:
        return await _postgres_answer(upstream, user)
    if kind is TunnelKind.KAFKA:
        return await _kafka_answer(upstream)
    taken = Heard("takes the certificate")
    with trio.move_on_after(_SILENCE):
        return taken if await upstream.tls.receive_some() else None
    return taken


async def _postgres_answer(upstream: Upstream, user: str) -> Heard | None:
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
                    return Heard("takes the certificate, and asks for authentication")
                case AuthenticationAccepted():
                    return Heard(f"takes the certificate, and lets {user} in")
                case MechanismsOffered(before=mechanisms):
                    return Heard(f"takes the certificate, and asks for {' or '.join(mechanisms)}")
                case LoginFinished(error=error):
                    # The certificate was taken in the handshake: this is about the user that we made up.
                    refusal = ("", "") if error is None else (error.sqlstate, error.message)
                    said = f": {refusal[1]} ({refusal[0]})" if error is not None else ""
                    return Heard(f"takes the certificate, and refuses the user {user}{said}", refusal)


async def _kafka_answer(upstream: Upstream) -> Heard | None:
    with suppress(OSError):  # as above
        await upstream.tls.send_all(api_versions_request(_CORRELATION_ID))
    reader = AnswerReader(_CORRELATION_ID)
    while data := await upstream.tls.receive_some():
        if (answer := reader.receive(data)) is not None:
            api_versions_of(answer)
            return Heard("takes the certificate, and answers as a Kafka broker")
    return None
