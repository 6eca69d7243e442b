"""One established session: a plain client, an upstream (TLS or plain), and the bytes between them.

Theory of operation
===================
A `Pair` is told which of its two ends may be read or written, moves bytes, and says through `interest` what it waits
for next. It never blocks; the caller hands in the shared buffers.

Each direction goes from a *source* end to the other, its *sink*:

* One turn reads at most one buffer from the source, and sends it with one call. What the sink's kernel does not take
  is **held**, as owned bytes, and until it has gone the source is not read: memory per session is bounded by one
  buffer a direction, and a slow reader slows the writer down instead of filling our memory.
* A short read has emptied the socket, so there is no second read that would only earn "would block".
* The **end of a source** closes the sink's direction once everything held has gone: a close_notify where the sink
  speaks TLS, then a FIN. The other direction goes on (RFC 9293 section 3.6, RFC 8446 section 6.1) until it ends too
  or nothing moves for `RelayPolicy.linger` seconds. A session is over when both sources have ended *and* nothing is
  held for either sink.
* A **failed write** to the upstream does not end the session at once: the reason (a TLS alert, PostgreSQL's last
  words) is often waiting to be read. The client is left alone, and the upstream is read until it ends.
* An upstream is **gone** when it has ended and cannot be written either: it failed, or the protocol above says that
  the server's end is everybody's end (`upstream_end_is_final`). The client then gets all that was sent and a FIN, and
  what it still sends is read and dropped for a while, because closing a socket with unread bytes resets the
  connection and can destroy the last message on its way to the client.
* An upstream that ends **without a close_notify** may have been cut off by somebody on the way. Where the protocol
  above cannot tell (`ragged_end_resets`), the client's connection is reset instead of ended; so it is when the
  session is aborted, which cuts the stream off just the same.

Every state after the first end has a deadline (`_put_off`), and no peer can put it off for ever by sending what is
only dropped.
"""

from __future__ import annotations

import socket
import ssl
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from mtlskit.net.relay.terms import Ending, HandOver, Outcome
from mtlskit.net.relay.watcher import READ, WRITE
from mtlskit.net.tls import TlsEngine

__all__ = ["BUFFER_SIZE", "PART_SIZE", "Buffers", "End", "Pair"]

BUFFER_SIZE = 256 * 1024
"""Bytes read in one turn: sixteen full TLS records. Larger buys no throughput."""

PART_SIZE = 64 * 1024
"""Bytes read in one turn from a bulk transfer while interactive sessions are about: one turn of it is what they have to
wait for. It costs the transfer a fifth to a half more CPU for each byte."""

_MOST_HELD = 2 * BUFFER_SIZE
"""An end with more than this held for it is not read. One buffer of plain text never gets there; an upstream does that
asks for key updates (RFC 8446 section 4.6.3) and does not read the answers, which would fill our memory."""

_LAST_WORDS = 2.0
"""Seconds of silence after which a client that has got everything and its FIN is closed, and for which an upstream
that cannot be written is read."""

_ZERO_LINGER = struct.pack("HH" if sys.platform == "win32" else "ii", 1, 0)
"""`struct linger` with a time of zero: close() sends RST instead of FIN."""

_NOTHING = memoryview(b"")


class Buffers:
    """The two buffers that all sessions of a thread share. Nothing stays in them between two turns."""

    __slots__ = ("_whole", "clear", "greedy", "raw")

    def __init__(self, size: int = BUFFER_SIZE) -> None:
        self._whole = memoryview(bytearray(size))
        self.raw = self._whole
        self.greedy = False
        """Some session has filled a part of a buffer at least. Set by the sessions; `Fairness` takes it back."""
        # A read can complete a record whose first part (up to 16 KiB) came with the one before, so decrypting one
        # buffer of ciphertext needs a little more room than that to be done in one go.
        self.clear = memoryview(bytearray(size + 32 * 1024))

    def share(self, parts: bool) -> None:
        """Read parts of a buffer at once from now on, or whole ones."""
        self.raw = self._whole[:PART_SIZE] if parts else self._whole


class End:
    """One socket of a session, seen by the relay."""

    __slots__ = (
        "deaf",
        "engine",
        "eof",
        "fd",
        "held",
        "mask",
        "notified",
        "pair",
        "peer",
        "resting",
        "size",
        "sock",
        "write_closed",
    )

    def __init__(self, pair: Pair, sock: socket.socket, engine: TlsEngine | None, held: bytes):
        self.pair = pair
        self.sock = sock
        self.fd = sock.fileno()
        self.engine = engine
        self.held = memoryview(held) if held else _NOTHING
        """Bytes on their way to this socket that its kernel has not taken. Nobody else writes to this memory."""
        self.size = 0
        """Bytes of the last read, which tell a bulk transfer from a conversation (`mtlskit.net.relay.fairness`)."""
        self.resting = False
        """Not to be read for now: others need the cores."""
        self.mask = 0
        """The events that are watched for this socket."""
        self.eof = False
        """Nothing more will be read from this socket."""
        self.deaf = False
        """Nothing more can be written to this socket: what comes for it is dropped."""
        self.notified = False
        """A close_notify has been made for this socket, and nothing may follow it."""
        self.write_closed = False
        """We have ended our direction towards this socket: all that was for it has gone, and a FIN."""
        self.peer: End = self


class Pair:
    """The state of one session. Every method is called by the relay's thread."""

    __slots__ = (
        "bulk_until",
        "bytes_down",
        "bytes_up",
        "changed",
        "client",
        "deadline",
        "ending",
        "error",
        "finished",
        "last_call",
        "on_finished",
        "policy",
        "truncated",
        "upstream",
    )

    def __init__(self, handover: HandOver, on_finished: Callable[[Pair], None]):
        engine = handover.engine
        self.client = End(self, handover.client, None, handover.to_client)
        self.upstream = End(self, handover.upstream, engine, b"" if engine is None else engine.unsent)
        self.client.peer = self.upstream
        self.upstream.peer = self.client
        self.policy = handover.policy
        self.on_finished = on_finished
        self.bytes_up = 0
        self.bytes_down = len(handover.to_client)
        self.bulk_until = 0.0
        """Until when this counts as a bulk transfer, even with short reads in between."""
        self.changed = True
        """`interest` may have changed; set at the rare turns that change it, so that the steady state asks nothing."""
        self.deadline: float | None = None
        self.last_call: float | None = None
        """When a client that is told that the upstream is gone, and goes on sending, is closed nevertheless."""
        self.ending: Ending | None = None
        self.error: Exception | None = None
        self.finished = False
        self.truncated = False
        """The upstream has ended in a way that leaves open whether its bytes were all of them."""

    # What the thread asks.

    def interest(self, end: End) -> int:
        """The events to watch on `end`."""
        peer = end.peer
        mask = WRITE if end.held else 0
        if end.eof or end.resting:
            return mask
        # A peer that is deaf and has not ended may still say why: until then, nothing is read only to be dropped.
        if not peer.held and (not peer.deaf or peer.eof) and len(end.held) <= _MOST_HELD:
            mask |= READ
        return mask

    @property
    def outcome(self) -> Outcome:
        """How it ended; meaningful once `finished`."""
        engine = self.upstream.engine
        clean = engine is None or engine.closed
        return Outcome(self.ending or Ending.INTERNAL, self.bytes_up, self.bytes_down, self.error, clean)

    # What the thread tells.

    def start(self, buffers: Buffers) -> None:
        """Send what was handed over, and forward what the engine holds: a selector does not know of it."""
        for end in (self.client, self.upstream):
            if end.held:
                self.on_writable(end)
        engine, clear = self.upstream.engine, buffers.clear
        if engine is not None and not self.finished:
            self._pass_on(self.upstream, engine, clear, engine.read_into(clear))

    def on_readable(self, end: End, buffers: Buffers) -> None:
        """Move one buffer from `end` to its peer."""
        try:
            count = end.sock.recv_into(buffers.raw)
        except BlockingIOError:
            return
        except OSError as exc:
            self._lost(end, exc)
            return
        if not count:
            self._source_ended(end)
            return
        end.size = count
        if count >= PART_SIZE:
            buffers.greedy = True
        if self.deadline is not None and not (end.peer.deaf and end.held):
            # Bytes that are dropped do not help a client that does not take what is held for it.
            self._put_off()
        engine = end.engine
        if engine is None:
            self._forward(end, buffers.raw[:count])
        else:
            clear = buffers.clear
            self._pass_on(end, engine, clear, engine.decrypt(buffers.raw[:count], clear))

    def on_writable(self, end: End) -> None:
        """Send what is held for `end`."""
        try:
            sent = end.sock.send(end.held)
        except BlockingIOError:
            return
        except OSError as exc:
            self._write_failed(end, exc)
            return
        end.held = end.held[sent:]
        if self.deadline is not None:
            self._put_off()
        if not end.held:
            self.changed = True
            if end.peer.eof:
                self._close_write(end)

    def on_deadline(self) -> None:
        """The time after an ending has run out."""
        if self.client.held or not self.upstream.deaf:
            self.ending = Ending.SILENT
        self._finish(Ending.UPSTREAM_LOST)

    def abort(self) -> None:
        """End the session now."""
        self.ending = Ending.ABORTED
        self._finish(Ending.ABORTED)

    def fail(self, exc: Exception) -> None:
        """A fault of ours: end this session and no other."""
        self.error = exc
        self.ending = Ending.INTERNAL
        self._finish(Ending.INTERNAL)

    def close(self) -> None:
        """Close both sockets; the selector must have forgotten them."""
        if self.policy.ragged_end_resets and not self.client.write_closed:
            with suppress(OSError):
                self.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ZERO_LINGER)
        self.client.sock.close()
        self.upstream.sock.close()

    # The directions.

    def _pass_on(self, end: End, engine: TlsEngine, clear: memoryview, count: int) -> None:
        """Forward the first `count` bytes of `clear` and whatever else the engine holds; then what it has to say."""
        while count:
            self._forward(end, clear[:count])
            if count < len(clear) or self.finished:
                break
            count = engine.read_into(clear)
        if engine.outgoing.pending:
            # Reading may call for an answer: TLS 1.3 key updates (RFC 8446 section 4.6.3), alerts.
            answer = engine.take()
            if not end.notified:
                self._send(end, answer)
        if engine.failure is not None:
            self._source_failed(end, engine.failure)
        elif engine.closed:
            self._source_ended(end)

    def _forward(self, source: End, plain: memoryview) -> None:
        sink = source.peer
        if sink.deaf:
            return
        if source is self.client:
            self.bytes_up += len(plain)
        else:
            self.bytes_down += len(plain)
        engine = sink.engine
        self._send(sink, plain if engine is None else engine.encrypt(plain))

    def _send(self, sink: End, data: bytes | memoryview) -> None:
        if sink.deaf:
            return
        if sink.held:
            # Only hand-over bytes and key updates find something held: a source is not read while its sink holds.
            sink.held = memoryview(bytes(sink.held) + data)
            self.changed = True
            return
        try:
            sent = sink.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self._write_failed(sink, exc)
            return
        if sent < len(data):
            # Plain `data` is the shared buffer, which the next turn overwrites: hold a copy. Ciphertext is our own.
            rest = memoryview(data)[sent:]
            sink.held = memoryview(bytes(rest)) if sink.engine is None else rest
            self.changed = True

    # The endings.

    def _source_ended(self, end: End) -> None:
        if end.eof:
            return
        if end is self.upstream:
            said_so = end.engine is not None and end.engine.closed
            self.truncated = end.engine is not None and not said_so
            lost = end.deaf and not said_so
            self.ending = self.ending or (Ending.UPSTREAM_LOST if lost else Ending.UPSTREAM_CLOSED)
        else:
            self.ending = self.ending or Ending.CLIENT_CLOSED
        self._direction_over(end)

    def _source_failed(self, end: End, exc: ssl.SSLError) -> None:
        # Both tell more than the broken pipe, or the client's good-bye, that may have come before.
        self.error = exc
        self.ending = Ending.UPSTREAM_ALERT
        self._upstream_gone(end)

    def _lost(self, end: End, exc: OSError) -> None:
        self.error = self.error or exc
        if end is self.client:
            self._finish(Ending.CLIENT_LOST)
        else:
            self.ending = self.ending or Ending.UPSTREAM_LOST
            self._upstream_gone(end)

    def _upstream_gone(self, end: End) -> None:
        self.truncated = True
        end.deaf = True
        self._direction_over(end)

    def _direction_over(self, source: End) -> None:
        source.eof = True
        self.changed = True
        if source is self.upstream and self.policy.upstream_end_is_final:
            source.deaf = True
        if source.deaf:
            source.held = _NOTHING
        self._put_off()
        if not source.peer.held:
            self._close_write(source.peer)

    def _close_write(self, end: End) -> None:
        """End our direction towards `end`, whose peer has ended and for which nothing is held."""
        if end.engine is not None and not end.notified:
            end.notified = True
            end.engine.close_write()
            self._send(end, end.engine.take())
            if end.held:
                return  # the rest of the close_notify goes first; `on_writable` comes back here
        if end is self.client and self.truncated and self.policy.ragged_end_resets:
            self._finish(Ending.UPSTREAM_LOST)
            return
        end.write_closed = True
        # The raw socket: the engine knows nothing of it, so nothing can go out unencrypted afterwards.
        with suppress(OSError):
            end.sock.shutdown(socket.SHUT_WR)
        self._put_off()
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        client, upstream = self.client, self.upstream
        if client.eof and upstream.eof and not client.held and not upstream.held:
            self._finish(Ending.CLIENT_CLOSED)

    def _write_failed(self, sink: End, exc: OSError) -> None:
        sink.held = _NOTHING
        sink.deaf = True
        self.changed = True
        self.error = self.error or exc
        if sink is self.client:
            self._finish(Ending.CLIENT_LOST)
        else:
            self._put_off()
            self._finish_if_over()

    def _put_off(self) -> None:
        """Something has moved, or ended: set the time at which the session ends if nothing does any more."""
        linger = self.policy.linger
        now = time.monotonic()
        deadline = now + linger
        if self.upstream.deaf and not self.client.held:
            deadline = now + min(_LAST_WORDS, linger)
            if self.client.write_closed:
                # All that moves now is what we drop.
                if self.last_call is None:
                    self.last_call = now + linger
                deadline = min(deadline, self.last_call)
        self.deadline = deadline

    def _finish(self, ending: Ending) -> None:
        self.ending = self.ending or ending
        self.finished = True
