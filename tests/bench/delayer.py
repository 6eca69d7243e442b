"""Distance, on loopback: forwards TCP and holds every chunk for half of a round-trip time, each way.

Its client's connect() succeeds at once, though the real one would take a round trip; so nothing that a client sends
leaves before a whole round trip has passed since it connected. With that, the time to the n-th answer is that of a
connection over such a distance, with unlimited bandwidth and no slow start.

Run as a helper (`tests.bench.helper`) with `{"port": TARGET, "rtt": SECONDS}`; it says `{"port": PORT}`. It is made for
little data: what a peer does not take at once holds up all others.
"""

from __future__ import annotations

import heapq
import itertools
import json
import selectors
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field

_CHUNK = 1 << 16


@dataclass
class _Half:
    """One socket of a pair. What is read from it goes to `other`."""

    sock: socket.socket
    open_at: float = 0.0
    """Nothing read here leaves before: when the client's TCP handshake would have ended."""
    last_due: float = 0.0
    ended: bool = False
    other: _Half = field(init=False)


class _Delayer:
    def __init__(self, target: int, rtt: float) -> None:
        self._target = target
        self._rtt = rtt
        # select(2), because its timeout has microseconds; epoll's rounds up to milliseconds.
        self._selector = selectors.SelectSelector()
        self._queue: list[tuple[float, int, _Half, bytes]] = []
        self._order = itertools.count()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._selector.register(self._listening, selectors.EVENT_READ, None)
        self._selector.register(sys.stdin, selectors.EVENT_READ, "stdin")

    @property
    def port(self) -> int:
        port: int = self._listening.getsockname()[1]
        return port

    def run(self) -> None:
        """Forward until the standard input ends."""
        while True:
            wait = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            for key, _ in self._selector.select(wait):
                if key.data is None:
                    self._accept()
                elif isinstance(key.data, _Half):
                    self._read(key.data)
                else:
                    return
            while self._queue and self._queue[0][0] <= time.monotonic():
                _, _, half, data = heapq.heappop(self._queue)
                self._deliver(half, data)

    def _accept(self) -> None:
        near, far = _Half(self._listening.accept()[0]), _Half(socket.create_connection(("127.0.0.1", self._target)))
        near.other, far.other = far, near
        near.open_at = time.monotonic() + self._rtt
        for half in (near, far):
            half.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(half.sock, selectors.EVENT_READ, half)

    def _read(self, half: _Half) -> None:
        try:
            data = half.sock.recv(_CHUNK)
        except OSError:
            data = b""
        due = max(time.monotonic(), half.open_at) + self._rtt / 2
        half.last_due = max(due, half.last_due)
        heapq.heappush(self._queue, (half.last_due, next(self._order), half, data))
        if not data:
            self._selector.unregister(half.sock)

    def _deliver(self, half: _Half, data: bytes) -> None:
        """Data that was read from `half`; none is its end."""
        with suppress(OSError):  # who has gone meanwhile misses nothing
            if data:
                half.other.sock.sendall(data)
                return
            half.other.sock.shutdown(socket.SHUT_WR)
        if not data:
            half.ended = True
            if half.other.ended:
                half.sock.close()
                half.other.sock.close()


def main() -> None:
    """Say where, and forward."""
    job = json.loads(sys.argv[1])
    delayer = _Delayer(job["port"], job["rtt"])
    print(json.dumps({"port": delayer.port}), flush=True)
    delayer.run()


if __name__ == "__main__":
    main()
