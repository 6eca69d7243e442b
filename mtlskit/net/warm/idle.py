"""What can be done with a connection that nobody reads from, without waiting: a look at it, and a polite end.

Both are single non-blocking calls on a socket that no task waits for, so they need no trio.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mtlskit.net.tls import TlsConnection

__all__ = ["is_quiet", "part"]

_CHUNK = 4096
"""Bytes of one look. Session tickets, all that a server should have sent, are a few hundred each."""


def is_quiet(tls: TlsConnection) -> bool:
    """Whether the server has said nothing since the handshake but what TLS says by itself.

    An end, an alert, a damaged record and plain bytes all make it False; the connection is then of no use.
    """
    engine = tls.engine
    room = memoryview(bytearray(16))
    while True:
        data = _read_now(tls)
        if data is None:
            return True
        if not data:
            return False
        engine.feed(data)
        if engine.read_into(room) or engine.closed or engine.failure is not None:
            return False


def part(tls: TlsConnection) -> None:
    """Close with a close_notify; without one PostgreSQL complains in its log of data that it could not receive."""
    if is_quiet(tls):  # and all is read: closing a socket with unread bytes in it resets the connection
        tls.engine.close_write()
        with suppress(OSError), _plain(tls) as sock:
            sock.send(tls.engine.take())
    tls.close()


def _read_now(tls: TlsConnection) -> bytes | None:
    """What has arrived already: None for nothing, empty for the end of the connection, whatever ended it."""
    try:
        with _plain(tls) as sock:
            return sock.recv(_CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


@contextmanager
def _plain(tls: TlsConnection) -> Iterator[socket.socket]:
    """Trio's socket as an ordinary non-blocking one, for a moment.

    Told what it is, because Python would ask the kernel, and macOS knows nothing of a socket that was reset.
    """
    ours = tls.socket
    sock = socket.socket(ours.family, ours.type, ours.proto, fileno=ours.fileno())
    try:
        sock.setblocking(False)
        yield sock
    finally:
        sock.detach()
