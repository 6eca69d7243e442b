"""A load that goes on beside what is measured, in a process of its own, so that no GIL is shared with the measuring.

Run as a helper (`tests.bench.helper`) with `{"what": "out" | "in", "conninfo": "…"}` for a COPY, or with
`{"what": "handshakes", "door": {…}, "rate": N}`; it says `{}` when it is under way, and `{"done": N, "seconds": S}`
(bytes or connections) at its end.
"""

from __future__ import annotations

import json
import select
import sys
import threading
import time

import psycopg

from tests.bench.rows import MOVES, begin
from tests.bench.wire import Door, begin_echo

_FIRST = 1 << 20
# Bytes of a COPY; the next one follows at once. So large that what lies between two of them is nothing beside it, so
# small that the end is not long in coming.
_PIECE = 64 << 20


def main() -> None:
    """Work until the standard input ends."""
    job = json.loads(sys.argv[1])
    if job["what"] == "handshakes":
        told = _handshakes(Door(**job["door"]), job["rate"])
    else:
        told = _copy(job["conninfo"], job["what"])
    print(json.dumps(told), flush=True)


def _copy(conninfo: str, way: str) -> dict[str, float]:
    """At least one COPY is counted."""
    move = MOVES[way]
    with psycopg.connect(conninfo, autocommit=True) as connection:
        begin(connection)
        move(connection, _FIRST)
        print("{}", flush=True)
        began = time.monotonic()
        done = move(connection, _PIECE)
        while not _told_to_end(0):
            done += move(connection, _PIECE)
        taken = time.monotonic() - began
    return {"done": done, "seconds": taken}


def _handshakes(door: Door, rate: float) -> dict[str, float]:
    """`rate` connections a second, evenly. Four threads, so that one slow handshake does not hold up the next."""
    context = door.context()
    lock, end = threading.Lock(), threading.Event()
    began = time.monotonic()
    count = done = 0

    def work() -> None:
        nonlocal count, done
        while not end.is_set():
            with lock:
                due = began + count / rate
                count += 1
            end.wait(max(0.0, due - time.monotonic()))
            with door.connect(context) as sock:
                begin_echo(sock, 1)
            with lock:
                done += 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    print("{}", flush=True)
    _told_to_end(None)
    end.set()
    for thread in threads:
        thread.join()
    return {"done": done, "seconds": time.monotonic() - began}


def _told_to_end(wait: float | None) -> bool:
    return bool(select.select([sys.stdin], [], [], wait)[0])


if __name__ == "__main__":
    main()
