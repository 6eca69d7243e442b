"""A scripted server behind TLS, under trio on loopback, and the papers that it and a tunnel need.

A script is an async function that plays the server's part on one connection. It is handed a `ServerSide`, which knows
the steps of a Postgres server; a script leaves out, garbles or delays whichever it likes. When it returns, the
connection is closed as a crashed process would: without a close_notify.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import trio
import trio.testing

from mtlskit.config.values import Endpoint, IdentityConfig
from mtlskit.pki.authority import Authority
from mtlskit.wire.postgres.messages import SSL_REQUEST, authentication_ok, frame

PATIENCE = 20.0
"""Seconds; a safety net for what must happen, nothing is measured by it."""

PARAMETER = frame(b"S", b"server_version\x0018.0\0")
READY = frame(b"Z", b"I")


def backend_key(process_id: int, secret: bytes) -> bytes:
    """BackendKeyData; the secret has 4 bytes in protocol 3.0 and up to 256 in 3.2."""
    return frame(b"K", struct.pack("!I", process_id) + secret)


KEY = backend_key(4711, b"\x01\x02\x03\x04")
WELCOME = authentication_ok() + PARAMETER + KEY + READY


@dataclass(frozen=True)
class Papers:
    """A CA, a client identity and a server certificate for localhost, as files in one folder."""

    folder: Path
    authority: Authority

    @property
    def identity(self) -> IdentityConfig:
        return IdentityConfig(
            "papers", self.folder / "client.pem", self.folder / "client.key", ca=self.folder / "ca.pem"
        )

    def server_context(self) -> ssl.SSLContext:
        """A server that demands a client certificate of this CA."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        context.load_verify_locations(self.folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def strict_context(self) -> ssl.SSLContext:
        """A server that takes the client certificates of another CA only."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.pem", self.folder / "server.key")
        stranger = Authority.create("another CA", now=datetime.now(UTC))
        context.load_verify_locations(cadata=stranger.cert_pem.decode())
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def renew_client(self, common_name: str) -> None:
        """Put another client certificate in place."""
        issued = self.authority.issue_client(common_name, now=datetime.now(UTC))
        (self.folder / "client.pem").write_bytes(issued.cert_pem)
        (self.folder / "client.key").write_bytes(issued.key_pem)


def make_papers(folder: Path) -> Papers:
    now = datetime.now(UTC)
    authority = Authority.create("fake upstream CA", now=now)
    server = authority.issue_server(["localhost", "127.0.0.1"], now=now)
    (folder / "client.key").touch(mode=0o600)
    (folder / "ca.pem").write_bytes(authority.cert_pem)
    (folder / "server.pem").write_bytes(server.cert_pem)
    (folder / "server.key").write_bytes(server.key_pem)
    papers = Papers(folder, authority)
    papers.renew_client("reporting")
    return papers


class ServerSide:
    """The server's end of one connection."""

    def __init__(self, raw: trio.SocketStream, context: ssl.SSLContext) -> None:
        self.raw = raw
        self._context = context
        self._buffer = bytearray()
        self._tls: trio.SSLStream[trio.SocketStream] | None = None

    async def begin_tls(self) -> None:
        """Answer the SSLRequest and shake hands."""
        assert await self.read_exactly(8) == SSL_REQUEST
        await self.raw.send_all(b"S")
        await self.shake_hands()

    async def shake_hands(self) -> None:
        self._tls = trio.SSLStream(self.raw, self._context, server_side=True)
        await self._tls.do_handshake()

    async def open(self) -> bytes:
        """All up to and including the client's start-up packet, which is returned."""
        await self.begin_tls()
        return await self.read_packet()

    @property
    def client_name(self) -> str | None:
        """The common name in the client's certificate."""
        assert self._tls is not None
        subject = self._tls.getpeercert()["subject"]
        return next((value for ((name, value),) in subject if name == "commonName"), None)

    async def refuse_in_handshake(self) -> str:
        """Shake hands with a context that refuses the client; returns OpenSSL's reason.

        By hand, because `trio.SSLStream` keeps the alert to itself when a handshake fails.
        """
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        machine = self._context.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                machine.do_handshake()
            except ssl.SSLWantReadError:
                await self.raw.send_all(outgoing.read())
                incoming.write(await self.raw.receive_some())
            except ssl.SSLError as exc:
                await self.raw.send_all(outgoing.read())
                return exc.reason
            else:
                raise AssertionError("the client was not refused")

    async def read_packet(self) -> bytes:
        """A packet without a type byte."""
        head = await self.read_exactly(4)
        return head + await self.read_exactly(struct.unpack("!I", head)[0] - 4)

    async def read_exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = await (self._tls or self.raw).receive_some()
            if not data:
                raise trio.BrokenResourceError("the proxy closed the connection")
            self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def until_closed(self) -> bytes:
        """What the proxy still sends until it closes."""
        rest = bytes(self._buffer)
        try:
            while data := await (self._tls or self.raw).receive_some():
                rest += data
        except trio.BrokenResourceError:
            pass  # closed without a close_notify, or reset
        return rest

    async def send(self, data: bytes) -> None:
        await (self._tls or self.raw).send_all(data)

    async def send_in_pieces(self, *pieces: bytes) -> None:
        """Each piece has been read by the proxy before the next one is sent."""
        for piece in pieces:
            if piece:
                await self.send(piece)
                await trio.testing.wait_all_tasks_blocked()

    async def close_notify(self) -> None:
        """End the stream as TLS demands."""
        assert self._tls is not None
        await self._tls.aclose()

    def reset(self) -> None:
        """Close with RST."""
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.raw.socket.close()


Script: TypeAlias = Callable[[ServerSide], Awaitable[None]]


async def welcoming(server: ServerSide) -> None:
    """Trust the client, then echo each message until it goes."""
    await server.open()
    await server.send(WELCOME)
    await echo(server)


async def refusing(server: ServerSide) -> None:
    """With `Papers.strict_context`: refuse the client's certificate, and see it leave."""
    assert await server.read_exactly(8) == SSL_REQUEST
    await server.raw.send_all(b"S")
    assert await server.refuse_in_handshake() == "CERTIFICATE_VERIFY_FAILED"
    await server.until_closed()  # closing with unread bytes would reset the connection


async def echo(server: ServerSide) -> None:
    while True:
        kind = await server.read_exactly(1)
        body = (await server.read_packet())[4:]
        if kind == b"X":
            return
        await server.send(frame(b"D", body) + READY)


class FakeUpstream:
    """Counts what came; `endpoint` is where it listens."""

    def __init__(self, listener: trio.SocketListener) -> None:
        host, port = listener.socket.getsockname()[:2]
        self.endpoint = Endpoint(host, port)
        self.connections = 0
        self.open = 0
        self._changed = trio.Event()

    async def all_closed(self) -> None:
        """Wait until no connection is open."""
        with trio.fail_after(PATIENCE):
            while self.open:
                await self._changed.wait()

    def count(self, change: int) -> None:
        self.open += change
        self.connections += change > 0
        changed, self._changed = self._changed, trio.Event()
        changed.set()


@asynccontextmanager
async def fake_upstream(
    papers: Papers, script: Script = welcoming, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[FakeUpstream]:
    """Serve `script` to each connection until the block ends. A script's failed assertion fails the test."""
    context = context or papers.server_context()
    (listener,) = await trio.open_tcp_listeners(0, host=host)
    upstream = FakeUpstream(listener)

    async def serve(stream: trio.SocketStream) -> None:
        upstream.count(+1)
        try:
            # A connection that the proxy drops is part of many scripts.
            await script(ServerSide(stream, context))
        except trio.BrokenResourceError:
            pass
        finally:
            stream.socket.close()
            upstream.count(-1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield upstream
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def nobody_listens() -> AsyncIterator[Endpoint]:
    """An endpoint that refuses connections: its port is bound, so that nobody else gets it, and does not listen."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        yield Endpoint(*sock.getsockname())
