"""TLS as a machine between two byte queues, and its face under trio.

Theory of operation
===================
`ssl.SSLObject` over two `ssl.MemoryBIO`s keeps OpenSSL away from the socket. We read ciphertext ourselves, feed it,
and take the plain text out; we write plain text in, take the ciphertext, and send it ourselves. Compared with an
`ssl.SSLSocket` this

* reads many records with one system call (OpenSSL reads a record's header and body separately),
* has no hidden plain text: after `read_into` has returned less than it was offered, OpenSSL holds nothing that a
  selector would not tell us about,
* has no write to be retried with the identical bytes: what the kernel does not take is ciphertext, which we hold, and
* can close one direction safely. Closing calls SSL_shutdown twice, and the second call reads; on a socket
  that read swallows application data in flight, over a BIO that we know to be drained it finds nothing to swallow.

`TlsEngine` does no I/O and is what the relay drives from its thread. `TlsConnection` drives one from a trio task
while a connection is being set up, and gives it away with `detach`. Ciphertext that was made but not yet sent stays
in the engine's `unsent`, so that a task cancelled in the middle of a send loses nothing.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any

import trio

__all__ = ["READ_SIZE", "TlsConnection", "TlsEngine"]

READ_SIZE = 65536
"""Bytes asked of the kernel at once while a connection is set up: four full TLS records, more than a login needs."""

_BITE = 256
"""Bytes fed at once during a handshake. A memory BIO never gets smaller again, and most connections never see a larger
message than the server's certificates: fed whole, these would cost every idle connection 2 KiB for good."""


class TlsEngine:
    """One TLS connection between two byte queues. Not thread-safe; owned by one task or thread at a time."""

    __slots__ = ("_incoming", "_tls", "closed", "failure", "outgoing", "unsent")

    def __init__(self, context: ssl.SSLContext, *, server_hostname: str | None = None, server_side: bool = False):
        self._incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        """Ciphertext that waits for `take`; key updates and alerts arise while reading."""
        wrapper = context.wrap_bio(
            self._incoming, self.outgoing, server_side=server_side, server_hostname=server_hostname
        )
        # One layer below `SSLObject`, which only passes the calls on: for a small message that would be a twentieth of
        # its cost, and the wrapper itself a hundredth of an idle connection's memory.
        self._tls: Any = wrapper._sslobj  # type: ignore[attr-defined]  # not in typeshed; there since Python 3.5
        self.closed = False
        """The peer has sent close_notify: a clean end of its direction (RFC 8446 section 6.1)."""
        self.failure: ssl.SSLError | None = None
        """Why nothing more can be read: the peer's alert, or a damaged record. Nothing can be written either."""
        self.unsent = b""
        """Ciphertext that was taken from the engine and that the kernel has not taken yet."""

    def handshake(self, ciphertext: bytes = b"") -> bool:
        """Go on with the handshake, with what the peer sent; True when it is done.

        Ciphertext may be waiting in `take` either way. Raises `ssl.SSLError`; an alert for the peer may then still be
        waiting there.
        """
        rest = memoryview(ciphertext)
        while True:
            self._incoming.write(rest[:_BITE])
            rest = rest[_BITE:]
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                if not rest:
                    return False
            else:
                self._incoming.write(rest)
                return True

    def feed(self, ciphertext: bytes | memoryview) -> None:
        """Hand in what the peer sent."""
        self._incoming.write(ciphertext)

    def decrypt(self, ciphertext: memoryview, view: memoryview) -> int:
        """`feed` and `read_into` in one."""
        self._incoming.write(ciphertext)
        return self.read_into(view)

    def read_into(self, view: memoryview) -> int:
        """Decrypt all that was fed, up to the length of `view`; the count of plain bytes written there.

        A result smaller than ``len(view)`` means that nothing complete is left inside. Sets `closed` at the peer's
        close_notify, and `failure` for an alert or a damaged record; what was decrypted before either is returned.
        """
        if self.failure is not None:
            return 0  # asked again, OpenSSL would name another reason
        tls, incoming = self._tls, self._incoming
        size = len(view)
        count = 0
        try:
            while count < size:
                got = tls.read(size - count, view[count:])
                if not got:
                    self.closed = True
                    break
                count += got
                if not incoming.pending and not tls.pending():
                    break  # asking again would only raise SSLWantReadError, which costs as much as a decryption
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            # What `read` answers instead of 0 once we ourselves have closed our direction.
            self.closed = True
        except ssl.SSLError as exc:
            self.failure = exc
        return count

    def write(self, plain: bytes | memoryview) -> None:
        """Encrypt all of `plain`; the memory BIO takes it whole."""
        written = 0
        while written < len(plain):
            written += self._tls.write(plain[written:] if written else plain)

    def encrypt(self, plain: memoryview) -> bytes:
        """`write` and `take` in one: the ciphertext of what was queued before and of `plain`."""
        written = self._tls.write(plain)
        while written < len(plain):
            written += self._tls.write(plain[written:])
        return self.outgoing.read()

    def take(self) -> bytes:
        """The ciphertext made so far, to be sent to the peer. The caller must send all of it, in order."""
        return self.outgoing.read()

    def close_write(self) -> None:
        """Queue a close_notify. Reading goes on; everything fed must have been read first (see the module's text)."""
        with suppress(ssl.SSLError):
            self._tls.shutdown()

    def peer_certificate(self) -> bytes | None:
        """The peer's leaf certificate, DER."""
        certificate: bytes | None = self._tls.getpeercert(True)
        return certificate

    def presented_certificate(self) -> bytes | None:
        """The leaf that the peer has sent, DER, verified or not: what to name when the handshake was refused.

        None where there is none, and where OpenSSL (before 3.0) does not keep what it has not verified.
        """
        return next(iter(self.presented_chain()), None)

    def presented_chain(self) -> tuple[bytes, ...]:
        """All that the peer has sent, as `presented_certificate`: leaf first, as they came."""
        # `SSLObject` has it since Python 3.13; down here it is there since 3.10.
        certificates = self._tls.get_unverified_chain() or ()
        return tuple(ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in certificates)

    def belong_to(self, owner: object) -> None:
        """Whom the context's callbacks are told as theirs; it must outlive the handshake.

        OpenSSL's wrapper, which would be it, is gone by now (see `__init__`), and CPython 3.13 breaks off without one.
        """
        self._tls.owner = owner

    @property
    def version(self) -> str:
        """For instance ``TLSv1.3``."""
        return self._tls.version() or "none"

    @property
    def alpn(self) -> str | None:
        """The application protocol agreed on (RFC 7301), if any."""
        name: str | None = self._tls.selected_alpn_protocol()
        return name


class TlsConnection:
    """A socket and its TLS engine under trio, while the connection is set up.

    One task may send while another receives. Raises `OSError` and `ssl.SSLError` as they come; whoever dials maps
    them. A cancelled call has lost nothing.
    """

    def __init__(self, sock: trio.socket.SocketType, engine: TlsEngine):
        self.socket = sock
        self.engine = engine
        self._buffer = bytearray(READ_SIZE)

    async def handshake(self) -> None:
        """Shake hands. An alert of ours reaches the peer even when we refuse it.

        Raises `ssl.SSLError`, `OSError`, or `ssl.SSLEOFError` when the peer closes midway.
        """
        engine = self.engine
        data = b""
        while True:
            try:
                done = engine.handshake(data)
            except ssl.SSLError:
                engine.unsent += engine.take()
                with suppress(OSError):
                    await self.flush()
                raise
            engine.unsent += engine.take()
            await self.flush()
            if done:
                return
            data = await self.socket.recv(READ_SIZE)
            if not data:
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer closed the connection during the TLS handshake")

    async def send_all(self, plain: bytes) -> None:
        """Encrypt and send all of `plain`."""
        self.engine.write(plain)
        self.engine.unsent += self.engine.take()
        await self.flush()

    async def flush(self) -> None:
        """Send what is in `engine.unsent`."""
        engine = self.engine
        while engine.unsent:
            sent = await self.socket.send(engine.unsent)
            engine.unsent = engine.unsent[sent:]

    async def receive_some(self) -> bytes:
        """Some plain bytes; empty at the end of the stream (whether or not a close_notify came: see `engine.closed`).

        Raises `ssl.SSLError` when the peer sends an alert, `OSError` when the connection breaks.
        """
        engine = self.engine
        view = memoryview(self._buffer)
        while True:
            count = engine.read_into(view)
            if count:
                return bytes(view[:count])
            if engine.failure is not None:
                raise engine.failure
            if engine.closed:
                return b""
            data = await self.socket.recv(READ_SIZE)
            if not data:
                return b""
            engine.feed(data)

    def detach(self) -> tuple[socket.socket, TlsEngine]:
        """Give the socket away, non-blocking and unknown to trio, with the engine that goes with it."""
        self._buffer = bytearray()  # whoever waits for the session to end may keep this object for days
        return detach(self.socket), self.engine

    def close(self) -> None:
        """Close the socket; no close_notify."""
        self.socket.close()


def detach(sock: trio.socket.SocketType) -> socket.socket:
    """Take a socket out of trio's hands: nobody waits on its descriptor any more, and a thread may own it now."""
    trio.lowlevel.notify_closing(sock)
    plain = socket.socket(fileno=sock.detach())
    plain.setblocking(False)
    return plain
