"""The places of a tunnel: seats for sessions, and a little standing room for those who only get an answer.

A client that the front door refuses is read until it can be told so, which takes as long as it likes within a
deadline. It must not hold a seat meanwhile: whoever may not come in could then keep out whoever may.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["STANDING_ROOM", "Seats"]

STANDING_ROOM = 64
"""Clients beyond `max_connections` that are still heard: to be told why they get no session, or to cancel a query,
which must work in a full tunnel just then. Beyond these, a client is closed without a word."""


class Seats:
    """Counts the clients of one tunnel."""

    def __init__(self, seats: int, standing_room: int = STANDING_ROOM) -> None:
        self.seated = 0
        self.standing = 0
        self._seats = seats
        self._standing_room = standing_room

    @property
    def free(self) -> bool:
        """Whether there is a seat for one more session."""
        return self.seated < self._seats

    @property
    def crowded(self) -> bool:
        """Whether another client could not even stand."""
        return self.seated + self.standing >= self._seats + self._standing_room

    def take(self) -> None:
        """Take a seat; whoever does has seen that one is free."""
        self.seated += 1

    def give_back(self) -> None:
        """Free a seat that was taken."""
        self.seated -= 1

    @contextmanager
    def stand(self) -> Iterator[bool]:
        """Stand while the block lasts; False if there is no room, and then the block must not serve the client."""
        if self.standing >= self._standing_room:
            yield False
            return
        self.standing += 1
        try:
            yield True
        finally:
            self.standing -= 1
