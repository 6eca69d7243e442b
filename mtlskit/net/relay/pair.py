"""One established session: a plain client, an upstream (TLS or plain), and the bytes between them.

Theory of operation
===================
A `Pair` is told which of its two ends may be read or written, moves bytes, and says through `interest` what it waits
for next. It never blocks and never looks at a clock: the caller hands in the shared buffers and the time.

Each direction goes from a *source* end to the other, its *sink*:

* One turn reads at most one buffer from the source, and sends it with one call. What the sink's kernel does not take
  is **held**, as owned bytes, and until it has gone the source is not read: memory per session is bounded by one
  buffer a direction, and a slow reader slows the writer down instead of filling our memory.
* A short read has emptied the socket, so there is no second read that would only earn "would block".
* The **end of a source** closes the sink's direction once everything held has gone: a close_notify where the sink
  speaks TLS, then a FIN. The other direction goes on (RFC 9293 section 3.6, RFC 8446 section 6.1) until it ends too
  or stays silent for `RelayPolicy.linger` seconds. A protocol in which the server's end is everybody's end says so
  with `upstream_end_is_final`; the client then gets all that was sent, a FIN, and a moment in which what it still
  sends is read and dropped, because closing a socket with unread bytes resets the connection and can destroy the last
  message on its way to the client.
* A **failed write** to the upstream does not end the session at once: the reason (a TLS alert, PostgreSQL's last
  words) is often waiting to be read. The source is left alone, and the upstream is read until it ends or the moment
  has passed.
* An upstream that ends **without a close_notify** may have been cut off by somebody on the way. Where the protocol
  above cannot tell (`ragged_end_resets`), the client's connection is reset instead of ended.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from selectors import EVENT_READ, EVENT_WRITE

from mtlskit.net.tls import TlsEngine

__all__ = ["BUFFER_SIZE", "Buffers", "End", "Ending", "HandOver", "Outcome", "Pair", "RelayPolicy"]

BUFFER_SIZE = 256 * 1024
"""Bytes read in one turn: sixteen full TLS records. Larger buys no throughput, and one turn of a bulk transfer is
what an interactive session next to it has to wait for."""

_LAST_WORDS = 2.0
"""Seconds for reading what remains after a write has failed, and for dropping what a client still sends at the end."""

_ZERO_LINGER = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)
"""`struct linger` with a time of zero: close() sends RST instead of FIN."""


class Ending(StrEnum):
    """Why a session ended."""

    CLIENT_CLOSED = "client_closed"
    UPSTREAM_CLOSED = "upstream_closed"
    CLIENT_LOST = "client_lost"
    UPSTREAM_LOST = "upstream_lost"
    UPSTREAM_ALERT = "upstream_alert"
    SILENT = "silent"
    """One side had closed, and the other said nothing for the linger time."""
    ABORTED = "aborted"
    """We ended it: a drain ran out, or the proxy stopped."""
    INTERNAL = "internal"
    """A fault of ours."""


@dataclass(frozen=True)
class Outcome:
    """How a session ended, and how many plain bytes went each way."""

    ending: Ending
    bytes_up: int
    bytes_down: int
    error: Exception | None = None
    clean: bool = True
    """False where the upstream ended without a close_notify."""


@dataclass(frozen=True)
class RelayPolicy:
    """The rules of the protocol above about ends. `linger` in seconds."""

    linger: float = 300.0
    upstream_end_is_final: bool = False
    ragged_end_resets: bool = False


@dataclass(frozen=True)
class HandOver:
    """What a task gives to the relay. It is a move: nobody else touches the sockets from now on.

    Both sockets are non-blocking. `to_client` are bytes read from the upstream and not yet forwarded; the engine's
    `unsent` is its counterpart in the other direction.
    """

    client: socket.socket
    upstream: socket.socket
    engine: TlsEngine | None = None
    to_client: bytes = b""
    policy: RelayPolicy = RelayPolicy()


class Buffers:
    """The two buffers that all sessions of a thread share. Nothing stays in them between two turns."""

    __slots__ = ("clear", "raw")

    def __init__(self, size: int = BUFFER_SIZE) -> None:
        self.raw = memoryview(bytearray(size))
        # A read can complete a record whose first part (up to 16 KiB) came with the one before, so decrypting one
        # buffer of ciphertext needs a little more room than that, and leaves nothing inside OpenSSL.
        self.clear = memoryview(bytearray(size + 32 * 1024))


class End:
    """One socket of a session, seen by the relay."""

    __slots__ = ("deaf", "engine", "eof", "held", "mask", "pair", "peer", "sock", "write_closed")

    def __init__(self, pair: Pair, sock: socket.socket, engine: TlsEngine | None, held: bytes):
        self.pair = pair
        self.sock = sock
        self.engine = engine
        self.held: bytes | memoryview = held
        """Bytes on their way to this socket that its kernel has not taken."""
        self.mask = 0
        """The events that the selector watches for this socket."""
        self.eof = False
        """Nothing more will be read from this socket."""
        self.deaf = False
        """Nothing more can be written to this socket: what comes for it is dropped."""
        self.write_closed = False
        """We have ended our direction towards this socket."""
        self.peer: End = self


class Pair:
    """The state of one session. Every method is called by the relay's thread."""

    __slots__ = (
        "bytes_down",
        "bytes_up",
        "changed",
        "client",
        "deadline",
        "ending",
        "error",
        "finished",
        "on_finished",
        "policy",
        "reset_client",
        "upstream",
    )

    def __init__(self, handover: HandOver, on_finished: Callable[[], None]):
        engine = handover.engine
        self.client = End(self, handover.client, None, handover.to_client)
        self.upstream = End(self, handover.upstream, engine, b"" if engine is None else engine.unsent)
        self.client.peer = self.upstream
        self.upstream.peer = self.client
        self.policy = handover.policy
        self.on_finished = on_finished
        self.bytes_up = 0
        self.bytes_down = 0
        self.changed = True
        """`interest` may have changed; set at the rare turns that change it, so that the steady state asks nothing."""
        self.deadline: float | None = None
        self.ending: Ending | None = None
        """Why the session is ending, once it is known; the first reason stands."""
        self.error: Exception | None = None
        self.finished = False
        self.reset_client = False

    # What the thread asks.

    def interest(self, end: End) -> int:
        """The selector events to watch on `end`."""
        mask = EVENT_WRITE if end.held else 0
        if not end.eof and not end.peer.held:
            mask |= EVENT_READ
        return mask

    @property
    def outcome(self) -> Outcome:
        """How it ended; meaningful once `finished`."""
        engine = self.upstream.engine
        clean = engine is None or engine.closed
        return Outcome(self.ending or Ending.INTERNAL, self.bytes_up, self.bytes_down, self.error, clean)

    # What the thread tells.

    def start(self, buffers: Buffers, now: float) -> None:
        """Send what was handed over, and forward what the engine holds: a selector does not know of it."""
        for end in (self.client, self.upstream):
            if end.held:
                self.on_writable(end, now)
        if self.upstream.engine is not None and not self.finished:
            self._decrypt(self.upstream, buffers.clear, now)

    def on_readable(self, end: End, buffers: Buffers, now: float) -> None:
        """Move one buffer from `end` to its peer."""
        try:
            count = end.sock.recv_into(buffers.raw)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._lost(end, exc, now)
            return
        if not count:
            self._source_ended(end, buffers.clear, now)
            return
        self._moved(now)
        chunk = buffers.raw[:count]
        if end.engine is None:
            self._forward(end, chunk, now)
        else:
            end.engine.feed(chunk)
            self._decrypt(end, buffers.clear, now)

    def on_writable(self, end: End, now: float) -> None:
        """Send what is held for `end`."""
        try:
            sent = end.sock.send(end.held)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as exc:
            self._write_failed(end, exc, now)
            return
        end.held = end.held[sent:]
        self._moved(now)
        if not end.held:
            self.changed = True
            if end.peer.eof:
                self._close_write(end, now)

    def on_deadline(self) -> None:
        """The time after an ending has run out."""
        if not self.upstream.deaf:
            self.ending = Ending.SILENT
        self._finish(Ending.UPSTREAM_LOST)

    def abort(self) -> None:
        """End the session now."""
        self._finish(Ending.ABORTED)

    def fail(self, exc: Exception) -> None:
        """A fault of ours: end this session and no other."""
        self.error = exc
        self.ending = Ending.INTERNAL
        self._finish(Ending.INTERNAL)

    def close(self) -> None:
        """Close both sockets; the selector must have forgotten them."""
        if self.reset_client:
            with suppress(OSError):
                self.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ZERO_LINGER)
        self.client.sock.close()
        self.upstream.sock.close()

    # The directions.

    def _decrypt(self, end: End, clear: memoryview, now: float) -> None:
        engine = end.engine
        assert engine is not None  # noqa: S101 - for the type checker; both callers have looked
        try:
            count = engine.read_into(clear)
        except ssl.SSLError as exc:
            self._source_failed(end, exc, now)
            return
        if engine.has_output:
            # Reading may call for an answer: TLS 1.3 key updates (RFC 8446 section 4.6.3).
            self._send(end, engine.take(), now)
        if count:
            self._forward(end, clear[:count], now)
        if engine.closed:
            self._source_ended(end, clear, now)

    def _forward(self, source: End, plain: memoryview, now: float) -> None:
        if source is self.client:
            self.bytes_up += len(plain)
        else:
            self.bytes_down += len(plain)
        sink = source.peer
        if sink.deaf:
            return
        if sink.engine is None:
            self._send(sink, plain, now)
        else:
            sink.engine.write(plain)
            self._send(sink, sink.engine.take(), now)

    def _send(self, sink: End, data: bytes | memoryview, now: float) -> None:
        if sink.held:
            # Only hand-over bytes and key updates find something held: a source is not read while its sink holds.
            sink.held = bytes(sink.held) + data
            return
        try:
            sent = sink.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as exc:
            self._write_failed(sink, exc, now)
            return
        if sent < len(data):
            # `data` may be the shared buffer, which the next turn overwrites: hold a copy.
            sink.held = bytes(data[sent:]) if sink.engine is None else memoryview(data)[sent:]
            self.changed = True

    # The endings.

    def _source_ended(self, end: End, clear: memoryview, now: float) -> None:
        if end.eof:
            return
        engine = end.engine
        if engine is not None and not engine.closed:
            # EOF without close_notify. An alert that came with earlier bytes is the better reason.
            try:
                engine.read_into(clear)
            except ssl.SSLError as exc:
                self._source_failed(end, exc, now)
                return
            self.reset_client = self.policy.ragged_end_resets
        if end is self.client:
            ending = Ending.CLIENT_CLOSED
        else:
            ending = Ending.UPSTREAM_LOST if end.deaf else Ending.UPSTREAM_CLOSED
        self._direction_over(end, ending, now)

    def _source_failed(self, end: End, exc: ssl.SSLError, now: float) -> None:
        self.error = self.error or exc
        self.reset_client = self.policy.ragged_end_resets
        end.deaf = True
        self._direction_over(end, Ending.UPSTREAM_ALERT, now)

    def _direction_over(self, source: End, ending: Ending, now: float) -> None:
        source.eof = True
        self.changed = True
        self.ending = self.ending or ending
        if source is self.upstream and self.policy.upstream_end_is_final:
            source.deaf = True
        if source.deaf:
            source.held = b""
        self.deadline = now + self.policy.linger
        if not source.peer.held:
            self._close_write(source.peer, now)

    def _close_write(self, end: End, now: float) -> None:
        """End our direction towards `end`; nothing is held for it."""
        if not end.write_closed:
            end.write_closed = True
            if end.engine is not None and not end.deaf:
                end.engine.close_write()
                self._send(end, end.engine.take(), now)
                if end.held:
                    end.write_closed = False  # the rest of the close_notify goes first; then we come here again
                    return
            if end is self.client and self.reset_client:
                self._finish(Ending.UPSTREAM_LOST)
                return
            # The raw socket: the engine knows nothing of it, so nothing can go out unencrypted afterwards.
            with suppress(OSError):
                end.sock.shutdown(socket.SHUT_WR)
        if end.eof:
            self._finish(Ending.CLIENT_CLOSED)
        elif end.peer.deaf:
            self.deadline = now + _LAST_WORDS

    def _write_failed(self, sink: End, exc: OSError, now: float) -> None:
        sink.held = b""
        sink.deaf = True
        self.changed = True
        self.error = self.error or exc
        if sink is self.client:
            self._finish(Ending.CLIENT_LOST)
        elif sink.eof:
            self._finish(Ending.UPSTREAM_LOST)
        else:
            self.deadline = now + _LAST_WORDS

    def _lost(self, end: End, exc: OSError, now: float) -> None:
        self.error = self.error or exc
        if end is self.client:
            self._finish(Ending.CLIENT_LOST)
        else:
            self.reset_client = self.policy.ragged_end_resets
            end.deaf = True
            self._direction_over(end, Ending.UPSTREAM_LOST, now)

    def _moved(self, now: float) -> None:
        # Bytes that move put off the end of a half-closed session, but not the end of one whose upstream is gone.
        if self.deadline is not None and (self.client.held or not self.upstream.deaf):
            self.deadline = now + self.policy.linger

    def _finish(self, ending: Ending) -> None:
        self.ending = self.ending or ending
        self.finished = True
