"""Who comes first in a turn, and when bulk transfers rest: interactive sessions must not wait for a COPY.

Theory of operation
===================
A session is a **bulk transfer** in a direction in which one read has lately brought `PART_SIZE` bytes or more; all
others are **interactive**. As long as no bulk transfer is about, nothing of this is asked. When both are,

* interactive sessions come first in their turn,
* a bulk transfer reads `PART_SIZE` bytes a turn instead of a whole buffer, and
* bulk transfers together take `BULK_SHARE` of the thread's time, and then **rest**: their sockets are not watched until
  they are back at their share.

The rest is not for the relay, which could serve both, but for what is around it. Where a transfer is as fast as the
machine, its client, its server and the relay fill the cores, and each message of an interactive session waits for one
of them to be scheduled, three times on its way. A transfer that a network paces takes less than its share anyway, and
never rests.

The share is kept by one number, `_due`: the time at which bulk transfers would be at their share had they begun to be
served when they did (the generic cell rate algorithm, ITU-T I.371, with time as the load). They may be ahead of it by
`BURST`, so that a rest is as long as the system's timers are exact.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from mtlskit.net.relay.pair import Buffers, End
from mtlskit.net.relay.watcher import READ

__all__ = ["BULK_SHARE", "BURST", "LONGEST_REST", "Fairness"]

BULK_SHARE: Final = 1 / 3
"""Of the thread's time, for all bulk transfers together while interactive sessions are about."""

BURST: Final = 0.001
"""Seconds by which bulk transfers may be ahead of their share."""

LONGEST_REST: Final = 0.010
"""Seconds. Reached only where a turn of many transfers has taken milliseconds by itself."""

_WARY_TURNS: Final = 32
"""Turns after which interactive sessions that have been heard of no more no longer count as being about."""


class Fairness:
    """The decisions; the thread carries them out."""

    __slots__ = ("_began", "_buffers", "_due", "_rest_until", "_wary", "_watched", "clock")

    def __init__(self, watched: Mapping[int, End], buffers: Buffers) -> None:
        self.clock = time.monotonic
        self._watched = watched
        self._buffers = buffers
        self._wary = 0
        """For how many turns interactive sessions still count as being about."""
        self._began = 0.0
        self._due = 0.0
        self._rest_until = 0.0

    def order(self, ready: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Part what is ready into what comes first and bulk transfers to be read, and say how much these may read."""
        watched, buffers = self._watched, self._buffers
        first: list[tuple[int, int]] = []
        bulk: list[tuple[int, int]] = []
        interactive = False
        for item in ready:
            end = watched.get(item[0])
            if end is None or not item[1] & READ:
                first.append(item)
            elif end.greedy:
                bulk.append(item)
            else:
                first.append(item)
                # What a bulk transfer hears from its other side is no company to it.
                interactive = interactive or not end.peer.greedy
        self._wary = _WARY_TURNS if interactive else max(0, self._wary - 1)
        buffers.share(self._wary > 0)
        buffers.greedy = bool(bulk) or self._wary > 0
        return first, bulk

    def begin_bulk(self) -> bool:
        """Whether bulk transfers may be served now, all that are ready; `end_bulk` is to follow if so."""
        self._began = self.clock()
        return self._began >= self._rest_until

    def end_bulk(self) -> bool:
        """They have been served. Whether they may be served again: False where they must rest first."""
        if not self._wary:
            return True
        now = self.clock()
        due = max(self._due, self._began) + (now - self._began) / BULK_SHARE
        self._due = due = min(due, now + LONGEST_REST)
        if due - now <= BURST:
            return True
        self._rest_until = due
        return False

    def rest_left(self) -> float:
        """Seconds until bulk transfers may be served again; not positive where they may be."""
        return self._rest_until - self.clock()
