"""Who comes first in a turn, and when bulk transfers rest: interactive sessions must not wait for a COPY.

Theory of operation
===================
A direction whose last read brought `PART_SIZE` bytes or more is a **bulk transfer**. As long as there is none, nothing
of this is asked. What is no bulk transfer comes first in its turn, and as long as a session is about that has not been
one lately either, its **company**, a bulk transfer reads `PART_SIZE` bytes a turn instead of a whole buffer.

A session is **interactive** whose last reads brought `SMALL` bytes or less in both directions. As long as one of these
is about, bulk transfers together take `BULK_SHARE` of the time, and then **rest**: their sockets are not read until
they are back at their share.

The rest is not for the relay, which could serve both, but for what is around it. Where a transfer is as fast as the
machine, its client, its server and the relay fill the cores, and each message of an interactive session waits for one
of them to be scheduled, three times on its way. A transfer that a network paces takes less than its share by itself,
and hardly ever rests.

What counts is the time that passes while transfers are served, and not the CPU that the relay takes for it: on a busy
machine it passes faster, and there transfers are to get less.

The share is kept as by the generic cell rate algorithm (ITU-T I.371), with the time taken as the load. `_due`, its
*theoretical arrival time*, is when what transfers were given will be exactly their share of the time since. Transfers
that are more than `BURST` ahead of it wait until it has come, not only until they are within `BURST` again, since no
timer is exact enough for shorter rests. What they overslept is given back, `BURST` at most.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Final

from mtlskit.net.relay.pair import PART_SIZE, Buffers, End
from mtlskit.net.relay.watcher import READ

__all__ = ["BULK_SHARE", "BURST", "COMPANY", "LONGEST_REST", "SMALL", "Fairness"]

BULK_SHARE: Final = 1 / 6
"""Of the time, for all bulk transfers together while interactive sessions are about."""

BURST: Final = 0.001
"""Seconds by which bulk transfers may be ahead of their share: epoll counts in milliseconds."""

LONGEST_REST: Final = 0.010
"""Seconds. Where turns take milliseconds by themselves, because transfers are many or the machine is busy, it is this
that ends a rest, and transfers get more than their share."""

COMPANY: Final = 0.002
"""Seconds for which a session counts as being about after each of its messages: a few messages cost a transfer little,
and from 500 a second on somebody is there all the time."""

SMALL: Final = 4096
"""Bytes of a read. PostgreSQL sends large results in records of 8 KiB."""

_MEMORY: Final = 0.1
"""Seconds for which a session that was a bulk transfer is no company: its questions belong to its large answers."""

_RESTS: Final = sys.platform != "win32"
"""Windows' timers, at 15 ms, are too coarse."""


class Fairness:
    """The decisions; the thread carries them out."""

    __slots__ = (
        "_began",
        "_buffers",
        "_bulk_until",
        "_company_until",
        "_due",
        "_interactive_until",
        "_rest_until",
        "_watched",
        "clock",
    )

    def __init__(self, watched: Mapping[int, End], buffers: Buffers) -> None:
        self.clock = time.monotonic
        self._watched = watched
        self._buffers = buffers
        self._company_until = 0.0
        """Until when other sessions count as being about."""
        self._interactive_until = 0.0
        """Until when interactive ones do."""
        self._bulk_until = 0.0
        """Until when bulk transfers do."""
        self._began = 0.0
        self._due = 0.0
        self._rest_until = 0.0

    def order(self, ready: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Part what is ready into what comes first and bulk transfers to be read, and say how much these may read."""
        watched, buffers, now = self._watched, self._buffers, self.clock()
        first: list[tuple[int, int]] = []
        bulk: list[tuple[int, int]] = []
        for item in ready:
            end = watched.get(item[0])
            if end is None or not item[1] & READ:
                first.append(item)
            elif end.size >= PART_SIZE:
                bulk.append(item)
                end.pair.bulk_until = now + _MEMORY
            else:
                first.append(item)
                if end.peer.size < PART_SIZE and end.pair.bulk_until <= now:
                    self._company_until = now + COMPANY
                    if end.size <= SMALL and end.peer.size <= SMALL:
                        self._interactive_until = now + COMPANY
        if bulk:
            self._bulk_until = now + COMPANY
        buffers.greedy = now < self._bulk_until
        buffers.share(buffers.greedy and now < self._company_until)
        return first, bulk

    def begin_bulk(self) -> bool:
        """Whether bulk transfers may be served now, all that are ready; `end_bulk` is to follow if so."""
        self._began = self.clock()
        return self._began >= self._rest_until

    def end_bulk(self) -> bool:
        """They have been served. Whether they may be served again: False where they must rest first."""
        if self._began >= self._interactive_until or not _RESTS:
            return True
        now = self.clock()
        due = max(self._due, self._began - BURST) + (now - self._began) / BULK_SHARE
        self._due = due = min(due, now + LONGEST_REST)
        if due - now <= BURST:
            return True
        self._rest_until = due
        self._bulk_until = due + COMPANY
        return False

    def rest_left(self) -> float:
        """Seconds until bulk transfers may be served again; not positive where they may be."""
        return self._rest_until - self.clock()
