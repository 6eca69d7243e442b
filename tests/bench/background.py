"""A load that goes on beside what is measured, in a process of its own, so that no GIL is shared with the measuring.

Run as a helper (`tests.bench.helper`) with `{"door": {…}, "what": "up" | "down" | "handshakes", "rate": N}`; it says
`{}` when it is under way, and `{"done": N, "seconds": S}` (bytes or connections) at its end.
"""

from __future__ import annotations

import json
import select
import sys
import threading
import time
from collections.abc import Callable

from tests.bench.wire import Door, begin_echo, download, upload

_PIECE = 16 << 20


def main() -> None:
    """Work until the standard input ends."""
    job = json.loads(sys.argv[1])
    door = Door(**job["door"])
    told = _handshakes(door, job["rate"]) if job["what"] == "handshakes" else _bulk(door, job["what"])
    print(json.dumps(told), flush=True)


def _bulk(door: Door, direction: str) -> dict[str, float]:
    move: Callable[..., None] = upload if direction == "up" else download
    done = 0
    with door.connect(door.context()) as sock:
        move(sock, _PIECE)
        print("{}", flush=True)
        began = time.monotonic()
        while not _told_to_end(0):
            move(sock, _PIECE)
            done += _PIECE
    return {"done": done, "seconds": time.monotonic() - began}


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
