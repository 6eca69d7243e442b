"""What the kernel tells of a process's TCP connections: Linux's /proc/net/tcp and /proc/net/tcp6."""

from __future__ import annotations

from pathlib import Path

_ESTABLISHED = 1
_KEEPALIVE_TIMER = 2  # proc_net_tcp.rst: "another timer (e.g. delayed ack or keepalive) is pending"


def keepalive_timers(pid: int) -> dict[tuple[int, int], bool]:
    """For each established connection (local port, remote port): whether its keepalive timer runs.

    Empty while bytes are under way: another timer then stands in the keepalive timer's place.
    """
    found: dict[tuple[int, int], bool] = {}
    inodes = {link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, remote, state, queues, timer = line.split()[:6]
            inode = line.split()[9]
            if f"socket:[{inode}]" not in inodes or int(state, 16) != _ESTABLISHED:
                continue
            if queues != "00000000:00000000":
                return {}
            ports = int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16)
            found[ports] = int(timer.partition(":")[0], 16) == _KEEPALIVE_TIMER
    return found
