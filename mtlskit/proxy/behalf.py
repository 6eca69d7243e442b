"""Logging in for a client, with an add-on's credential: the I/O around `Authenticator`.

The door has let the client in by then, by its address and its user; here nobody is asked anything. What the client
said of user and password counts for nothing, so all that is known of it is what the door knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from mtlskit.net.tls import TlsConnection
from mtlskit.proxy.addon import KnownLogin
from mtlskit.wire.postgres.authenticator import Authenticator, Derive, startup_as
from mtlskit.wire.postgres.login import LoginEvent, LoginFinished
from mtlskit.wire.postgres.scram import server_end_point
from mtlskit.wire.postgres.startup import StartupReceived

__all__ = ["Behalf", "binding_of", "is_about_credential"]

_CREDENTIAL_REFUSED: Final = frozenset({"28P01", "28000"})
"""invalid_password and invalid_authorization_specification: a credential that has been rotated, or taken back."""


class Behalf:
    """One login with what was known when it began."""

    def __init__(self, known: KnownLogin, opening: StartupReceived) -> None:
        self.known = known
        self.user = known.credential.user
        self.database, self.packet = startup_as(opening, user=self.user, database=known.credential.database)
        self._authenticator: Authenticator | None = None

    @property
    def finished(self) -> bool:
        """We are in, or were refused; what the server says is the client's."""
        return self._authenticator is not None and self._authenticator.finished

    async def receive(self, data: bytes, tls: TlsConnection) -> bytes:
        """Answer what a read returned; gives what of it is the client's. Raises UpstreamError."""
        if self._authenticator is None:
            self._authenticator = Authenticator(binding=binding_of(tls.engine.peer_certificate()))
        for step in self._authenticator.receive(data):
            if isinstance(step, Derive):
                keys = await self.known.keys.derive(step.salt, step.iterations)
                answer = self._authenticator.prove(keys)
            else:
                answer = step.data
            # A server that has gone away may have said why: that is read next, and told.
            with suppress(OSError):
                await tls.send_all(answer)
        return self._authenticator.passed


def binding_of(leaf: bytes | None) -> bytes | None:
    """The channel-binding data of the server's certificate; None where its signature has no hash (Ed25519)."""
    if leaf is None:
        return None
    try:
        certificate = x509.load_der_x509_certificate(leaf)
        return None if certificate.signature_hash_algorithm is None else server_end_point(certificate)
    except (ValueError, UnsupportedAlgorithm):  # OpenSSL is content with more than cryptography is
        return None


def is_about_credential(events: Sequence[LoginEvent]) -> bool:
    """Whether the server has refused the credential, and not for instance the database."""
    return any(
        isinstance(event, LoginFinished) and event.error is not None and event.error.sqlstate in _CREDENTIAL_REFUSED
        for event in events
    )
