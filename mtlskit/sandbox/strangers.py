"""What becomes of clients from addresses that no IP rule lets in.

Heroku's firewall drops their packets, so a connection attempt stays unanswered until the client gives up. Here the
kernel has taken the connection before anybody can be asked, so the nearest thing is done: it is held, nothing is ever
said, and the client waits for the answer to its first packet as it would have waited for the connection. What it sends
is thrown away unseen, because only a socket that is read tells when the other side has left.

Holding costs a file descriptor, so there is a bound. It has nothing to do with the number of clients that are let in:
strangers cannot take a place from them. Beyond it a stranger is reset at once; the fault `reset` does that to all of
them.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import trio

from mtlskit.config.values import TcpAddress
from mtlskit.sandbox.events import AddressRefused
from mtlskit.telemetry import Emit

__all__ = ["Admit", "Refusal", "Strangers", "everybody", "reset"]

_MOST_DISCARDED: Final = 65_536
"""Bytes. A client that waits for an answer has sent less than 1,000; one that goes on sending is read no further."""
_READ_SIZE: Final = 4_096
_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER on, for no time: close() sends a reset."""


@dataclass(frozen=True)
class Refusal:
    """Why an address is not let in. `reset`: it is told at once, and not left in the dark."""

    reason: str
    reset: bool = False


Admit: TypeAlias = Callable[[str], Refusal | None]
"""Asked with a client's IP address before a byte of it is read. None: it may come in."""


def everybody(host: str) -> Refusal | None:
    """An `Admit` without rules."""
    return None


class Strangers:
    """Those who are held. `silence`: seconds until one is let go; `most`: how many are held at a time."""

    def __init__(self, *, silence: float, most: int) -> None:
        self.held = 0
        self._silence = silence
        self._most = most

    async def let_in(self, sock: trio.socket.SocketType, admit: Admit, emit: Emit) -> TcpAddress | None:
        """Where a client is that may come in. None: it may not, and its connection is over. Call it first of all."""
        try:
            host, port = sock.getpeername()[:2]
        except OSError:  # it has left already
            sock.close()
            return None
        peer = TcpAddress(host, port)
        refusal = admit(host)
        if refusal is None:
            return peer
        answer = "a reset" if self.resets(refusal) else "silence"
        emit(AddressRefused(peer=str(peer), reason=refusal.reason, answer=answer))
        await self.turn_away(sock, refusal)
        return None

    def resets(self, refusal: Refusal) -> bool:
        """Whether the next one is reset, and not held."""
        return refusal.reset or self.held >= self._most

    async def turn_away(self, sock: trio.socket.SocketType, refusal: Refusal) -> None:
        """Holds a connection until its client leaves, or resets it. Closes it either way."""
        try:
            if not self.resets(refusal):
                self.held += 1
                try:
                    with trio.move_on_after(self._silence), suppress(OSError):
                        await _until_left(sock)
                finally:
                    self.held -= 1
        finally:
            reset(sock)


async def _until_left(sock: trio.socket.SocketType) -> None:
    discarded = 0
    while data := await sock.recv(_READ_SIZE):
        discarded += len(data)
        if discarded >= _MOST_DISCARDED:
            await trio.sleep_forever()


def reset(sock: trio.socket.SocketType) -> None:
    """Closes a connection as a host does that has nobody for it."""
    with suppress(OSError):  # the client was quicker
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()
