"""People at terminals: sessions that ask a little, wait for the answer, and think before they ask again."""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections.abc import Sequence
from typing import Protocol

import psycopg
from psycopg.pq import ExecStatus

from tests.bench.errors import BenchError
from tests.bench.wire import begin_echo, read_exactly

__all__ = ["Echo", "Query", "Session", "interact"]

_PATIENCE = 60  # seconds; a safety net, nothing is measured by it
_QUERY = b"SELECT 1"
_GOLDEN = 0.618034  # multiples of it, modulo 1, fill the interval evenly, and none is close to those just before


class Session(Protocol):
    """One of many that a single thread keeps going: at most it waits for the rest of what has begun to come."""

    def fileno(self) -> int:
        """Of the socket, which can be read when (a part of) the answer is there."""

    def ask(self) -> None:
        """Send the question."""

    def answered(self) -> bool:
        """Read what came. Whether the answer is complete."""


class Echo:
    """A raw connection (`tests.bench.wire`) on which `size` bytes are sent and come back."""

    def __init__(self, sock: socket.socket, size: int) -> None:
        """Makes the first round trip."""
        begin_echo(sock, size)
        self._sock = sock
        self._message = bytes(size)

    def fileno(self) -> int:
        """Of the socket."""
        return self._sock.fileno()

    def ask(self) -> None:
        """Send the bytes."""
        self._sock.sendall(self._message)

    def answered(self) -> bool:
        """All bytes are one small packet: when one is there, so are the others."""
        read_exactly(self._sock, len(self._message))
        return True


class Query:
    """A connection to PostgreSQL on which one small query is asked (simple protocol, one row of one column).

    Straight on libpq's non-blocking calls (PostgreSQL docs, "Asynchronous Command Processing"), since psycopg's own
    ways to wait are for one connection. The answer is complete with its ReadyForQuery: then PQgetResult has no more.
    """

    def __init__(self, connection: psycopg.Connection) -> None:
        """Makes the first round trip, for which the server's new process has to read its catalogues."""
        self._libpq = connection.pgconn
        self._libpq.nonblocking = 1
        self._libpq.exec_(_QUERY)

    def fileno(self) -> int:
        """Of the socket."""
        return self._libpq.socket

    def ask(self) -> None:
        """Send the query. Raises `BenchError` where the socket, which holds nothing else, does not take it."""
        self._libpq.send_query(_QUERY)
        if self._libpq.flush():
            raise BenchError("the connection does not even take a small query")

    def answered(self) -> bool:
        """Whether ReadyForQuery came. Raises `BenchError` if the server did not like the query."""
        self._libpq.consume_input()
        while not self._libpq.is_busy():
            result = self._libpq.get_result()
            if result is None:
                return True
            if result.status != ExecStatus.TUPLES_OK:
                raise BenchError(f"the query failed: {result.error_message.decode(errors='replace').strip()}")
        return False


def interact(sessions: Sequence[Session], *, seconds: float, think: float) -> list[float]:
    """Keep all sessions going for a while, from one thread. Seconds from each question to its answer.

    `think` is the mean time from an answer to the next question; each differs by up to half, the same way in every
    run. Were all alike, sessions that one delay has brought together would ask together ever after, and wait for each
    other. What is under way at the end is waited for and counted, or the slowest answers would be missing. Raises
    TimeoutError where an answer does not come at all.
    """
    selector = selectors.DefaultSelector()
    began = time.perf_counter()
    due = [(began + think * number / len(sessions), number) for number in range(len(sessions))]
    asked: dict[int, float] = {}
    taken: list[float] = []
    try:
        for number, session in enumerate(sessions):
            selector.register(session, selectors.EVENT_READ, number)
        while due or asked:
            while due and due[0][0] <= time.perf_counter():
                _, number = heapq.heappop(due)
                asked[number] = time.perf_counter()
                sessions[number].ask()
            ready = selector.select(max(0.0, due[0][0] - time.perf_counter()) if due else _PATIENCE)
            if not (ready or due):
                raise TimeoutError(f"{len(asked)} of {len(sessions)} sessions had no answer in {_PATIENCE} seconds")
            for key, _ in ready:
                # Something may come that nobody asked for: a TLS session ticket, a notice.
                if not sessions[key.data].answered() or key.data not in asked:
                    continue
                now = time.perf_counter()
                taken.append(now - asked.pop(key.data))
                if now - began < seconds:
                    heapq.heappush(due, (now + think * (0.5 + len(taken) * _GOLDEN % 1), key.data))
    finally:
        selector.close()
    return taken
