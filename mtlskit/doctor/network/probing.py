"""Who listens there, if not the one we came for? A question of each service that could be meant, side by side.

Asked only where the service that was expected has not answered as it should: each question is a connection of its own,
and some servers count or log it. Nothing is sent that could change anything.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import trio

from mtlskit.errors import MtlskitError
from mtlskit.net.connect import open_socket
from mtlskit.net.dial import POSTGRES_ALPN
from mtlskit.net.names import Address
from mtlskit.net.tls import TlsEngine
from mtlskit.wire.greetings import LONGEST_GREETING, is_tls, recognised
from mtlskit.wire.kafka.asking import AnswerReader, api_versions_of, api_versions_request
from mtlskit.wire.postgres.messages import SSL_REQUEST

__all__ = ["Far", "Hello", "Service", "Who", "ask_postgres", "ask_tls", "gather_answer", "who_listens"]

_CORRELATION_ID: Final = 1
_READ_SIZE: Final = 65536
_MOST_OF_HANDSHAKE: Final = 256 * 1024
"""Bytes of a server's part of a handshake: a hundred certificates, which nobody has."""

_GRACE: Final = 0.3
"""Seconds for the rest of a greeting whose beginning has come. It comes in one packet, nearly always."""

_HEARING: Final = 1.0
"""Seconds for the rest of a server's part of the handshake, of which only its choice of ALPN matters."""

_CHANGE_CIPHER_SPEC: Final = b"\x14\x03\x03\0\x01\x01"
"""A record that may come before, for the sake of middleboxes (RFC 8446 appendix D.4)."""

_CLIENT_HELLO: Final = b"\x01"
"""The type of the message, behind the five bytes of its record's header (RFC 8446 sections 4 and 5.1)."""

_HTTP: Final = b"HEAD / HTTP/1.0\r\n\r\n"


class Service(StrEnum):
    """What we ask for by name."""

    POSTGRES = "postgres"
    """Answers an SSLRequest: with S, or N where it has no TLS."""
    DIRECT = "direct"
    """A PostgreSQL that takes TLS at once."""
    KAFKA = "kafka"
    """Answers ApiVersions in plain text."""
    TLS = "tls"
    """Takes a ClientHello, and is none of those above."""
    HTTPS = "https"
    """TLS, and HTTP within."""
    OTHER = "other"
    """`Who.words` say which."""


@dataclass(frozen=True)
class Far:
    """One address and how to get there."""

    address: Address
    source: str | None = None

    async def connect(self) -> trio.socket.SocketType:
        """Raises OSError."""
        return await open_socket(*self.address, self.source)


@dataclass(frozen=True)
class Who:
    """Who listens. `words` follow "it is"."""

    service: Service
    words: str


async def who_listens(far: Far, seconds: float) -> Who | None:
    """The one that knows itself asked, the first in the order below if several do; None where none does in time."""
    found: dict[int, Who] = {}

    async def ask(place: int, question: Callable[[Far], Awaitable[Who | None]]) -> None:
        try:
            answer = await question(far)
        except (OSError, MtlskitError):  # ssl.SSLError is an OSError; a stranger's rubbish is no answer
            return
        if answer is not None:
            found[place] = answer
            # The others may be waiting for somebody who will never speak to them.
            scope.deadline = min(scope.deadline, trio.current_time() + _GRACE)

    with trio.move_on_after(seconds) as scope:
        async with trio.open_nursery() as nursery:
            for place, question in enumerate((_postgres, _kafka, _tls, _http)):
                nursery.start_soon(ask, place, question)
    return found[min(found)] if found else None


async def gather_answer(sock: trio.socket.SocketType, whole: bytes = b"") -> bytes:
    """The first bytes: what comes at once, and a greeting whole if the rest follows soon; empty at the end of it.

    Each byte of `whole` is an answer without a rest. Raises OSError.
    """
    answer = bytes(await sock.recv(LONGEST_GREETING))
    if len(answer) == 1 and answer in whole:
        return answer
    with trio.move_on_after(_GRACE):
        while answer and len(answer) < LONGEST_GREETING and recognised(answer) is None:
            more = await sock.recv(LONGEST_GREETING - len(answer))
            if not more:
                break
            answer += more
    return answer


async def ask_postgres(far: Far) -> bytes:
    """What an SSLRequest is answered with: at most `LONGEST_GREETING` bytes. Raises OSError."""
    with await far.connect() as sock:
        await _send(sock, SSL_REQUEST)
        return await gather_answer(sock, whole=b"SNE")


@dataclass(frozen=True)
class Hello:
    """What a ClientHello is answered with."""

    answer: bytes
    """The first bytes of it: at most `LONGEST_GREETING`."""
    done: bool = False
    """The server's part of the handshake went through, so `alpn` is known."""
    alpn: str | None = None


async def ask_tls(far: Far, *alpn: str) -> Hello:
    """Begin a handshake that offers these protocols, and look whether a server of TLS is there at all.

    Whose certificate it presents does not matter here: nothing is told to the server. In TLS 1.3 its choice of ALPN is
    encrypted, so its part of the handshake is heard to the end; ours is left out. Raises OSError.
    """
    engine = TlsEngine(_context(alpn))
    with await far.connect() as sock:
        engine.handshake()
        await _send(sock, engine.take())
        answer = await gather_answer(sock)
        if not answer or not is_tls(answer):
            return Hello(answer)
        done = False
        with suppress(OSError):  # an alert, an unknown curve, a reset: it is TLS, and the next check has the words
            with trio.move_on_after(_HEARING):  # what stalls in the middle is TLS all the same
                done = await _hear_out(sock, engine, answer)
        return Hello(answer, done, engine.alpn)


async def _hear_out(sock: trio.socket.SocketType, engine: TlsEngine, data: bytes) -> bool:
    """The server's part of the handshake, up to where ours would begin. Raises OSError."""
    size = 0
    while data and size < _MOST_OF_HANDSHAKE:
        size += len(data)
        if engine.handshake(data):
            return True
        if reply := engine.take():
            if reply.removeprefix(_CHANGE_CIPHER_SPEC)[5:6] != _CLIENT_HELLO:
                return True  # our certificate, in TLS 1.2
            await _send(sock, reply)  # the server wants another curve: a ClientHello again (RFC 8446 section 4.1.4)
        data = await sock.recv(_READ_SIZE)
    return False


def _context(alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


async def _postgres(far: Far) -> Who | None:
    answer = await ask_postgres(far)
    words = {b"S": "a PostgreSQL server", b"N": "a PostgreSQL server without TLS, or a pooler"}.get(answer)
    if words is not None:
        return Who(Service.POSTGRES, words)
    return None if is_tls(answer) else _stranger(answer)


async def _kafka(far: Far) -> Who | None:
    reader = AnswerReader(_CORRELATION_ID)
    with await far.connect() as sock:
        await _send(sock, api_versions_request(_CORRELATION_ID))
        while data := await sock.recv(_READ_SIZE):
            frame = reader.receive(data)
            if frame is not None:
                api_versions_of(frame)
                return Who(Service.KAFKA, "a Kafka broker that speaks plain text")
    return None


async def _tls(far: Far) -> Who | None:
    hello = await ask_tls(far, POSTGRES_ALPN, "http/1.1")
    if not hello.answer or not is_tls(hello.answer):
        return _stranger(hello.answer)
    if hello.alpn == POSTGRES_ALPN:
        return Who(Service.DIRECT, "a PostgreSQL server that takes TLS at once")
    if hello.alpn == "http/1.1":
        return Who(Service.HTTPS, "an HTTPS server")
    return Who(Service.TLS, recognised(hello.answer) or "")


async def _http(far: Far) -> Who | None:
    with await far.connect() as sock:
        await _send(sock, _HTTP)
        answer = await gather_answer(sock)
    return None if is_tls(answer) else _stranger(answer)


def _stranger(answer: bytes) -> Who | None:
    words = recognised(answer)
    return Who(Service.OTHER, words) if words else None


async def _send(sock: trio.socket.SocketType, data: bytes) -> None:
    sent = 0
    while sent < len(data):
        sent += await sock.send(data[sent:])
