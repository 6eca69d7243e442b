"""Who came to a broker: all that it ever accepted, as its log tells, and who is connected now, as the kernel does.

A leaked address is a connection that comes to a broker by another way than the tunnel. Clients that were led astray
may try for an instant only, so the log counts, where the broker writes down each accepted connection and what became of
its handshake: a plain client is refused, and the tunnel can be given an identity of its own. Neither is said of a
connection that was closed before its handshake was over, as librdkafka's are when their owner needs them no more.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_ACCEPTED = re.compile(r"Accepted connection from /[\d.]+:(\d+) on /[\d.]+:(\d+) ")
_HANDSHAKE = re.compile(r"channelId=[\d.]+:(\d+)-[\d.]+:(\d+)\S* .*handshake completed .*peerPrincipal '([^']*)'")
_REFUSED = re.compile(r"Failed authentication with /[\d.]+ \(channelId=[\d.]+:(\d+)-[\d.]+:(\d+)")
_ESTABLISHED = 1


@dataclass(frozen=True)
class Visit:
    """One accepted connection: the port that it came from, and the subject of its certificate or that it had none."""

    peer_port: int
    identity: str | None = None
    refused: bool = False


@dataclass(frozen=True)
class Connection:
    """One established connection, seen from the end that dialled: who it is, from which port to which."""

    pid: int
    source: int
    port: int


def visits(log: str, port: int) -> tuple[Visit, ...]:
    """Every connection that a broker's log tells to have been accepted on this port, in order."""
    found: list[Visit] = []
    early: set[int] = set()  # peers' ports: another thread told of the handshake before the acceptor did of the visit
    for line in log.splitlines():
        if (accepted := _ACCEPTED.search(line)) and int(accepted[2]) == port:
            if int(accepted[1]) in early:
                early.remove(int(accepted[1]))
            else:
                found.append(Visit(int(accepted[1])))
        elif (shaken := _HANDSHAKE.search(line)) and int(shaken[1]) == port:
            _replace_latest(found, early, Visit(int(shaken[2]), identity=shaken[3]))
        elif (refused := _REFUSED.search(line)) and int(refused[1]) == port:
            _replace_latest(found, early, Visit(int(refused[2]), refused=True))
    return tuple(found)


def _replace_latest(found: list[Visit], early: set[int], told: Visit) -> None:
    """The latest, for the kernel gives a port again after a while; and only one of which nothing was told yet."""
    latest = max((at for at, visit in enumerate(found) if visit.peer_port == told.peer_port), default=None)
    if latest is None or found[latest].identity is not None or found[latest].refused:
        found.append(told)
        early.add(told.peer_port)
    else:
        found[latest] = told


def connections(ports: Collection[int]) -> tuple[Connection, ...]:
    """Who is connected to any of these ports of this machine, of all processes that we may look into."""
    sources: dict[str, tuple[int, int]] = {}
    for table in ("tcp", "tcp6"):  # Java dials IPv4 too with a socket of IPv6
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, remote, state, *rest = line.split()
            port = int(remote.rpartition(":")[2], 16)
            if port in ports and int(state, 16) == _ESTABLISHED:
                sources[f"socket:[{rest[5]}]"] = (int(local.rpartition(":")[2], 16), port)
    found = [
        Connection(pid, *sources[name])
        for pid in (int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit())
        for name in _open_files(pid) & sources.keys()
    ]
    return tuple(sorted(found, key=lambda one: (one.port, one.source)))


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found.add(str(link.readlink()))
            except FileNotFoundError:
                continue
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return set()  # it has ended, or is another user's
    return found
