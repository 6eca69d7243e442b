"""Options that every TCP connection of ours gets, either side."""

from __future__ import annotations

import socket
from contextlib import suppress

import trio

__all__ = ["tune"]

_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""A peer that vanished (a laptop's lid, a VPN) is noticed after two minutes of silence, 60 s and four times 15 s, and
before most NAT tables forget us. TCP_KEEPALIVE is what macOS calls TCP_KEEPIDLE."""


def tune(sock: trio.socket.SocketType | socket.socket) -> None:
    """Send at once (a query waits for its answer), and notice a peer that has vanished."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
