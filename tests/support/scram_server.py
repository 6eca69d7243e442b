"""A scripted server that asks for SCRAM, as far as a test wants it to go."""

from __future__ import annotations

from cryptography import x509

from mtlskit.wire.postgres.messages import (
    Message,
    authentication_sasl,
    authentication_sasl_continue,
    authentication_sasl_final,
    error_response,
    parse_sasl_initial_response,
)
from mtlskit.wire.postgres.scram import SCRAM, SCRAM_PLUS, ScramError, ScramKeys, ScramServer, server_end_point
from tests.support.fake_upstream import ServerSide

WRONG_PASSWORD = error_response(sqlstate="28P01", message="password authentication failed")


async def message(server: ServerSide) -> Message:
    kind = await server.read_exactly(1)
    return Message(kind, (await server.read_packet())[4:])


def end_point(certificate: bytes) -> bytes:
    """The channel-binding data of a certificate, PEM."""
    return server_end_point(x509.load_pem_x509_certificate(certificate))


class Scram:
    """The server's side of one SCRAM login, step by step; `mechanism` is what the client chose."""

    def __init__(self, server: ServerSide, password: str, *, binding: bytes | None = None, iterations: int = 1) -> None:
        self.mechanism = ""
        self._server = server
        self._keys = ScramKeys.derive(password, b"0123456789abcdef", iterations)
        self._binding = binding
        self._conversation: ScramServer | None = None

    async def challenge(self) -> None:
        """The offer, the client's choice, and the challenge."""
        offer = [SCRAM] if self._binding is None else [SCRAM_PLUS, SCRAM]
        await self._server.send(authentication_sasl(offer))
        response = parse_sasl_initial_response(await message(self._server))
        self.mechanism = response.mechanism
        plus = response.mechanism == SCRAM_PLUS
        self._conversation = ScramServer(self._keys, plus=plus, binding=self._binding)
        await self._server.send(authentication_sasl_continue(self._conversation.first(response.data or b"")))

    async def answered(self) -> bool:
        """Whether the client's proof is right; if so, ours is sent, and if not, an ErrorResponse."""
        assert self._conversation is not None
        try:
            outcome = self._conversation.final((await message(self._server)).body)
        except ScramError:
            await self._server.send(WRONG_PASSWORD)
            return False
        await self._server.send(authentication_sasl_final(outcome))
        return True

    async def whole(self) -> bool:
        await self.challenge()
        return await self.answered()
