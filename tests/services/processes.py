"""Ending processes for sure: a guard that outlives us, and a kill that waits without being the parent."""

from __future__ import annotations

import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

# Waits for the end of file on its stdin, that is for our end, however it came: SIGKILL and a cancelled CI job run no
# clean-up of ours. The wait for the server is bounded because in a container without an init its zombie stays for ever.
_GUARD = """
while read -r _; do :; done
kill "-$3" "$1" 2>/dev/null
tries=0
while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 50 ]; do tries=$((tries + 1)); sleep 0.1; done
rm -rf -- "$2"
"""


class Guard:
    """Ends a server (by default with SIGQUIT) and removes its folder if this process dies before `dismiss`."""

    def __init__(self, pid: int, folder: Path, how: signal.Signals = signal.SIGQUIT) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(pid), str(folder), str(how.value)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us; the guard stays
        )

    @property
    def pid(self) -> int:
        """The guard's own process id."""
        return self._process.pid

    def dismiss(self) -> None:
        """The server is gone: nothing is left to guard."""
        self._process.kill()  # before its stdin closes, or it would do its work
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def kill_with_children(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL a process and then its children, and return when all are gone: no word to any peer, only closed sockets.

    A postmaster's children are killed after it, or it would report them to the others and start new ones.
    """
    if sys.platform != "linux":
        raise NotImplementedError("children are found and awaited through Linux's /proc and pidfd")
    import os

    handles = []
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    try:
        for child in children:
            try:
                handles.append(os.pidfd_open(int(child)))
            except ProcessLookupError:
                continue
        process.kill()
        process.wait()
        for handle in handles:
            _kill_and_wait(handle)
    finally:
        for handle in handles:
            os.close(handle)


def _kill_and_wait(handle: int) -> None:
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        return
    ended = select.poll()
    ended.register(handle, select.POLLIN)
    ended.poll(10_000)


def remove_shared_memory(identifier: str) -> None:
    """Remove a System V segment that a killed postmaster left; line 7 of its postmaster.pid names it."""
    program = shutil.which("ipcrm")
    if program is not None:
        subprocess.run([program, "-m", identifier], capture_output=True, check=False)
