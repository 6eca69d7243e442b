"""People at terminals: sessions that send a little, wait for the answer, and think before they send again."""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections.abc import Sequence

from tests.bench.wire import read_exactly

__all__ = ["interact"]


def interact(socks: Sequence[socket.socket], *, seconds: float, think: float, size: int) -> list[float]:
    """Keep all sessions going for a while, from one thread. Seconds from each message to its answer.

    Every socket must be echoing `size` bytes already. What is under way at the end is waited for and counted, or the
    slowest answers would be missing.
    """
    message = bytes(size)
    selector = selectors.DefaultSelector()
    began = time.perf_counter()
    due = [(began + think * number / len(socks), number) for number in range(len(socks))]
    sent: dict[int, float] = {}
    taken: list[float] = []
    try:
        for number, sock in enumerate(socks):
            selector.register(sock, selectors.EVENT_READ, number)
        while due or sent:
            now = time.perf_counter()
            while due and due[0][0] <= now:
                _, number = heapq.heappop(due)
                sent[number] = time.perf_counter()
                socks[number].sendall(message)
            for key, _ in selector.select(max(0.0, due[0][0] - time.perf_counter()) if due else None):
                read_exactly(socks[key.data], size)
                now = time.perf_counter()
                taken.append(now - sent.pop(key.data))
                if now - began < seconds:
                    heapq.heappush(due, (now + think, key.data))
    finally:
        selector.close()
    return taken
