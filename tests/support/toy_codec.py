"""A codec that does what the test tells it, and keeps what it asked the relay to send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Moves", "ToyCodec"]

Buffer = bytes | bytearray | memoryview


class Moves(NamedTuple):
    """What to send."""

    to_server: Sequence[Buffer] = ()
    to_client: Sequence[Buffer] = ()


class ToyCodec:
    """`up` and `down` say what becomes of what the client and the upstream sent. By default everything passes."""

    def __init__(
        self,
        up: Callable[[memoryview], Moves] = lambda data: Moves(to_server=[data]),
        down: Callable[[memoryview], Moves] = lambda data: Moves(to_client=[data]),
    ) -> None:
        self._up = up
        self._down = down
        self.client_may_send = True
        self.from_client = 0
        self.from_server = 0
        self.to_server = bytearray()
        """All that was asked to be sent to the upstream, at the time when it was asked."""
        self.to_client = bytearray()

    def receive_from_client(self, data: memoryview) -> Moves:
        self.from_client += len(data)
        return self._noted(self._up(data))

    def receive_from_server(self, data: memoryview) -> Moves:
        self.from_server += len(data)
        return self._noted(self._down(data))

    def _noted(self, moves: Moves) -> Moves:
        self.to_server += b"".join(moves.to_server)
        self.to_client += b"".join(moves.to_client)
        return moves
