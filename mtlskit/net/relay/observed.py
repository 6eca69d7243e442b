"""A session that somebody looks into while the relay moves it, and that can be ended where nothing is in flight.

Theory of operation
===================
A `Pair` knows no protocol. An `ObservedPair` shows every plain byte that it reads to an `Observer` before it forwards
it. A session that has no observer stays a `Pair`, which knows nothing of all this and pays nothing for it.

**Ending quietly.** A session may be ended while

* the observer says that it is quiet,
* everything has been delivered to both kernels (nothing is held for either end), and
* nothing is waiting to be read on either socket: what a peer has sent and we have not seen yet must be seen first.

`end_quietly` ends it if that is so and nothing has moved for some time. If not, that is all, unless it is to be done
**firmly**: then the session goes on, and the next thing that the client says while it is quiet is not forwarded, but
answered with the farewell. A farewell that came right behind an answer would be worse: libpq, which has not been asked
anything new when it reads both, takes it for a notice, and then reports a connection that was closed for no reason.

The client then gets the farewell and a FIN, and the upstream the goodbye, a close_notify and a FIN. From there on the
session is one whose upstream is gone, as `mtlskit.net.relay.pair` describes it: the client has the farewell brought to
it for as long as it takes any of it, what it still sends is read and dropped, and every wait has a deadline.

What a client sends in the very moment in which a rest is ended gets the farewell for an answer, too, as with a server
that ends idle sessions. Either way the upstream has not seen it, so it was not done.

Who also changes what passes, or puts something in between, is a codec: `mtlskit.net.relay.translated`.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from mtlskit.net.relay.pair import End, Pair
from mtlskit.net.relay.terms import Ending, HandOver, Observer
from mtlskit.net.relay.translated import TranslatedPair

__all__ = ["ObservedPair", "pair_for"]


class ObservedPair(Pair):
    """A `Pair` with an observer. Every method is called by the relay's thread."""

    __slots__ = ("_last_words", "_moved", "_observer")

    def __init__(self, handover: HandOver, observer: Observer, on_finished: Callable[[Pair], None]) -> None:
        super().__init__(handover, on_finished)
        self._observer = observer
        self._last_words: tuple[bytes, bytes] | None = None
        """Farewell and goodbye, once the session is to be ended firmly."""
        self._moved = time.monotonic()
        """When something was forwarded last."""

    def end_quietly(self, farewell: bytes, goodbye: bytes, *, rested: float = 0.0, firmly: bool = False) -> None:
        """End the session if it is quiet and nothing has moved for `rested` seconds; not if it is ending already.

        `firmly`: if it is not ended now, then with the next thing that the client says at a quiet point.
        """
        self._last_words = (farewell, goodbye) if firmly else None
        if time.monotonic() - self._moved >= rested and self._quiet and self._nothing_to_read(self.client):
            self._part(farewell, goodbye)

    def _forward(self, source: End, plain: memoryview) -> None:
        if source is not self.client:
            self._observer.from_upstream(plain)
        elif self._last_words is not None and self._quiet:
            self._part(*self._last_words)
            return
        else:
            self._observer.from_client(plain)
        self._moved = time.monotonic()
        super()._forward(source, plain)

    @property
    def _quiet(self) -> bool:
        """Whether nothing is in flight, but for what the client has sent."""
        if self.finished or self.ending is not None or not self._observer.quiet:
            return False
        ends = (self.client, self.upstream)
        return not any(end.held or end.deaf for end in ends) and self._nothing_to_read(self.upstream)

    def _nothing_to_read(self, end: End) -> bool:
        """Whether a read would block now. Bytes, or the end of them, are left for the usual turn."""
        try:
            end.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError as exc:
            self._lost(end, exc)  # now, because the kernel tells an error once, and a plain end from then on
        return False

    def _part(self, farewell: bytes, goodbye: bytes) -> None:
        client, upstream = self.client, self.upstream
        self._last_words = None
        self._send(client, farewell)
        if self.finished:
            return  # it has just gone
        self.ending = Ending.EXPIRED
        engine = upstream.engine
        self._send(upstream, goodbye if engine is None else engine.encrypt(memoryview(goodbye)))
        self._close_write(upstream)
        # Whether or not it has taken that: a server that does not read at a quiet point is not waited for.
        upstream.deaf = True
        self._direction_over(upstream)


def pair_for(handover: HandOver, on_finished: Callable[[Pair], None]) -> Pair:
    """The kind of session that this hand-over asks for. Raises ValueError where it asks for two."""
    observer, codec = handover.observer, handover.codec
    if observer is not None and codec is not None:
        raise ValueError("a session has an observer or a codec, not both")
    if codec is not None:
        return TranslatedPair(handover, codec, on_finished)
    if observer is not None:
        return ObservedPair(handover, observer, on_finished)
    return Pair(handover, on_finished)
