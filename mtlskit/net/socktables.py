"""Who owns a TCP socket of this host, from the kernel's own tables (Linux).

Theory of operation. A connection over loopback has two sockets in the kernel: ours and the client's. Seen from the
client, its own address is our peer's address, and the kernel keeps the uid of whoever made the socket. Two doors lead
there:

* **netlink** (`NETLINK_SOCK_DIAG`, ``linux/inet_diag.h``, sock_diag(7)): one exact look-up by the four numbers of the
  connection, well under a millisecond however many sockets the host has. No privilege is needed.
* **/proc/net/tcp and tcp6** (proc_pid_net(5)): the whole table as text. Slow on a busy host, so it is read only where
  netlink cannot be used (gVisor, a seccomp profile, a kernel without ``tcp_diag``).

What makes an answer trustworthy, and everything else becomes None:

* *The addresses of the answer are those of the question.* The kernel's look-up falls back to a listening socket when
  no connection matches, and a listener belongs to us, not to the client.
* *State ESTABLISHED, inode not 0.* A socket whose owner has closed it lives on without an owner, and the kernel then
  shows uid 0: taken at its word, every client that hangs up at once would be root.
* *The uid is not the overflow uid of a user namespace.* In a container the kernel shows every uid it cannot translate
  as 65534, which is also the number of `nobody`.

This module neither knows sockets of ours nor decides anything; `mtlskit.net.peer` does the first, the front door the
second.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, TypeAlias

__all__ = [
    "IPAddress",
    "NetlinkUnusableError",
    "SocketRow",
    "TcpEnd",
    "certain_uid",
    "diag_question",
    "listening_program",
    "look_up",
    "owner_of",
    "parse_diag_answer",
    "parse_proc_rows",
    "read_proc",
    "trusted_uid",
]

IPAddress: TypeAlias = IPv4Address | IPv6Address

# include/net/tcp_states.h
TCP_ESTABLISHED: Final = 1
TCP_LISTEN: Final = 10

# linux/netlink.h and linux/sock_diag.h
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLMSG_ERROR: Final = 2
NLM_F_REQUEST: Final = 1
INET_DIAG_NOCOOKIE: Final = 0xFFFF_FFFF

_HEADER: Final = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port id
_REQUEST: Final = struct.Struct("=BBBBI")  # struct inet_diag_req_v2 up to its id
_PORTS: Final = struct.Struct("!HH16s16s")  # struct inet_diag_sockid: big-endian ports and addresses
_SCOPE: Final = struct.Struct("=III")  # … its interface and cookie, in the host's order
_MESSAGE: Final = struct.Struct("=BBBB48sIIIII")  # struct inet_diag_msg: …, expires, rqueue, wqueue, uid, inode

NETLINK_TIMEOUT: Final = 0.5
"""Seconds. The kernel answers before `send` returns; this bounds what should not happen."""

_SEQUENCE: Final = 1  # one question a socket, so the number need not change


@dataclass(frozen=True)
class TcpEnd:
    """One end of a connection. An IPv4-mapped IPv6 address stands as IPv4, so that equal ends compare equal."""

    address: IPAddress
    port: int


@dataclass(frozen=True)
class SocketRow:
    """What the kernel says of one TCP socket: its ends as its owner sees them, state, uid and inode (0: no owner)."""

    local: TcpEnd
    remote: TcpEnd
    state: int
    uid: int
    inode: int


class NetlinkUnusableError(Exception):
    """Netlink gives no answer here; /proc may."""


def owner_of(local: TcpEnd, remote: TcpEnd) -> int | None:
    """The uid that owns the established socket bound to `local` and connected to `remote`; None where unclear.

    Both are seen from that socket: to learn who a client is, pass its end first and ours second. Never raises.
    """
    try:
        row = look_up(local, remote)
        # "No such entry" is also what a kernel without tcp_diag says. Our own end exists as long as we hold the
        # socket: if netlink does not see that either, it sees nothing and the table must be asked.
        netlink_sees = row is not None or look_up(remote, local) is not None
    except NetlinkUnusableError:
        netlink_sees = False
    if not netlink_sees:
        row = _only_one(read_proc(local, remote))
    return trusted_uid(row, local, remote)


def trusted_uid(row: SocketRow | None, local: TcpEnd, remote: TcpEnd) -> int | None:
    """The uid of `row`, if the row is about this very connection and still has an owner. The one place that decides."""
    if row is None or (row.local, row.remote) != (local, remote):
        return None
    if row.state != TCP_ESTABLISHED or row.inode == 0:
        return None
    return certain_uid(row.uid)


def certain_uid(uid: int, proc: Path = Path("/proc")) -> int | None:
    """`uid`, or None where the number may stand for users whom this user namespace cannot name (user_namespaces(7))."""
    if uid == 0xFFFF_FFFF:  # (uid_t) -1: the kernel's "nobody at all"
        return None
    try:
        overflow = int((proc / "sys/kernel/overflowuid").read_text())
        if uid != overflow:
            return uid
        everyone = (proc / "self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except (OSError, ValueError):
        return None if uid == 65534 else uid
    return uid if everyone else None


# --- netlink -------------------------------------------------------------------------------------------------------


def look_up(local: TcpEnd, remote: TcpEnd) -> SocketRow | None:
    """Ask netlink for one socket. None: there is none (or this kernel lacks ``tcp_diag``).

    The row may be another socket's (a listener): compare its ends. Raises NetlinkUnusableError.
    """
    if not hasattr(socket, "AF_NETLINK"):
        raise NetlinkUnusableError
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
            netlink.settimeout(NETLINK_TIMEOUT)
            netlink.sendto(diag_question(local, remote), (0, 0))
            answer, sender = netlink.recvfrom(8192)  # one answer is 72 bytes and a few attributes
    except OSError as exc:
        raise NetlinkUnusableError from exc
    if sender[0] != 0:  # port id 0 is the kernel; nobody else may answer
        raise NetlinkUnusableError
    return parse_diag_answer(answer)


def diag_question(local: TcpEnd, remote: TcpEnd) -> bytes:
    """The netlink message that asks for exactly one TCP socket."""
    family = socket.AF_INET if isinstance(local.address, IPv4Address) else socket.AF_INET6
    body = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFF_FFFF)
        + _PORTS.pack(local.port, remote.port, local.address.packed, remote.address.packed)
        + _SCOPE.pack(0, INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE)
    )
    return _HEADER.pack(_HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, _SEQUENCE, 0) + body


def parse_diag_answer(answer: bytes) -> SocketRow | None:
    """A SocketRow from the kernel's answer, None for "no such entry". Raises NetlinkUnusableError for the rest."""
    try:
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(answer)
        body = answer[_HEADER.size : length]
        if sequence != _SEQUENCE or length > len(answer):
            raise NetlinkUnusableError
        if kind == NLMSG_ERROR:
            (negative,) = struct.unpack_from("=i", body)
            if -negative == errno.ENOENT:
                return None
            raise NetlinkUnusableError
        if kind != SOCK_DIAG_BY_FAMILY:
            raise NetlinkUnusableError
        family, state, _timer, _retrans, ids, _expires, _rqueue, _wqueue, uid, inode = _MESSAGE.unpack_from(body)
        local_port, remote_port, local, remote = _PORTS.unpack_from(ids)
    except struct.error as exc:
        raise NetlinkUnusableError from exc
    return SocketRow(
        local=TcpEnd(_address(family, local), local_port),
        remote=TcpEnd(_address(family, remote), remote_port),
        state=state,
        uid=uid,
        inode=inode,
    )


def _address(family: int, packed: bytes) -> IPAddress:
    if family == socket.AF_INET:
        return IPv4Address(packed[:4])
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


# --- /proc ---------------------------------------------------------------------------------------------------------


def read_proc(local: TcpEnd, remote: TcpEnd, proc: Path = Path("/proc")) -> Iterator[SocketRow]:
    """Every row of /proc/net/tcp and tcp6 about this connection. A client may reach IPv4 through an IPv6 socket."""
    # A busy host has tens of thousands of rows: most are passed over before they are parsed.
    ports = (b":%04X " % local.port, b":%04X " % remote.port)
    for name in ("tcp", "tcp6"):
        try:
            with (proc / "net" / name).open("rb") as table:
                likely = (line for line in table if ports[0] in line and ports[1] in line)
                yield from (row for row in parse_proc_rows(likely) if (row.local, row.remote) == (local, remote))
        except OSError:
            continue  # no IPv6, or no /proc: nothing known, which refuses


def parse_proc_rows(lines: Iterable[bytes]) -> Iterator[SocketRow]:
    """Rows of /proc/net/tcp{,6}: ``sl local remote st queues timer retrnsmt uid timeout inode …``; others are left."""
    for line in lines:
        fields = line.split(maxsplit=10)
        try:
            yield SocketRow(
                local=_proc_end(fields[1]),
                remote=_proc_end(fields[2]),
                state=int(fields[3], 16),
                uid=int(fields[7]),
                inode=int(fields[9]),
            )
        except (IndexError, ValueError):
            continue  # the heading, or a line of a kind we do not know


def _proc_end(text: bytes) -> TcpEnd:
    """``0100007F:1F90``: 32-bit words in the host's byte order, then the port as a number."""
    words, port = text.split(b":")
    raw = bytes.fromhex(words.decode("ascii"))
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    if len(raw) not in (4, 16):
        raise ValueError(text)
    return TcpEnd(_address(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw), int(port, 16))


def _only_one(rows: Iterable[SocketRow]) -> SocketRow | None:
    """The table is read while it changes. Two rows for one connection contradict each other: then nothing is known."""
    found = list(rows)
    return found[0] if len(found) == 1 else None


# --- who listens ---------------------------------------------------------------------------------------------------


def listening_program(port: int, proc: Path = Path("/proc")) -> str:
    """``psql (pid 42)``, or "" where it cannot be seen: for an error message only, never for a decision."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        try:
            with (proc / "net" / name).open("rb") as table:
                inodes |= {f"socket:[{row.inode}]" for row in parse_proc_rows(table) if _listens(row, port)}
        except OSError:
            continue
    for process in proc.glob("[0-9]*") if inodes else ():
        try:
            if any(_link(fd) in inodes for fd in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # another user's process, or one that has just ended
    return ""


def _listens(row: SocketRow, port: int) -> bool:
    return row.local.port == port and row.state == TCP_LISTEN and row.inode != 0


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
