"""The far ends of a relayed session: sockets of the test's own, plain and TLS, and what is handed to the relay.

Everything here blocks, under a deadline that is only a safety net: tests run it in threads with `together`.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import trio

from mtlskit.net.relay import HandOver, Outcome, Relay, RelayPolicy
from mtlskit.net.tls import TlsEngine
from tests.services.pki import Pki

DEADLINE = 10.0  # seconds; a safety net, nothing is measured by it


_BY_DEFAULT = RelayPolicy()

Upstream = TypeVar("Upstream", socket.socket, ssl.SSLSocket, "WirePeer")


@dataclass(frozen=True)
class Session(Generic[Upstream]):
    """The test's two ends, and what the relay gets."""

    client: socket.socket
    upstream: Upstream
    handover: HandOver


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes in which a lost, doubled or swapped one shows."""
    return Random(seed).randbytes(size)  # noqa: S311 - not a secret


def tcp_pair(*, buffers: int | None = None) -> tuple[socket.socket, socket.socket]:
    """A loopback connection: the end for the relay (non-blocking), and the test's. `buffers`: as small as this."""
    with socket.socket() as listener:
        if buffers is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        far = socket.socket()
        if buffers is not None:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        far.settimeout(DEADLINE)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    if buffers is not None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
    for sock in (near, far):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    near.setblocking(False)
    return near, far


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_all(sock: socket.socket) -> bytes:
    """All until the end of the stream. A TLS socket raises SSLEOFError when the end is not a close_notify."""
    chunks = []
    while chunk := sock.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes; fewer only at the end of the stream."""
    data = bytearray()
    while len(data) < size and (chunk := sock.recv(min(size - len(data), 1 << 20))):
        data += chunk
    return bytes(data)


def digest(data: bytes) -> str:
    """To compare megabytes without printing them."""
    return f"{len(data)}:{hashlib.sha256(data).hexdigest()}"


def fill(sock: socket.socket, most: int) -> int:
    """Send zeros until the other side takes no more, or `most` have gone; how many went."""
    sock.setblocking(False)
    sent = 0
    with suppress(BlockingIOError):
        while sent < most:
            sent += sock.send(bytes(min(most - sent, 1 << 20)))
    sock.settimeout(DEADLINE)
    return sent


async def moved(relay: Relay, handover: HandOver) -> Outcome:
    """Let the relay move a session until it ends. Cancelling aborts it, and waits until its sockets are closed."""
    token = trio.lowlevel.current_trio_token()
    finished = trio.Event()
    pair = relay.begin(handover, lambda pair: token.run_sync_soon(finished.set))
    try:
        await finished.wait()
    finally:
        if not finished.is_set():
            relay.abort(pair)
            with trio.CancelScope(shield=True):
                await finished.wait()
    return pair.outcome


async def relayed(relay: Relay, session: Session[Any], *actions: Callable[[], Any]) -> list[Any]:
    """Relay a session while the actions run in threads: its outcome, then their results."""
    outcome: list[Outcome] = []

    async def run() -> None:
        outcome.append(await moved(relay, session.handover))

    with trio.fail_after(2 * DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            results = await together(*actions)
    return [*outcome, *results]


async def together(*actions: Callable[[], Any]) -> list[Any]:
    """Run each in a thread of its own; the results in order. The first error ends the test, not the waiting."""
    results: list[Any] = [None] * len(actions)

    async def run(index: int, action: Callable[[], Any]) -> None:
        results[index] = await trio.to_thread.run_sync(action, limiter=trio.CapacityLimiter(1))

    async with trio.open_nursery() as nursery:
        for index, action in enumerate(actions):
            nursery.start_soon(run, index, action)
    return results


@dataclass(frozen=True)
class Contexts:
    """A TLS server's side and ours, that fit each other."""

    server: ssl.SSLContext
    client: ssl.SSLContext

    @classmethod
    def make(cls, pki: Pki, *, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, client_ca: bool = True) -> Contexts:
        """`client_ca=False`: the server trusts a stranger for clients, and refuses our certificate."""
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(pki.server.cert, pki.server.key)
        server.minimum_version = server.maximum_version = version
        server.load_verify_locations(pki.client_ca if client_ca else pki.stranger_ca)
        server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.create_default_context(cafile=str(pki.server_ca))
        client.load_cert_chain(pki.client.cert, pki.client.key)
        return cls(server, client)

    def engine(self) -> TlsEngine:
        """Our side of a connection."""
        return TlsEngine(self.client, server_hostname="localhost")


class WirePeer:
    """A TLS server over memory: it sees and makes every byte on the wire, and can end its direction alone."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.engine = TlsEngine(context, server_side=True)
        self._buffer = memoryview(bytearray(1 << 20))
        self._ahead = bytearray()

    def handshake(self) -> None:
        """The server's half, to the end."""
        while not self.engine.handshake():
            self.sock.sendall(self.engine.take())
            self.engine.feed(self.sock.recv(65536))
        self.sock.sendall(self.engine.take())

    def records(self, plain: bytes) -> bytes:
        """The ciphertext of `plain`, not sent."""
        self.engine.write(plain)
        return self.engine.take()

    def send(self, plain: bytes) -> None:
        """Encrypt and send all."""
        self.sock.sendall(self.records(plain))

    def close_write(self, *, fin: bool = False) -> None:
        """A close_notify, and perhaps a FIN; reading goes on."""
        while count := self.engine.read_into(self._buffer):
            self._ahead += self._buffer[:count]
        self.engine.close_write()
        self.sock.sendall(self.engine.take())
        if fin:
            self.sock.shutdown(socket.SHUT_WR)

    def read(self, size: int) -> bytes:
        """`size` plain bytes; fewer at the close_notify. Raises EOFError where the wire ends without one."""
        data = self._ahead[:size]
        del self._ahead[:size]
        while len(data) < size:
            count = self.engine.read_into(self._buffer[: size - len(data)])
            data += self._buffer[:count]
            if self.engine.failure is not None:
                raise self.engine.failure
            if self.engine.closed:
                break
            if not count:
                wire = self.sock.recv(65536)
                if not wire:
                    raise EOFError
                self.engine.feed(wire)
        return bytes(data)

    def read_to_end(self) -> bytes:
        """All up to the close_notify, after which nothing may come but the FIN."""
        data = self.read(1 << 40)
        assert self.sock.recv(1) == b"", "bytes after close_notify"
        return data

    def close(self) -> None:
        self.sock.close()


def shake_hands(near: socket.socket, engine: TlsEngine, server: Callable[[], Any]) -> Any:
    """Run our handshake against `server` in a thread; what the thread returned, or the error that it met."""
    result: list[Any] = []

    def serve() -> None:
        try:
            result.append(server())
        except (OSError, EOFError) as exc:
            result.append(exc)

    thread = threading.Thread(target=serve)
    thread.start()
    near.settimeout(DEADLINE)
    while True:
        done = engine.handshake()
        near.sendall(engine.take())
        if done:
            break
        engine.feed(near.recv(65536))
    near.setblocking(False)
    thread.join(DEADLINE)
    return result[0]


class Sessions:
    """Makes sessions and closes what the test leaves open."""

    def __init__(self, contexts: Contexts) -> None:
        self.contexts = contexts
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._stack.close()

    def pair(self, buffers: int | None = None) -> tuple[socket.socket, socket.socket]:
        near, far = tcp_pair(buffers=buffers)
        self._stack.callback(near.close)
        self._stack.callback(far.close)
        return near, far

    def plain(
        self,
        policy: RelayPolicy = _BY_DEFAULT,
        *,
        to_client: bytes = b"",
        buffers: int | None = None,
        client_buffers: int | None = None,
        upstream_buffers: int | None = None,
    ) -> Session[socket.socket]:
        """An upstream without TLS."""
        client, far_client = self.pair(client_buffers or buffers)
        upstream, far_upstream = self.pair(upstream_buffers or buffers)
        return Session(far_client, far_upstream, HandOver(client, upstream, None, to_client, policy))

    def tls(
        self,
        policy: RelayPolicy = _BY_DEFAULT,
        *,
        to_client: bytes = b"",
        buffers: int | None = None,
        client_buffers: int | None = None,
        upstream_buffers: int | None = None,
        contexts: Contexts | None = None,
    ) -> Session[ssl.SSLSocket]:
        """A real TLS server as the upstream. It tells a ragged end from a clean one."""
        contexts = contexts or self.contexts
        client, far_client = self.pair(client_buffers or buffers)
        upstream, far_upstream = self.pair(upstream_buffers or buffers)
        engine = contexts.engine()

        def serve() -> ssl.SSLSocket:
            return contexts.server.wrap_socket(far_upstream, server_side=True, suppress_ragged_eofs=False)

        server = shake_hands(upstream, engine, serve)
        if isinstance(server, Exception):
            raise server
        self._stack.callback(server.close)
        return Session(far_client, server, HandOver(client, upstream, engine, to_client, policy))

    def wire(
        self,
        policy: RelayPolicy = _BY_DEFAULT,
        *,
        to_client: bytes = b"",
        buffers: int | None = None,
        client_buffers: int | None = None,
        upstream_buffers: int | None = None,
        contexts: Contexts | None = None,
    ) -> Session[WirePeer]:
        """An upstream that sees and makes every byte on the wire."""
        contexts = contexts or self.contexts
        client, far_client = self.pair(client_buffers or buffers)
        upstream, far_upstream = self.pair(upstream_buffers or buffers)
        engine = contexts.engine()
        peer = WirePeer(far_upstream, contexts.server)
        shake_hands(upstream, engine, peer.handshake)
        with suppress(BlockingIOError):
            # The session tickets, so that tests may feed the engine with what comes next.
            engine.feed(upstream.recv(65536))
        assert not engine.read_into(memoryview(bytearray(1)))
        return Session(far_client, peer, HandOver(client, upstream, engine, to_client, policy))
