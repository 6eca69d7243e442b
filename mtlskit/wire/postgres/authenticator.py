"""A login that we make ourselves: the server's authentication requests in, our answers out (PostgreSQL docs, protocol
flow, "Start-up" and "SASL Authentication").

Theory of operation
-------------------
`Authenticator` stands before `ServerLogin` and takes what a server says until it says AuthenticationOk or an
ErrorResponse; nothing of that reaches the client, which is never asked for a password. What it makes of a read is a
list of steps for whoever does the I/O: `Send` these bytes, or `Derive` the keys from the password with this salt and
then call `prove`, whose bytes are to be sent. From AuthenticationOk on the server's bytes are the client's (`passed`),
with the notices and NegotiateProtocolVersion that came before it in front of them, in their order.

SCRAM-SHA-256 only. A server that wants the password in clear text gets nothing, as anybody who could make us send it
would have it for good, and neither does one that wants MD5, whose stored hash is as good as the password. Where the
server offers SCRAM-SHA-256-PLUS and its certificate can be bound to, it is taken: whoever sits between with a
certificate of his own is found out by it.

A server that has begun SCRAM must end it: AuthenticationOk without a signature that proves that it knows the password
(RFC 5802 section 3) is refused. One that asks for nothing (`trust` or `cert` in its pg_hba.conf) has been sent nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

from mtlskit.errors import Code, UpstreamProtocolError, UpstreamRefusedUs, UpstreamUntrusted
from mtlskit.wire.postgres.messages import frame, message_text, startup_message
from mtlskit.wire.postgres.scram import SCRAM, SCRAM_PLUS, ScramError, ScramExchange, ScramKeys
from mtlskit.wire.postgres.startup import StartupReceived

__all__ = ["Authenticator", "Derive", "Send", "Step", "startup_as"]


@dataclass(frozen=True)
class Send:
    """To the server."""

    data: bytes


@dataclass(frozen=True)
class Derive:
    """The keys are wanted, made of the password with these: call `prove` with them."""

    salt: bytes
    iterations: int


Step: TypeAlias = Send | Derive

_MAX_MESSAGE: Final = 30_000
"""The length of any message here, at most: libpq takes longer ones for a loss of synchronisation."""
_MAX_AUTHENTICATION: Final = 4_200
"""The length of an authentication request: SCRAM's bound of 4,096 bytes for its messages, and what is around them."""
_MAX_BEFORE: Final = 64 * 1024
"""Bytes of notices and the like before AuthenticationOk, at most. A server has hardly anything to say by then."""
_SHOWN: Final = 200
"""Characters of an offer that reach the log and the client."""

_OK, _SASL, _CONTINUE, _FINAL = 0, 10, 11, 12

_METHODS: Final = {
    2: "Kerberos V5",
    3: "the password in clear text",
    5: "the password as an MD5 hash",
    6: "SCM credentials",
    7: "GSSAPI",
    9: "SSPI",
}


def startup_as(opening: StartupReceived, *, user: str, database: str) -> tuple[str, bytes]:
    """The database that the session is for, and the client's StartupMessage with another user.

    libpq fills in a database that was not named with the user's own name, so that name counts as none, and `database`
    takes its place; any other name is the client's choice. All other parameters stay as they are. Raises ValueError
    where `user` or `database` cannot be sent.
    """
    named = opening.parameters.get("database", "")
    chosen = database if named in ("", opening.parameters.get("user", "")) else named
    parameters = opening.parameters | {"user": user, "database": chosen}
    return chosen, startup_message(parameters, opening.version)


class Authenticator:
    """One login. Give it every read to `receive` until `finished`; then the server's bytes are nobody's but the
    client's.

    `binding` is the `tls-server-end-point` data of the server's certificate, None where it has none.
    """

    def __init__(self, *, binding: bytes | None, nonce: str | None = None) -> None:
        self.finished = False
        """AuthenticationOk or an ErrorResponse has been seen, and is in `passed`."""
        self.passed = b""
        """What the client is to see of the last read."""
        self._binding = binding
        self._nonce = nonce
        self._buffer = bytearray()
        self._before = bytearray()
        self._exchange: ScramExchange | None = None
        self._expected = _SASL
        """What may come next beside AuthenticationOk, which may come at once or at the very end."""

    def receive(self, data: bytes) -> list[Step]:
        """Take what a read returned; returns what is to be done now, in order.

        Raises UpstreamProtocolError, UpstreamRefusedUs for a method that is not ours, and UpstreamUntrusted for a
        server that does not know the password.
        """
        self.passed = b""
        self._buffer += data
        steps: list[Step] = []
        while not self.finished and (step := self._next()) is not None:
            steps += step
        if self.finished:
            self.passed = bytes(self._before + self._buffer)
            self._before.clear()
            self._buffer.clear()
        return steps

    def prove(self, keys: ScramKeys) -> bytes:
        """The answer to a `Derive`: what to send."""
        assert self._exchange is not None  # noqa: S101 - `Derive` comes of an exchange
        self._expected = _FINAL
        return frame(b"p", self._exchange.prove(keys))

    def _next(self) -> list[Step] | None:
        """The steps of the first whole message; None where more bytes are needed."""
        if len(self._buffer) < 5:
            return None
        kind = bytes(self._buffer[:1])
        if kind == b"E":
            self.finished = True  # its length is judged by whoever reads it
            return []
        (length,) = struct.unpack_from("!I", self._buffer, 1)
        if kind not in (b"R", b"N", b"v"):
            raise _rubbish(f"the server sent {message_text(kind)} before it has let us in")
        if not (8 if kind == b"R" else 4) <= length <= (_MAX_AUTHENTICATION if kind == b"R" else _MAX_MESSAGE):
            raise _rubbish(f"the server sent {message_text(kind)} with an impossible length of {length} bytes")
        if len(self._buffer) <= length:
            return None
        if kind == b"R":
            return self._authentication(length)
        self._before += self._buffer[: length + 1]
        del self._buffer[: length + 1]
        if len(self._before) > _MAX_BEFORE:
            raise _rubbish(f"the server sent more than {_MAX_BEFORE} bytes before it has let us in")
        return []

    def _authentication(self, length: int) -> list[Step]:
        (code,) = struct.unpack_from("!I", self._buffer, 5)
        if code == _OK:
            if self._expected not in (_SASL, _OK):
                raise _unproven("the server let us in before it has proven that it knows the password")
            self.finished = True
            return []
        body = bytes(self._buffer[9 : length + 1])
        del self._buffer[: length + 1]
        if code in _METHODS or (code == _SASL and self._expected != _SASL):
            raise _refused(_METHODS.get(code, "a second login"))
        if code != self._expected:
            raise _rubbish(f"the server sent authentication request {code} out of turn")
        try:
            return _READERS[code](self, body)
        except ScramError as exc:
            if code == _FINAL:
                raise _unproven(exc.message) from exc
            detail = f": {exc.detail}" if exc.detail else ""
            raise _rubbish(f"the server sent a {exc.message}{detail.rstrip('.')}") from exc

    def _offer(self, body: bytes) -> list[Step]:
        names = body.split(b"\0")
        plus, plain = SCRAM_PLUS.encode() in names, SCRAM.encode() in names
        if plus and self._binding is not None:
            mechanism, self._exchange = SCRAM_PLUS, ScramExchange(binding=self._binding, nonce=self._nonce)
        elif plain:
            # As libpq: whoever has removed PLUS from the offer on the way is found out by this flag.
            able = self._binding is not None
            mechanism, self._exchange = SCRAM, ScramExchange(able=able, nonce=self._nonce)
        else:
            # As Python writes bytes: nothing in it can act on a terminal.
            shown = ", ".join(repr(name)[2:-1] for name in names if name)
            raise _refused(shown[:_SHOWN] or "no mechanism")
        first = self._exchange.first()
        self._expected = _CONTINUE
        return [Send(frame(b"p", mechanism.encode() + b"\0" + struct.pack("!i", len(first)) + first))]

    def _challenge(self, body: bytes) -> list[Step]:
        assert self._exchange is not None  # noqa: S101 - an offer comes first, which `_expected` sees to
        challenge = self._exchange.challenge(body)
        self._expected = -1  # nothing, until we have proven ourselves
        return [Derive(challenge.salt, challenge.iterations)]

    def _outcome(self, body: bytes) -> list[Step]:
        assert self._exchange is not None  # noqa: S101 - as above
        self._exchange.verify(body)
        self._expected = _OK
        return []


_READERS: Final = {_SASL: Authenticator._offer, _CONTINUE: Authenticator._challenge, _FINAL: Authenticator._outcome}


def _refused(wanted: str) -> UpstreamRefusedUs:
    return UpstreamRefusedUs(
        Code.PG_LOGIN_METHOD,
        f"the server asks for {wanted}, and mtlskit logs in with SCRAM-SHA-256 only",
        "an old password may be stored as an MD5 hash: rotate the credential (`heroku pg:credentials:rotate`), or set"
        ' login = "client"',
    )


def _unproven(sentence: str) -> UpstreamUntrusted:
    return UpstreamUntrusted(
        Code.PG_SERVER_UNPROVEN,
        sentence,
        "something answers in the place of the database: check the upstream, `verify` and `ca` of the tunnel",
    )


def _rubbish(sentence: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        Code.PG_SERVER_RUBBISH, sentence, "check that the upstream's host and port are those of a PostgreSQL server"
    )
