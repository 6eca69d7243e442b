"""The raw work loads' small protocol, client side. `tests.bench.origin` is the other side.

A request is one letter and a number of eight bytes (big-endian): `U` n: n bytes follow, and the number comes back;
`D` n: n bytes come back; `E` n: every n bytes come back, until the connection ends. Another request may follow a `U`
or a `D`.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from dataclasses import dataclass

from tests.services.pki import Pki

__all__ = ["HEADER", "Door", "begin_echo", "download", "read_exactly", "round_trips", "upload"]

HEADER = struct.Struct("!cQ")
_CHUNK = 1 << 20
_ZEROS = memoryview(bytes(_CHUNK))
_TIMEOUT = 60  # seconds; a safety net, nothing is measured by it


@dataclass(frozen=True)
class Door:
    """Where a client connects: plain TCP to `port`, or TLS of its own where files are given. Plain values only."""

    port: int
    ca: str = ""
    cert: str = ""
    key: str = ""
    host: str = "127.0.0.1"

    @classmethod
    def direct(cls, port: int, pki: Pki) -> Door:
        """Straight to the server, with TLS in the client."""
        return cls(port, str(pki.server_ca), str(pki.client.cert), str(pki.client.key))

    def context(self) -> ssl.SSLContext | None:
        """The client's own TLS, if it has any; make it once, outside of what is measured."""
        if not self.ca:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.cert, self.key)
        return context

    def connect(self, context: ssl.SSLContext | None) -> socket.socket:
        """Connect, without delay of small packets, and finish the handshake if there is one."""
        sock = socket.create_connection((self.host, self.port), _TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(_TIMEOUT)
        return sock if context is None else context.wrap_socket(sock, server_hostname="localhost")


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """`count` bytes. Raises ConnectionError where the stream ends before."""
    data = sock.recv(count)
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise ConnectionError(f"the stream ended after {len(data)} of {count} bytes")
        data += more
    return data


def upload(sock: socket.socket, count: int) -> None:
    """Send `count` bytes, and wait until the server has said that it has them."""
    sock.sendall(HEADER.pack(b"U", count))
    left = count
    while left:
        chunk = _ZEROS[:left]
        sock.sendall(chunk)
        left -= len(chunk)
    (told,) = struct.unpack("!Q", read_exactly(sock, 8))
    if told != count:
        raise ConnectionError(f"the server says that it had {told} of {count} bytes")


def download(sock: socket.socket, count: int) -> None:
    """Ask for `count` bytes, and read them."""
    sock.sendall(HEADER.pack(b"D", count))
    buffer = memoryview(bytearray(_CHUNK))
    left = count
    while left:
        got = sock.recv_into(buffer[: min(left, _CHUNK)])
        if not got:
            raise ConnectionError(f"the stream ended {left} bytes before its end")
        left -= got


def begin_echo(sock: socket.socket, size: int) -> None:
    """From now on, every `size` bytes come back. The first round trip, which opens the way, is made here."""
    sock.sendall(HEADER.pack(b"E", size) + bytes(size))
    read_exactly(sock, size)


def round_trips(sock: socket.socket, count: int, size: int) -> list[float]:
    """Make `count` round trips one after another. Seconds for each."""
    message = bytes(size)
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        sock.sendall(message)
        read_exactly(sock, size)
        taken.append(time.perf_counter() - began)
    return taken
