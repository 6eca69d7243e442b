"""The quiet points of a session: moments at which nothing is in flight, so that ending it loses nobody's work.

Theory of operation
-------------------
A session is **quiet** when the server's last word was ReadyForQuery with the status `I` (no transaction is open), and
the client has sent nothing since. `QuietWatcher` sees every byte of both directions, from the first one after the
StartupMessage, and keeps of each direction where its messages begin and end (PostgreSQL docs, "Message Formats"):
five bytes at most, and a few numbers. Bodies are skipped, unread.

What is due
    Each Query, FunctionCall and Sync asks for one ReadyForQuery; so does the login. The watcher counts them, so that
    in a pipeline the answer to an earlier Sync is not taken for the end of it.
What is open
    Parse, Bind, Execute and their like ask for nothing until a Sync. One after the last Sync leaves the session open.
    So does CopyData until CopyDone or CopyFail: a server that has given up on a COPY says ReadyForQuery while its
    client goes on sending.
What comes by itself
    NoticeResponse, ParameterStatus and NotificationResponse may come at any time, and a session that has heard one is
    as quiet as before.
What is never quiet
    A transaction, a COPY, a walsender that streams (all without ReadyForQuery until their end), a client that is
    leaving; and a session in which a frame has lied, with a length below 4 or a ReadyForQuery that nobody asked for:
    the watcher has lost the thread then and says nothing more.

One Sync is never answered: in the extended protocol, the server ignores those that reach it during a COPY FROM STDIN
(docs, "COPY Operations"). libpq sends one right behind the Execute. So when the client ends a COPY that the server has
begun, the Syncs since its last Execute are no longer due.

Where the count is wrong, it errs towards never: after an error, a server skips to the next Sync, and a Query in between
gets no answer. No driver mixes the two like that; one that did would have sessions that are never quiet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

__all__ = ["QuietWatcher"]

_HEADER: Final = struct.Struct("!BI")

_ASKING: Final = frozenset(b"QSF")
"""Query, Sync, FunctionCall: the client's messages that each get a ReadyForQuery."""

_TELLS_NOTHING: Final = frozenset(b"NSADd")
"""The server's messages that are passed over: NoticeResponse, ParameterStatus and NotificationResponse, which may come
at any time; DataRow and CopyData, most of what there is, after which something else comes before ReadyForQuery."""

_OPENS_NOTHING: Final = frozenset(b"pH")
"""Passwords, and Flush, which asks for what has been answered already: psycopg ends a pipeline with Sync and Flush."""

_SYNC, _EXECUTE, _COPY_DATA, _COPY_DONE, _COPY_FAIL = b"SEdcf"
_READY, _COPY_IN, _ERROR = b"ZGE"
_IDLE: Final = ord("I")

_FOR_EVER: Final = 1 << 62
"""The bytes of a message whose end no session will see."""


class QuietWatcher:
    """Fed with both directions of one session, says whether it is quiet. Never raises, whatever it is fed."""

    __slots__ = ("_client", "_copying", "_due", "_idle", "_open", "_server", "_server_copies_in", "_syncs")

    def __init__(self) -> None:
        self._client = _Frames()
        self._server = _Frames(_TELLS_NOTHING)
        self._due = 1
        """ReadyForQuery messages that are still to come: the first one ends the login."""
        self._idle = False
        """The server's last word was ReadyForQuery, outside of a transaction."""
        self._open = False
        """The client has sent something that is not covered by a Query or a Sync."""
        self._copying = False
        """The client has sent CopyData, and neither CopyDone nor CopyFail."""
        self._server_copies_in = False
        """The server has asked for CopyData."""
        self._syncs = 0
        """Since the client's last Execute."""

    @property
    def quiet(self) -> bool:
        """Nothing is in flight, as far as the bytes go that were fed."""
        return (
            self._due == 0
            and self._idle
            and not self._open
            and not self._copying
            and self._client.at_boundary
            and self._server.at_boundary
        )

    def from_client(self, data: bytes | memoryview) -> None:
        """Take what was read from the client; not the StartupMessage and what came before it."""
        for kind, _ in self._client.messages(data):
            if kind in _ASKING:
                self._due += 1
                self._open = self._copying = False
                self._syncs += kind == _SYNC
            elif kind == _COPY_DATA:
                self._copying = True
            elif kind in (_COPY_DONE, _COPY_FAIL):
                self._end_copy()
            elif kind not in _OPENS_NOTHING:
                self._open = True
                if kind == _EXECUTE:
                    self._syncs = 0

    def from_upstream(self, data: bytes | memoryview) -> None:
        """Take what was read from the server since the StartupMessage."""
        for kind, last in self._server.messages(data):
            self._idle = kind == _READY and last == _IDLE
            if kind == _READY:
                self._ready()
            elif kind in (_COPY_IN, _ERROR):
                self._server_copies_in = kind == _COPY_IN

    def _ready(self) -> None:
        self._server_copies_in = False
        self._due -= 1
        if self._due < 0:
            self._server.give_up()
        elif not self._due:
            # A client that has heard of an error in its COPY may never end it.
            self._copying = False

    def _end_copy(self) -> None:
        self._copying = False
        if self._server_copies_in:
            self._due -= self._syncs
            self._syncs = 0


class _Frames:
    """Where the messages of one direction begin and end."""

    __slots__ = ("_head", "_kind", "_left", "_passed_over")

    def __init__(self, passed_over: frozenset[int] = frozenset()) -> None:
        self._passed_over = passed_over
        self._head = b""
        """The first bytes of a header that is not complete: four at most."""
        self._kind = 0
        self._left = 0
        """Bytes of a message of that kind that are still to come."""

    @property
    def at_boundary(self) -> bool:
        """No message has begun that has not ended."""
        return not self._left and not self._head

    def give_up(self) -> None:
        """A frame has lied: believe in no boundary any more."""
        self._left = _FOR_EVER

    def messages(self, data: bytes | memoryview) -> Iterator[tuple[int, int]]:
        """Of the messages that end within `data` and are not passed over: the type and the last byte.

        To be consumed whole.
        """
        if self._head:
            data = self._head + bytes(data)
            self._head = b""
        position, size = self._left, len(data)
        if position > size:
            self._left -= size
            return
        if position:
            self._left = 0
            if self._kind not in self._passed_over:
                yield self._kind, data[position - 1]
        read, passed_over, last_header = _HEADER.unpack_from, self._passed_over, size - 5
        while position <= last_header and not self._left:
            kind, length = read(data, position)
            position += length + 1
            if length < 4:
                self.give_up()
            elif position > size:
                self._kind, self._left = kind, position - size
            elif kind not in passed_over:
                yield kind, data[position - 1]
        if not self._left:
            self._head = bytes(data[position:])
