"""TLS on a trio socket, over a non-blocking `ssl.SSLSocket`.

Why not `trio.SSLStream`: when a handshake fails, OpenSSL has an alert to send (`certificate_revoked`, `unknown_ca` …),
and `SSLStream` raises before it takes it from its memory buffer. The peer then sees a bare end of file. A gateway that
stands in for a real server has to send that alert, and an `SSLSocket` writes it to the socket itself.

Closing is as polite as it can be within a second: close_notify, then the end of our side, then what the peer is still
sending is read and thrown away. Closing with unread data would make the kernel send a reset, which can overtake the
last alert or ErrorResponse on its way.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

import trio

__all__ = ["READ_SIZE", "TlsStream", "close_politely", "handshake_reason"]

READ_SIZE: Final = 65_536
"""Bytes of one read: four full TLS records."""
_LINGER: Final = 1.0
"""Seconds that a closing connection may take."""

T = TypeVar("T")


class TlsStream(trio.abc.Stream):
    """A TLS connection. At most one task may send while at most one other receives."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self._tls = tls
        self._closed = False
        # A read may want to write (a key update), while the sending task waits for just that. trio lets one task wait
        # for each kind of readiness, so waiting takes turns; both wake on the same fact.
        self._readable = trio.Lock()
        self._writable = trio.Lock()

    @classmethod
    def wrap(
        cls, stream: trio.SocketStream, context: ssl.SSLContext, *, server_hostname: str | None = None
    ) -> TlsStream:
        """Takes over the socket of `stream`, which must not be used any more. With a `server_hostname`: as a client."""
        raw = socket.socket(fileno=stream.socket.detach())
        raw.setblocking(False)
        try:
            tls = context.wrap_socket(
                raw,
                server_side=server_hostname is None,
                server_hostname=server_hostname,
                do_handshake_on_connect=False,
            )
        except OSError as exc:  # the peer has gone already
            raw.close()
            raise trio.BrokenResourceError(str(exc)) from exc
        return cls(tls)

    async def handshake(self) -> None:
        """Does the handshake. Raises ssl.SSLError after the alert has been sent, OSError for a broken connection."""
        await self._retry(self._tls.do_handshake)

    @property
    def socket(self) -> ssl.SSLSocket:
        """For its getters (certificate, version, ALPN)."""
        return self._tls

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            return await self._retry(lambda: self._tls.recv(max_bytes or READ_SIZE))
        except (ssl.SSLError, OSError) as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        rest = memoryview(data)
        try:
            while rest:
                # After WANT_WRITE OpenSSL must be given the same bytes again; `part` stays the same until it is sent.
                part = rest[:READ_SIZE]
                sent = await self._retry(lambda part=part: self._tls.send(part))  # type: ignore[misc]  # bound default
                rest = rest[sent:]
        except (ssl.SSLError, OSError) as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def wait_send_all_might_not_block(self) -> None:
        async with self._writable:
            await trio.lowlevel.wait_writable(self._tls)

    async def aclose(self) -> None:
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        try:
            # One call sends our close_notify; that the peer's has not come yet (SSLError) does not matter.
            with suppress(ssl.SSLError, OSError, ValueError):
                self._tls.unwrap()
            with suppress(OSError):
                self._tls.shutdown(socket.SHUT_WR)  # from here on the object reads raw bytes, which suits the drain
            with trio.move_on_after(_LINGER), suppress(OSError):
                while await self._drain():
                    pass
        finally:
            trio.lowlevel.notify_closing(self._tls)
            self._tls.close()

    async def _drain(self) -> bool:
        await trio.lowlevel.wait_readable(self._tls)
        try:
            return bool(self._tls.recv(READ_SIZE))
        except BlockingIOError:
            return True

    async def _retry(self, call: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this TLS connection is closed")
            try:
                done = call()
            except ssl.SSLWantReadError:
                async with self._readable:
                    await trio.lowlevel.wait_readable(self._tls)
            except ssl.SSLWantWriteError:
                async with self._writable:
                    await trio.lowlevel.wait_writable(self._tls)
            else:
                await trio.lowlevel.cancel_shielded_checkpoint()
                return done


async def close_politely(stream: trio.SocketStream) -> None:
    """Closes a plain connection so that the last bytes sent arrive: see the top of the module."""
    try:
        with trio.move_on_after(_LINGER), suppress(trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            await stream.send_eof()
            while await stream.receive_some(READ_SIZE):
                pass
    finally:
        await trio.aclose_forcefully(stream)


def handshake_reason(error: ssl.SSLError) -> str:
    """Why a client's handshake came to nothing, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "it has no client certificate"
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):  # which of them depends on Python's version
        return "it broke off the TLS handshake"
    return f"the TLS handshake failed: {error.reason or error}"
