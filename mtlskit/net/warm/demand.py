"""How many connections to keep ready: as many as were lately wanted at once, within a limit. Pure: time is an argument.

Clients of a database come in bursts: a dashboard opens ten connections, a pool refills. So what counts is not the
rate but the largest number that came within a few seconds of each other, which is what being ready means. It is
remembered for ten minutes; then one connection is kept, because the next client is still a client.
"""

from __future__ import annotations

from collections import deque

__all__ = ["Demand"]

_TOGETHER = 5.0
"""Seconds within which clients count as one burst: longer than it takes to make connections for all of them anew."""

_MEMORY = 600.0
"""Seconds for which a burst is remembered. A connection costs the server a process, so not for ever."""


class Demand:
    """Remembers the arrivals of clients. Times in seconds of any steady clock, never going back."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._recent: deque[float] = deque(maxlen=max(1, limit))
        """The arrivals of the last `_TOGETHER` seconds; more than `limit` of them make no difference."""
        self._bursts: deque[tuple[float, int]] = deque()
        """Times and sizes of the bursts that count, their sizes falling: a larger one makes the earlier ones moot."""

    def arrived(self, now: float) -> None:
        """A client has asked for a connection."""
        self._recent.append(now)
        while self._recent[0] < now - _TOGETHER:
            self._recent.popleft()
        size = len(self._recent)
        while self._bursts and self._bursts[-1][1] <= size:
            self._bursts.pop()
        self._bursts.append((now, size))

    def wanted(self, now: float) -> int:
        """How many connections should be ready: between one and `limit`, or none where `limit` is 0."""
        while self._bursts and self._bursts[0][0] < now - _MEMORY:
            self._bursts.popleft()
        largest = self._bursts[0][1] if self._bursts else 1
        return min(self.limit, largest)
