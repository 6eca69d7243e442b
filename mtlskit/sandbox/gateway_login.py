"""The gateway's part in a login: it offers SCRAM-SHA-256-PLUS, and keeps the promise.

The server behind the gateway has no TLS, so it offers SCRAM-SHA-256 only. A real TLS server would offer PLUS as well,
and what clients then do is the point of the exercise, so the gateway adds it. Three things can follow:

- The client selects SCRAM-SHA-256 with the gs2 flag `n` (it cannot bind: its own leg is plain): the conversation
  passes through untouched.
- It selects SCRAM-SHA-256 with the flag `y` (it could bind and saw no offer): the offer was removed on the way. The
  login ends, as it does on a real server.
- It selects PLUS: the gateway is the server of that conversation, bound to its own certificate, and the client of
  another one, SCRAM-SHA-256 with the server behind. The client hears that it is right only after both ended well.

For a user whose password the gateway does not know the offer stays as it is: it could not keep the promise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Final

import trio

from mtlskit.errors import Code, UpstreamLost, UpstreamProtocolError
from mtlskit.sandbox.tls import READ_SIZE
from mtlskit.wire.postgres.login import ChannelBinding, MechanismsOffered, ServerLogin, VersionNegotiated
from mtlskit.wire.postgres.messages import (
    Message,
    SaslInitialResponse,
    authentication_sasl_continue,
    authentication_sasl_final,
    frame,
    parse_sasl_initial_response,
    parse_sasl_response,
    take_client_message,
)
from mtlskit.wire.postgres.scram import (
    SCRAM,
    SCRAM_PLUS,
    ScramClient,
    ScramError,
    ScramKeys,
    ScramServer,
    check_client_first,
)

__all__ = ["ClientGoneError", "Login", "LoginRefusedError", "scram_failure"]

_MAX_SERVER_MESSAGE: Final = 30_000
"""Bytes of a message in the SCRAM conversation with the server: libpq's bound for an ErrorResponse."""
_SASL_CONTINUE: Final = 11
_SASL_FINAL: Final = 12


class ClientGoneError(Exception):
    """The client went away in the middle of its login. psql does, to ask its user for a password."""


class LoginRefusedError(Exception):
    """The server behind has refused the login; `packet` is what it said."""

    def __init__(self, packet: bytes) -> None:
        super().__init__("the server refused the login")
        self.packet = packet


class Login:
    """One login. `run` it, then `forward` with `rewrite` as the server's filter."""

    def __init__(
        self,
        client: trio.abc.Stream,
        server: trio.abc.Stream,
        *,
        user: str,
        passwords: Mapping[str, str],
        binding: bytes,
        received: bytes = b"",
    ) -> None:
        self._client = client
        self._server = server
        self._user = user
        self._password = passwords.get(user)
        self._binding = binding
        self._login = ServerLogin(ChannelBinding.KEEP if self._password is None else ChannelBinding.ADD)
        self._from_client = bytearray(received)
        self._from_server = bytearray()

    @property
    def rewrite(self) -> Callable[[bytes], bytes]:
        """What the server's further bytes must pass: the login's codec may hold the beginning of a message."""
        return lambda data: self._login.receive(data)[0]

    async def run(self) -> bool:
        """Goes on until everything else may be forwarded as it is. Returns whether channel binding was verified.

        Raises ScramError, LoginRefusedError, ClientGoneError, ClientProtocolError, UpstreamLost,
        UpstreamProtocolError, and trio.BrokenResourceError for either connection.
        """
        bound = False
        offer = await self._until_decided()
        if offer is not None and SCRAM_PLUS in offer.after and SCRAM_PLUS not in offer.before:
            bound = await self._answer_to_offer()
        await self._server.send_all(bytes(self._from_client))  # of a client that does not wait
        return bound

    async def _until_decided(self) -> MechanismsOffered | None:
        """Forwards what the server says until it offers SASL (returned) or does anything else about the login."""
        while True:
            data = await self._server.receive_some(READ_SIZE)
            if not data:
                raise _lost()
            out, events = self._login.receive(bytes(data))
            await self._client.send_all(out)
            for event in events:
                if isinstance(event, MechanismsOffered):
                    return event
                if not isinstance(event, VersionNegotiated):  # which comes before the request for authentication
                    return None

    async def _answer_to_offer(self) -> bool:
        chosen = await self._client_message()
        response = parse_sasl_initial_response(chosen)
        if response.mechanism == SCRAM_PLUS:
            await self._terminate(response)
            return True
        if response.mechanism == SCRAM:
            check_client_first(response.data or b"", plus=False, offered=True)
        await self._server.send_all(frame(chosen.kind, chosen.body))
        return False

    async def _terminate(self, response: SaslInitialResponse) -> None:
        """Holds both conversations, and tells the client its outcome when both are done."""
        assert self._password is not None  # noqa: S101 - PLUS is offered only where the password is known
        keys = await trio.to_thread.run_sync(ScramKeys.derive, self._password)
        conversation = ScramServer(keys, plus=True, binding=self._binding)
        challenge = conversation.first(response.data or b"")
        await self._client.send_all(authentication_sasl_continue(challenge))
        outcome = conversation.final(parse_sasl_response(await self._client_message()))
        await self._authenticate_to_server(self._password)
        rest = self.rewrite(bytes(self._from_server))  # AuthenticationOk, and what followed it in the same read
        await self._client.send_all(authentication_sasl_final(outcome) + rest)

    async def _authenticate_to_server(self, password: str) -> None:
        conversation = ScramClient(password)
        first = conversation.first()
        body = SCRAM.encode() + b"\0" + struct.pack("!i", len(first)) + first
        await self._server.send_all(frame(b"p", body))
        final = conversation.final(await self._server_challenge(_SASL_CONTINUE))
        await self._server.send_all(frame(b"p", final))
        conversation.verify(await self._server_challenge(_SASL_FINAL))

    async def _server_challenge(self, code: int) -> bytes:
        """The data of the server's next authentication message, which must be of the kind `code`."""
        message = await self._server_message()
        if message.kind == b"E":
            raise LoginRefusedError(frame(message.kind, message.body))
        if message.kind != b"R" or message.body[:4] != struct.pack("!I", code):
            raise UpstreamProtocolError(
                Code.PG_SERVER_RUBBISH, f"the server sent {message.kind!r} in the middle of a SCRAM conversation"
            )
        return message.body[4:]

    async def _server_message(self) -> Message:
        buffer = self._from_server
        while True:
            length = struct.unpack_from("!I", buffer, 1)[0] if len(buffer) >= 5 else 4
            if not 4 <= length <= _MAX_SERVER_MESSAGE:
                raise UpstreamProtocolError(
                    Code.PG_SERVER_RUBBISH, f"the server sent a message of {length} bytes in a SCRAM conversation"
                )
            if 5 <= len(buffer) > length:
                message = Message(bytes(buffer[:1]), bytes(buffer[5 : length + 1]))
                del buffer[: length + 1]
                return message
            data = await self._server.receive_some(READ_SIZE)
            if not data:
                raise _lost()
            buffer += data

    async def _client_message(self) -> Message:
        while (message := take_client_message(self._from_client)) is None:
            data = await self._client.receive_some(READ_SIZE)
            if not data:
                raise ClientGoneError
            self._from_client += data
        return message


def _lost() -> UpstreamLost:
    return UpstreamLost(Code.UPSTREAM_CLOSED, "the server behind the gateway closed the connection during the login")


def scram_failure(error: ScramError, user: str) -> str:
    """The message of an ErrorResponse for a failed conversation, in PostgreSQL's own words."""
    return f'{error.message} for user "{user}"' if error.sqlstate == "28P01" else error.message
