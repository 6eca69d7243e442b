"""Clients that are real users of this host: child processes that become one and then connect.

Root can become anybody, an ordinary user is only itself: `available_uids` says whom a test can use here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

# Everything is imported first: the user may not be able to read the interpreter's folders.
_BECOME = """
import encodings.idna, os, socket, struct, sys
uid = int(sys.argv[1])
if uid != os.getuid():
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
"""

DAEMON, NOBODY = 1, 65534


@cache
def available_uids() -> tuple[int, ...]:
    """Our own uid first, then those that a child of ours can become."""
    others = [DAEMON]
    # In a user namespace 65534 stands for everybody whom it cannot name.
    if Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]:
        others.append(NOBODY)
    return (os.getuid(), *(uid for uid in others if uid != os.getuid() and _can_become(uid)))


def _can_become(uid: int) -> bool:
    with running_as(uid, "") as child:
        return finish(child) == 0


@contextmanager
def running_as(uid: int, script: str, *args: object, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start Python as `uid`, and end it at the latest with the block.

    The script has os, socket, struct and sys, and its arguments from sys.argv[2].
    """
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _BECOME + script, str(uid), *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def finish(child: subprocess.Popen[bytes]) -> int:
    """Let the child go on (its stdin ends), wait for its end, and return its exit status."""
    child.communicate(timeout=10)
    return child.returncode
