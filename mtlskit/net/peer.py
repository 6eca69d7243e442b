"""Who is on the other end of a socket that we have accepted: an address, and where the kernel tells, a local user.

Two sources, both of them the kernel and neither the client:

* a unix socket: SO_PEERCRED (unix(7)), the user who called `connect`;
* TCP over loopback: the owner of the client's own socket (`mtlskit.net.socktables`).

Asking blocks for about 0.1 ms (netlink; /proc takes milliseconds); it is meant for an accept handler, once a client.
Everything unclear is None, and the front door refuses None when it was told to admit certain users only.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final, TypeAlias

import trio

from mtlskit.errors import ClientNotAllowed, Code
from mtlskit.net.socktables import TCP_ESTABLISHED, IPAddress, TcpEnd, certain_uid, owner_of

__all__ = ["LocalUser", "Peer", "identify", "local_user", "peer_address", "users_can_be_known"]

AcceptedSocket: TypeAlias = socket.socket | trio.socket.SocketType

_UCRED: Final = struct.Struct("=iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True)
class LocalUser:
    """A user of this host, by number: names are for people and may take a directory server to find."""

    uid: int

    def __str__(self) -> str:
        return f"user id {self.uid}"


@dataclass(frozen=True)
class Peer:
    """The other end. `address` and `port` are None on a unix socket; `user` is None where the kernel does not tell."""

    address: IPAddress | None
    port: int | None
    user: LocalUser | None = None

    def __str__(self) -> str:
        if self.address is None:
            return "a unix socket" if self.user is None else f"{self.user} on a unix socket"
        where = f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"
        return where if self.user is None else f"{where} ({self.user})"


def users_can_be_known() -> bool:
    """Whether this platform tells which local user a client is: Linux does."""
    return hasattr(socket, "SO_PEERCRED") and hasattr(socket, "AF_NETLINK")


def identify(sock: AcceptedSocket, *, with_user: bool) -> Peer:
    """The peer of an accepted socket. `with_user` asks the kernel for the local user too (`FrontDoor.needs_user`).

    Raises ClientNotAllowed if the client is gone already: without an address it could pass for a unix peer.
    """
    user = local_user(sock) if with_user else None
    address, port = peer_address(sock)
    return Peer(address, port, None if user is None else LocalUser(user))


def peer_address(sock: AcceptedSocket) -> tuple[IPAddress, int] | tuple[None, None]:
    """Address and port of the client; (None, None) on a unix socket. An IPv4-mapped IPv6 address becomes IPv4.

    Raises ClientNotAllowed if the client is gone already.
    """
    if sock.family == getattr(socket, "AF_UNIX", None):
        return None, None
    try:
        end = _end(sock.getpeername())
    except OSError as exc:
        raise ClientNotAllowed(Code.DOOR_ADDRESS, "a client went away before its address could be read") from exc
    return end.address, end.port


def local_user(sock: AcceptedSocket) -> int | None:
    """The uid of the client's user, or None: another host, another platform, gone already, or anything unclear.

    A client that has closed or half-closed its side no longer counts: its socket has no owner who could be asked.
    Never raises.
    """
    if not users_can_be_known():
        return None
    try:
        if sock.family == socket.AF_UNIX:
            return _unix_user(sock)
        if sock.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        return _loopback_user(sock)
    except (OSError, struct.error):  # struct.error: a kernel that answers with less than a struct ucred
        return None


def _unix_user(sock: AcceptedSocket) -> int | None:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(credentials)
    return certain_uid(uid)


def _loopback_user(sock: AcceptedSocket) -> int | None:
    theirs, ours = _end(sock.getpeername()), _end(sock.getsockname())
    # A client that is gone already would send the look-up through the whole table where netlink finds nothing.
    if not theirs.address.is_loopback or not _is_established(sock):
        return None
    uid = owner_of(theirs, ours)
    # A client may reset its connection after it has sent data, and those bytes can still be read here. Its port is
    # then free for somebody else, whose socket the look-up would find. As long as our side is ESTABLISHED *after* the
    # look-up, the four numbers have belonged to this connection all the time.
    return uid if _is_established(sock) else None


def _is_established(sock: AcceptedSocket) -> bool:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)  # struct tcp_info begins with tcpi_state
    return info == bytes([TCP_ESTABLISHED])


def _end(name: tuple[str, int] | tuple[str, int, int, int]) -> TcpEnd:
    address = ip_address(name[0])
    return TcpEnd((address.version == 6 and address.ipv4_mapped) or address, name[1])
