"""Connections for a pool without a server: both ends in the test's hands, their handshake done, nothing awaited.

That makes them fit for a clock that jumps: a task that waits for a socket would be jumped over.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from mtlskit.config.values import Endpoint, Verify
from mtlskit.errors import Code, UpstreamUnreachable
from mtlskit.net.dial import Route, Upstream
from mtlskit.net.identity import load_snapshot
from mtlskit.net.tls import TlsConnection, TlsEngine
from tests.support.fake_upstream import PATIENCE, make_papers


class Peer:
    """The server's end of a connection that waits, a plain socket and an engine; `upstream` is ours."""

    def __init__(self, upstream: Upstream, sock: socket.socket, engine: TlsEngine, began: float) -> None:
        self.upstream = upstream
        self.began = began
        self._sock = sock
        self._engine = engine

    def say(self, data: bytes) -> None:
        """Send plain bytes through TLS."""
        self._engine.write(data)
        self._sock.sendall(self._engine.take())

    def heard(self) -> bytes:
        """Every plain byte that has come by now."""
        room = bytearray(1 << 16)
        while True:
            try:
                data = self._sock.recv(1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            self._engine.feed(data)
        return bytes(room[: self._engine.read_into(memoryview(room))])

    def damage(self) -> None:
        """Send what is no record."""
        self._sock.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)

    def close_notify(self) -> None:
        self._engine.close_write()
        self._sock.sendall(self._engine.take())

    def close(self) -> None:
        self._sock.close()

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    @property
    def parted(self) -> bool:
        """Our end is closed, and said so with a close_notify. Raises where it was closed in another way."""
        try:
            while data := self._sock.recv(4096):
                self._engine.feed(data)
        except BlockingIOError:
            return False
        assert self._engine.read_into(memoryview(bytearray(16))) == 0
        assert self._engine.closed
        return True

    @property
    def closed(self) -> bool:
        """Our end is closed, in whatever way."""
        return self.upstream.tls.socket.fileno() == -1


DEATHS: Final[dict[str, Callable[[Peer], None]]] = {
    "an end": Peer.close,
    "a close_notify": Peer.close_notify,
    "a reset": Peer.reset,
    "a word": lambda peer: peer.say(b"E"),
    "rubbish": Peer.damage,
}
"""The ways in which a connection that waits can become useless."""


def _shake_hands(client: TlsEngine, server: TlsEngine) -> None:
    """What the server adds when it is done, its tickets in TLS 1.3, stays with it."""
    done = False
    while not done:
        client_done = client.handshake()
        server.feed(client.take())
        done = server.handshake() and client_done
        if not done:
            client.feed(server.take())


class Peers:
    """Makes connections. A context manager that closes the server's ends."""

    def __init__(self, folder: Path) -> None:
        papers = make_papers(folder)
        self._identity = load_snapshot(papers.identity, verify=Verify())
        self._context = papers.server_context()
        self._all: list[Peer] = []

    def make(self, began: float = 0.0) -> Peer:
        """A connection, with the server's session tickets waiting to be read."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            ours = socket.create_connection(listener.getsockname())
            theirs, _ = listener.accept()
        client = TlsEngine(self._identity.context, server_hostname="localhost")
        server = TlsEngine(self._context, server_side=True)
        _shake_hands(client, server)
        theirs.sendall(server.take())
        theirs.setblocking(False)
        tls = TlsConnection(trio.socket.from_stdlib_socket(ours), client)
        route = Route(Endpoint("localhost", 5432), "127.0.0.1", 5432)
        self._all.append(Peer(Upstream(tls, route, self._identity), theirs, server, began))
        return self._all[-1]

    def limit_to(self, version: ssl.TLSVersion) -> None:
        """Speak no newer version from now on."""
        self._context.maximum_version = version

    def close(self) -> None:
        """Close both ends of everything that is still open."""
        for peer in self._all:
            peer.close()
            peer.upstream.tls.close()
        self._all.clear()
        self.limit_to(ssl.TLSVersion.MAXIMUM_SUPPORTED)


class Dials:
    """What a pool dials with: it takes `seconds`, and fails while `down`."""

    def __init__(self, peers: Peers, *, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.down = False
        self.peers: list[Peer] = []
        """Every connection made, in order."""
        self.begun: list[float] = []
        """When each dial began."""
        self.under_way = 0
        self.most_under_way = 0
        self._make = peers.make

    async def __call__(self) -> Upstream:
        began = trio.current_time()
        self.begun.append(began)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await trio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        if self.down:
            raise UpstreamUnreachable(Code.TCP_REFUSED, "nothing listens")
        self.peers.append(self._make(began))
        return self.peers[-1].upstream

    @property
    def alive(self) -> list[Peer]:
        """Those whose end of ours is open."""
        return [peer for peer in self.peers if not peer.closed]


async def until(look: Callable[[], bool]) -> None:
    """Look until it is so; for what nobody announces to a task, on the real clock."""
    with trio.fail_after(PATIENCE):
        while not look():  # noqa: ASYNC110 - nobody sets an event
            await trio.sleep(0.005)
