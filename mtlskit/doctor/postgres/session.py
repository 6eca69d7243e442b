"""One session with a Postgres server, as a client would have it, for the look inside.

Theory of operation
-------------------
`Session.open` dials as the tunnel would, with its identity. `enter` sends the StartupMessage and answers what the
server asks for, until it is ready for queries, refuses, or asks for what we do not have; all of that is an `Entry`, and
only a connection that breaks, or a server that breaks the protocol, is an error. Then `ask` sends one query at a time.
`close` ends the session as the protocol wants it, unless it is broken.

Where the clients log in themselves, we answer as libpq would: SCRAM, MD5, or the password in clear text. The older two
give the server what it can use elsewhere, so they are answered only where the caller says that the password certainly
belongs to it (`older`); the dial has verified the server. Where the proxy logs in (`login = "heroku"`), we answer as it
would: SCRAM alone. `Authenticator` does SCRAM for both, and binds to the server's certificate where it can.

Each dial, login and query has `patience` seconds.
"""

from __future__ import annotations

import ssl
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio
from cryptography import x509

from mtlskit.config.values import Endpoint, Login
from mtlskit.doctor.case import Case, Credentials
from mtlskit.errors import Code, IdentityError, UpstreamTimeout, UpstreamUntrusted
from mtlskit.net.dial import Dialler, Upstream
from mtlskit.net.faults import closed_early, tcp_fault, tls_fault
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.pki.certificates import MAX_CERTIFICATES, decode_certificate
from mtlskit.proxy.behalf import binding_of
from mtlskit.proxy.password_keys import PasswordKeys
from mtlskit.wire.postgres.authenticator import Authenticator, Derive, Send
from mtlskit.wire.postgres.messages import ErrorFields, Message, frame, parse_error_fields, startup_message
from mtlskit.wire.postgres.passwords import clear_text_answer, md5_answer
from mtlskit.wire.postgres.query import TERMINATE, Answer, AnswerReader, MessageReader, parameter_of, query
from mtlskit.wire.postgres.scram import SCRAM, SCRAM_PLUS

__all__ = ["CLEAR_TEXT", "MD5", "Entry", "Session"]

CLEAR_TEXT: Final = "the password in clear text"
MD5: Final = "an MD5 hash of the password"

_OK, _CLEAR_TEXT, _MD5, _SASL, _FINAL = 0, 3, 5, 10, 12
_METHODS: Final = {2: "Kerberos V5", 3: CLEAR_TEXT, 5: MD5, 6: "SCM credentials", 7: "GSSAPI", 9: "SSPI"}
_MOST_PARAMETERS: Final = 100
"""ParameterStatus messages that are kept; PostgreSQL 18 sends fifteen."""
_GOODBYE: Final = 1.0
"""Seconds for the Terminate message: a courtesy."""


@dataclass
class Entry:
    """How a login went, as far as it went."""

    asked: tuple[str, ...] = ()
    """What the server wants: names of SASL mechanisms, or one of `_METHODS`. Empty: nothing."""
    used: str = ""
    """What was answered with."""
    accepted: bool = False
    """AuthenticationOk."""
    proven: bool = False
    """SCRAM came to its end: both sides know the password."""
    ready: bool = False
    lacking: bool = False
    """The server asks for what we do not have: a password, or a method."""
    withheld: bool = False
    """It asks for the password in a way that this one is not trusted to; `lacking` is set as well."""
    refusal: ErrorFields | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    """ParameterStatus: ``server_version`` and others."""


class Session:
    """One connection. Every method raises UpstreamError for a connection that breaks."""

    def __init__(self, upstream: Upstream, patience: float) -> None:
        self.where = str(upstream.route)
        self._upstream = upstream
        self._patience = patience
        self._reader = MessageReader()
        self._authenticator = Authenticator(binding=binding_of(upstream.tls.engine.peer_certificate()))
        self.entry = Entry()
        """How the login went so far; of use when `enter` has raised, too."""

    @classmethod
    async def open(cls, case: Case, endpoint: Endpoint, snapshot: IdentitySnapshot) -> Session:
        """Dial the endpoint as the tunnel would."""
        tunnel, patience = case.tunnel, case.means.step
        dialler = Dialler(tunnel.kind, (endpoint,), tunnel.negotiation, tunnel.pins, patience, source=tunnel.source)
        return cls(await dialler.dial(snapshot), patience)

    async def close(self, *, politely: bool = True) -> None:
        """End it. Never raises but for a cancellation."""
        try:
            if politely:
                with trio.move_on_after(min(_GOODBYE, self._patience)), suppress(OSError):
                    await self._upstream.tls.send_all(TERMINATE)
        finally:
            self._upstream.tls.close()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What the server has presented in this very session, leaf first: behind one name there may be several.

        Raises IdentityError for a leaf that cannot be read.
        """
        engine = self._upstream.tls.engine
        leaf, presented = engine.peer_certificate(), engine.presented_chain()
        if leaf is None:
            return ()
        chain = [decode_certificate(leaf, where="", source=self.where)]
        for encoded in presented[1:MAX_CERTIFICATES]:
            with suppress(IdentityError):
                chain.append(decode_certificate(encoded, where="", source=self.where))
        return tuple(chain)

    async def enter(self, credentials: Credentials, login: Login, *, older: bool = False) -> Entry:
        """Log in; `older`: by MD5 and in clear text, too, where that is asked for.

        Raises UpstreamError, of which UpstreamUntrusted says that the server could not prove itself.
        """
        try:
            with trio.fail_after(self._patience):
                await self._enter(self.entry, credentials, login, older)
        except trio.TooSlowError as exc:
            raise UpstreamTimeout(
                Code.PG_LOGIN_TIMEOUT,
                f"{self.where} did not finish the login within {self._patience:g} s",
                "look at the server's load and log; `timeouts.login` of the tunnel sets how long clients wait",
            ) from exc
        return self.entry

    async def ask(self, statement: str) -> Answer:
        """One simple query. An error of the server's is in the answer; one that ends the session is too."""
        try:
            with trio.fail_after(self._patience):
                return await self._ask(statement)
        except trio.TooSlowError as exc:
            raise UpstreamTimeout(
                Code.PG_QUERY_FAILED,
                f"{self.where} did not answer a simple query within {self._patience:g} s",
                "look at the server's load, its locks and its log",
            ) from exc

    async def _ask(self, statement: str) -> Answer:
        self._reader.begin()
        await self._send(query(statement))
        reader = AnswerReader()
        while True:
            message = await self._next(may_end=reader.error is not None)
            if message is None:
                return Answer((), reader.error)
            if message.kind == b"S":
                continue
            if (answer := reader.receive(message)) is not None:
                return answer

    async def _enter(self, entry: Entry, credentials: Credentials, login: Login, older: bool) -> None:
        self._reader.begin()
        parameters = {
            "user": credentials.user,
            "database": credentials.database,
            "application_name": "mtlskit-doctor",
            "client_encoding": "UTF8",
        }
        await self._send(startup_message(parameters))
        keys = PasswordKeys(credentials.password or "")
        methods = frozenset({_CLEAR_TEXT, _MD5}) if login is Login.CLIENT else frozenset()
        while not (entry.ready or entry.lacking or entry.refusal):
            message = await self._next()
            assert message is not None  # noqa: S101 - `_next` raises at the end
            if message.kind == b"R":
                await self._authenticate(entry, message.body, credentials, keys, methods, older)
            elif message.kind == b"E":
                entry.refusal = parse_error_fields(message.body)
            elif message.kind == b"S" and len(entry.parameters) < _MOST_PARAMETERS:
                name, value = parameter_of(message.body)
                entry.parameters[name] = value
            elif message.kind == b"Z":
                if not entry.accepted:
                    raise _unproven("the server is ready for queries before it has let us in")
                entry.ready = True

    async def _authenticate(
        self,
        entry: Entry,
        body: bytes,
        credentials: Credentials,
        keys: PasswordKeys,
        methods: frozenset[int],
        older: bool,
    ) -> None:
        """`methods` are those besides SCRAM that clients of the tunnel have; `older`: they may be used."""
        code = struct.unpack_from("!I", body)[0] if len(body) >= 4 else -1
        if code == _SASL:
            entry.asked = _mechanisms(body[4:])
        elif code in _METHODS:
            entry.asked = (_METHODS[code],)
        if (code in _METHODS or code == _SASL) and not credentials.password:
            entry.lacking = True
        elif code in methods and not entry.used and not older:
            entry.lacking = entry.withheld = True
        elif code in methods and not entry.used:
            entry.used = _METHODS[code]
            user, password = credentials.user, credentials.password or ""
            answer = clear_text_answer(password) if code == _CLEAR_TEXT else md5_answer(user, password, body[4:8])
            await self._send(answer)
        elif code == _OK and entry.used in (CLEAR_TEXT, MD5):
            entry.accepted = True
        elif (code in _METHODS and not entry.used) or (code == _SASL and not {SCRAM, SCRAM_PLUS} & set(entry.asked)):
            entry.lacking = True
        else:
            await self._continue_scram(entry, body, keys)
            entry.proven = entry.proven or code == _FINAL

    async def _continue_scram(self, entry: Entry, body: bytes, keys: PasswordKeys) -> None:
        for step in self._authenticator.receive(frame(b"R", body)):
            match step:
                case Send(data):
                    entry.used = data[5:].partition(b"\0")[0].decode("ascii")
                    await self._send(data)
                case Derive(salt, iterations):
                    await self._send(self._authenticator.prove(await keys.derive(salt, iterations)))
        entry.accepted = self._authenticator.finished

    async def _next(self, *, may_end: bool = False) -> Message | None:
        """The next message; None at the end, if it `may_end`. Raises UpstreamError."""
        while (message := self._reader.next()) is None:
            data = await self._receive()
            if not data:
                if may_end:
                    return None
                raise closed_early(
                    self.where, "in the middle of the session" if self.entry.ready else "during the login"
                )
            self._reader.feed(data)
        return message

    async def _receive(self) -> bytes:
        try:
            return await self._upstream.tls.receive_some()
        except ssl.SSLError as exc:
            raise tls_fault(self.where, exc, self._upstream.identity.verify) from exc
        except OSError as exc:
            raise tcp_fault(self.where, exc) from exc

    async def _send(self, data: bytes) -> None:
        # A server that has gone away may have said why: that is read next, and told.
        with suppress(OSError):
            await self._upstream.tls.send_all(data)


def _mechanisms(body: bytes) -> tuple[str, ...]:
    return tuple(name.decode("ascii", "backslashreplace") for name in body.split(b"\0") if name)


def _unproven(sentence: str) -> UpstreamUntrusted:
    return UpstreamUntrusted(
        Code.PG_SERVER_UNPROVEN,
        sentence,
        "something answers in the place of the database: check the upstream, `verify` and `ca` of the tunnel",
    )
