"""A plain client at a tunnel's door: how far does it get, and what was it told?

It goes as far as proves the whole way and no further. Postgres: SSLRequest, which a proxy answers with N, then a
StartupMessage until the server wants a password, lets it in, or says no in its own words (PostgreSQL docs, "Message
Flow"). Kafka: ApiVersions, which the broker answers before any login (KIP-35). TCP: a connection that stays.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import trio

from mtlskit.config.values import ListenAddress, TcpAddress, TunnelKind, UnixAddress
from mtlskit.errors import Code, MtlskitError
from mtlskit.wire.kafka.asking import AnswerReader, api_versions_of, api_versions_request
from mtlskit.wire.postgres.messages import SSL_REQUEST, ErrorFields, frame, parse_error_fields, startup_message

__all__ = ["Knock", "Outcome", "is_http", "knock", "reachable", "where"]

_CODE: Final = re.compile(r"\[(MTLS-[A-Z]+-[0-9]{3})\]")
_MOST_MESSAGE: Final = 64 * 1024
"""Bytes of one answer. An ErrorResponse of ours stays below 30,000, and PostgreSQL's authentication below 64 KiB."""
_MOST_NOTICES: Final = 16
"""NoticeResponse and NegotiateProtocolVersion that may come before."""
_A_WHILE: Final = 0.5
"""Seconds for which a connection of kind tcp must last."""
_TERMINATE: Final = frame(b"X", b"")
_ANYWHERE: Final[Mapping[str, str]] = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}


@dataclass(frozen=True)
class Outcome:
    """How one client fared. At most one of the words below is set besides `seen`."""

    seen: str
    passed: bool = False
    refusal: ErrorFields | None = None
    """A proxy's own ErrorResponse; `code` is what it names."""
    code: Code | None = None
    connected: bool = True
    errno: int | None = None
    """Of the connection that could not be made."""
    tls: bool = False
    """It offers TLS, as no proxy of ours does."""
    odd: bytes = b""
    """What came instead of an answer, the first bytes of it."""
    ended: bool = False
    """It closed the connection without a word."""


def where(address: ListenAddress) -> ListenAddress:
    """Where a client on this host finds it."""
    if isinstance(address, TcpAddress):
        return TcpAddress(_ANYWHERE.get(address.host, address.host), address.port)
    return address


async def reachable(address: ListenAddress, seconds: float) -> Outcome | None:
    """None: somebody takes connections there. Otherwise why not."""
    with trio.move_on_after(seconds):
        try:
            await (await _open(address)).aclose()
        except (OSError, ValueError) as exc:
            return _no_connection(address, exc)
        return None
    return Outcome(f"{address} takes no connection within {seconds:g} s", connected=False)


async def knock(kind: TunnelKind, address: ListenAddress, user: str, seconds: float) -> Outcome:
    """Be a client for `seconds` at most. Never raises."""
    with trio.move_on_after(seconds):
        try:
            stream = await _open(address)
        except (OSError, ValueError) as exc:
            return _no_connection(address, exc)
        async with stream:
            client = Knock(stream)
            try:
                return await client.go(kind, user)
            except (trio.BrokenResourceError, EOFError):
                return Outcome(f"{address} ends the connection without a word", ended=not client.odd, odd=client.odd)
            except MtlskitError as exc:
                return Outcome(exc.sentence, odd=client.odd or b"?")
            except ValueError:
                return Outcome(f"{address} answers with what is none", odd=client.odd or b"?")
    return Outcome(f"{address} does not answer within {seconds:g} s")


async def is_http(address: ListenAddress, seconds: float) -> bool:
    """Whether a web server answers there."""
    with trio.move_on_after(seconds):
        try:
            async with await _open(address) as stream:
                await stream.send_all(b"HEAD / HTTP/1.0\r\n\r\n")
                return (await stream.receive_some(16)).startswith(b"HTTP/")
        except (OSError, ValueError, trio.BrokenResourceError):
            return False
    return False


async def _open(address: ListenAddress) -> trio.SocketStream:
    if isinstance(address, UnixAddress):
        return await trio.open_unix_socket(str(address.path))
    return await trio.open_tcp_stream(address.host, address.port)


def _no_connection(address: ListenAddress, exc: Exception) -> Outcome:
    """`open_tcp_stream` tells of its only attempt by its cause, in a group of one or on its own."""
    causes = [exc.__cause__, *getattr(exc.__cause__, "exceptions", ())]
    found = next((each for each in (exc, *causes) if isinstance(each, OSError) and each.errno is not None), None)
    reason = (found.strerror if found is not None else None) or str(exc)
    return Outcome(
        f"{address} takes no connection: {reason}", connected=False, errno=None if found is None else found.errno
    )


class Knock:
    """The conversation of one client."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    @property
    def odd(self) -> bytes:
        """What has come and was not understood, the beginning of it."""
        return bytes(self._buffer[:16])

    async def go(self, kind: TunnelKind, user: str) -> Outcome:
        """As far as the kind needs. Raises EOFError, BrokenResourceError, MtlskitError, ValueError."""
        if kind is TunnelKind.POSTGRES:
            return await self._postgres(user)
        if kind is TunnelKind.KAFKA:
            return await self._kafka()
        return await self._tcp()

    async def _postgres(self, user: str) -> Outcome:
        await self._stream.send_all(SSL_REQUEST)
        answer = await self._exactly(1)
        if answer == b"S" and not self._buffer:  # one byte, and nothing before our ClientHello
            return Outcome("it offers TLS of its own", tls=True)
        if answer == b"E":  # a front door refuses before it has read anything
            self._buffer[:0] = answer
            return self._refused(await self._message())
        if answer != b"N":
            return Outcome("it answers what no Postgres does", odd=answer + self.odd)
        await self._stream.send_all(startup_message({"user": user, "application_name": "mtlskit doctor"}))
        for _ in range(_MOST_NOTICES):
            message = await self._message()
            if message[0] == b"R":
                await self._stream.send_all(_TERMINATE)
                return Outcome(_welcome(message[1]), passed=True)
            if message[0] == b"E":
                return self._refused(message)
            if message[0] not in (b"N", b"v"):
                break
        return Outcome("it answers what no Postgres does", odd=self.odd or b"?")

    def _refused(self, message: tuple[bytes, bytes]) -> Outcome:
        """By the proxy, which names its code; or by the server, and that has come the whole way."""
        fields = parse_error_fields(message[1])
        found = _CODE.search(fields.message)
        if found is None:
            return Outcome(f"the server answers: {fields.message} ({fields.sqlstate})", passed=True)
        code = Code(found[1]) if found[1] in set(Code) else None
        return Outcome(
            fields.message.removeprefix("mtlskit: ").removesuffix(found[0]).strip(), refusal=fields, code=code
        )

    async def _kafka(self) -> Outcome:
        await self._stream.send_all(api_versions_request(1))
        reader = AnswerReader(1)
        while True:
            data = await self._stream.receive_some(_MOST_MESSAGE)
            if not data:
                raise EOFError
            self._buffer += data[: 16 - len(self._buffer)]
            answer = reader.receive(data)
            if answer is not None:
                return Outcome(f"the broker answers: it knows {len(api_versions_of(answer))} requests", passed=True)

    async def _tcp(self) -> Outcome:
        """Who is turned away, or whose upstream cannot be reached, is closed without a word, and mostly soon."""
        with trio.move_on_after(_A_WHILE):
            if not await self._stream.receive_some(1):
                raise EOFError
        return Outcome("a connection is taken, and stays", passed=True)

    async def _message(self) -> tuple[bytes, bytes]:
        head = await self._exactly(5)
        size = int(struct.unpack("!I", head[1:])[0]) - 4
        if not 0 <= size <= _MOST_MESSAGE:
            self._buffer[:0] = head
            raise ValueError("no Postgres message")
        return head[:1], await self._exactly(size)

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await self._stream.receive_some(4096)
            if not data:
                raise EOFError
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


def _welcome(body: bytes) -> str:
    """AuthenticationOk or a request for a password: either way it has come from the server's side."""
    return "the server lets it in" if body[:4] == b"\0\0\0\0" else "the server asks for authentication"
