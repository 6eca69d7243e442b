"""A session in which a codec decides what passes: it drops, holds back, changes and puts in between.

Theory of operation
===================
A `TranslatedPair` gives every plain byte that it reads to a `Codec`, and sends what that wants to have sent: mostly the
very same bytes. All else is `Pair`'s: turns, back-pressure, ends and deadlines. What differs:

* **Either read may cause bytes for both ends**: a request can be answered here. Where the end that it is for has
  had our FIN already, they are dropped.
* **Pieces.** A turn's pieces for one end go in one call: encrypted one after the other into one run of ciphertext, or
  gathered by the kernel where they are large, so that a range of the shared buffer is not copied because something
  small goes before it. What the kernel does not take is held: a piece of the codec's own as it is (a response that was
  rewritten can have 32 MiB), ranges of the shared buffer as a copy.
* **Memory.** While something is held for an end, its peer is not read, as ever. What an end brings about for itself,
  the answers to its own requests, stops the reading of that end at `_MOST_HELD`.
* **`client_may_send`** false stops the reading of the client, until the upstream has said what makes it true. An
  upstream that has ended will not; then the client is read again, because its own end has to be seen.
* **A refusal**, an MtlskitError of the codec's, is the session's end, at once. What is held is lost: the bytes that are
  missing behind it would follow in no case. The upstream gets a close_notify and a FIN if nothing is in their way. The
  client's connection is reset where `RelayPolicy.ragged_end_resets` says that a FIN would pass for the proper end of a
  stream, and closed where the protocol above knows by itself that something is missing. Both tell a client that waits
  for an answer at once.
* `bytes_up` and `bytes_down` count what the client and the upstream sent, not what the codec made of it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from mtlskit.errors import MtlskitError
from mtlskit.net.relay.pair import Buffers, End, Pair
from mtlskit.net.relay.terms import Codec, Ending, HandOver
from mtlskit.net.relay.watcher import READ

__all__ = ["TranslatedPair"]

_Buffer: TypeAlias = bytes | bytearray | memoryview

_NOTHING: Final = memoryview(b"")

_CAN_GATHER: Final = hasattr(socket.socket, "sendmsg")
"""Windows cannot."""

_WORTH_GATHERING: Final = 16 * 1024
"""Bytes below which to join the pieces is no dearer than to have the kernel gather them."""

_MOST_GATHERED: Final = 64
"""Pieces that the kernel is given at once. It refuses more than IOV_MAX, which is 16 at least and 1024 with Linux."""


class TranslatedPair(Pair):
    """A `Pair` with a codec. Every method is called by the relay's thread."""

    __slots__ = ("_codec", "_first", "_may_send")

    def __init__(self, handover: HandOver, codec: Codec, on_finished: Callable[[Pair], None]) -> None:
        super().__init__(handover, on_finished)
        self._codec = codec
        self._may_send = codec.client_may_send
        self._first = handover.to_client
        """What was read from the upstream before the hand-over: for the codec, not for the client."""
        self.client.held = _NOTHING
        self.bytes_down = 0

    def interest(self, end: End) -> int:
        """The events to watch on `end`."""
        mask = super().interest(end)
        if end is self.client and not self._may_send and not self.upstream.eof:
            mask &= ~READ
        return mask

    def start(self, buffers: Buffers) -> None:
        """Give the codec what was handed over, and then go on as every session."""
        first, self._first = self._first, b""
        if first:
            self._forward(self.upstream, memoryview(first))
        if not self.finished:
            super().start(buffers)

    def _forward(self, source: End, plain: memoryview) -> None:
        client, upstream, codec = self.client, self.upstream, self._codec
        if source.peer.deaf:
            return
        try:
            if source is client:
                self.bytes_up += len(plain)
                moved = codec.receive_from_client(plain)
            else:
                self.bytes_down += len(plain)
                moved = codec.receive_from_server(plain)
        except MtlskitError as exc:
            self._refuse(exc)
            return
        if moved.to_server:
            self._deliver(upstream, moved.to_server, plain.obj)
        if moved.to_client:
            self._deliver(client, moved.to_client, plain.obj)
        may_send = codec.client_may_send
        if may_send != self._may_send:
            self._may_send = may_send
            self.changed = True

    def _deliver(self, sink: End, pieces: Sequence[_Buffer], lent: object) -> None:
        """Send `pieces`, of which some may be ranges of `lent`."""
        if sink.deaf or sink.notified or sink.write_closed:
            return
        engine = sink.engine
        if engine is not None:
            if engine.failure is None:  # it has just been read; nothing can be written either
                for piece in pieces:
                    engine.write(memoryview(piece))
                self._send(sink, engine.take())
        elif sink.held:
            sink.held = memoryview(b"".join((sink.held, *pieces)))
            self.changed = True
        else:
            self._deliver_plain(sink, pieces, lent)

    def _deliver_plain(self, sink: End, pieces: Sequence[_Buffer], lent: object) -> None:
        """Send to a socket without TLS, for which nothing is held."""
        sock = sink.sock
        try:
            if len(pieces) > 1 and not _to_be_gathered(pieces):
                pieces = (b"".join(pieces),)
            sent = sock.send(pieces[0]) if len(pieces) == 1 else sock.sendmsg(pieces)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self._write_failed(sink, exc)
            return
        if len(pieces) == 1 and sent == len(pieces[0]):
            return  # nearly always
        sink.held = _rest(pieces, sent, lent)
        self.changed = True

    def _refuse(self, exc: MtlskitError) -> None:
        """The end. Both ends count as read to theirs, so nothing that this turn still brings can change the reason."""
        self.error = exc
        self.ending = Ending.REFUSED
        self.client.eof = self.upstream.eof = True
        self._close_write(self.upstream)
        self._finish(Ending.REFUSED)

    def _source_failed(self, end: End, exc: ssl.SSLError) -> None:
        if not self.finished:  # an alert behind what was refused explains nothing
            super()._source_failed(end, exc)


def _to_be_gathered(pieces: Sequence[_Buffer]) -> bool:
    return _CAN_GATHER and len(pieces) <= _MOST_GATHERED and sum(map(len, pieces)) >= _WORTH_GATHERING


def _rest(pieces: Sequence[_Buffer], sent: int, lent: object) -> memoryview:
    """What is left of `pieces` after `sent` bytes, in memory that nobody else writes to."""
    rest = []
    for piece in pieces:
        if sent < len(piece):
            rest.append(memoryview(piece)[sent:])
            sent = 0
        else:
            sent -= len(piece)
    if len(rest) == 1 and rest[0].obj is not lent:
        return rest[0]
    return memoryview(b"".join(rest))
