"""A load that goes on beside what is measured, in a process of its own, so that no GIL is shared with the measuring.

Run as a helper (`tests.bench.helper`) with `{"what": "out" | "in", "conninfo": "…"}` for a COPY, or with
`{"what": "handshakes", "door": {…}, "rate": N}`; it says `{}` when it is under way, and `{"done": N, "seconds": S}`
(bytes or connections) at its end. With `"poll": {…}, "every": S` beside the handshakes, a contender is asked for its
state, too, and `"polls": N` were answered.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import time

import psycopg

from tests.bench.contenders import Poll
from tests.bench.rows import MOVES, begin
from tests.bench.wire import Door, begin_echo

_FIRST = 1 << 20
# Bytes of a COPY; the next one follows at once. So large that what lies between two of them is nothing beside it, so
# small that the end is not long in coming.
_PIECE = 64 << 20
_PATIENCE = 30  # seconds; a safety net, nothing is measured by it
_READ = 65536


def main() -> None:
    """Work until the standard input ends."""
    job = json.loads(sys.argv[1])
    if job["what"] == "handshakes":
        poll = (Poll(**job["poll"]), job["every"]) if "poll" in job else None
        told = _handshakes(Door(**job["door"]), job["rate"], poll)
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


def _handshakes(door: Door, rate: float, poll: tuple[Poll, float] | None) -> dict[str, float]:
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
    polls = _polled(*poll) if poll else 0
    _told_to_end(None)
    end.set()
    for thread in threads:
        thread.join()
    return {"done": done, "seconds": time.monotonic() - began, "polls": polls}


def _polled(poll: Poll, every: float) -> int:
    """Ask every so often until told to end. How often the answer was right. Raises OSError where nobody answers."""
    began = time.monotonic()
    asked = right = 0
    while not _told_to_end(max(0.0, began + asked * every - time.monotonic())):
        right += _answer(poll).startswith(poll.answer)
        asked += 1
    return right


def _answer(poll: Poll) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        sock.connect(poll.path)
        sock.sendall(poll.question.encode())
        return b"".join(iter(lambda: sock.recv(_READ), b"")).decode()


def _told_to_end(wait: float | None) -> bool:
    return bool(select.select([sys.stdin], [], [], wait)[0])


if __name__ == "__main__":
    main()
