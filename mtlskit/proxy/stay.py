"""A client's stay in a tunnel: what it holds there, given back all at once when it has left.

A stay begins in the task that welcomes the client and ends there too, unless a session comes of it: that one outlives
the task (`mtlskit.proxy.established`), so what it holds cannot hang on a `with` block of the task's.
"""

from __future__ import annotations

from collections.abc import Callable

from mtlskit.net.dial import Route
from mtlskit.proxy.cancel import CancelKey, CancelKeys
from mtlskit.proxy.seats import Seats

__all__ = ["Stay"]


class Stay:
    """One client's. Every method is idempotent."""

    __slots__ = ("_key", "_keys", "_leave", "_route", "_seats", "established", "serial")

    def __init__(self, keys: CancelKeys, leave: Callable[[], None]) -> None:
        """`leave` is called once, at the end."""
        self.established = False
        """The client has a session, and whoever looks after that will call `end`."""
        self.serial: str | None = None
        """Of the client certificate that its connection is made with; None: it has not come to that yet."""
        self._keys = keys
        self._key: CancelKey | None = None
        self._route: Route | None = None
        self._leave: Callable[[], None] | None = leave
        self._seats: Seats | None = None

    def sit(self, seats: Seats) -> None:
        """Take a seat until the end."""
        if self._seats is None:
            seats.take()
            self._seats = seats

    def note_key(self, key: CancelKey, route: Route) -> None:
        """Remember the key of the session until the end. Only the last one: a server that repeats itself must not fill
        our memory."""
        self._forget_key()
        self._keys.note(key, route)
        self._key, self._route = key, route

    def end(self) -> None:
        """Give everything back."""
        self._forget_key()
        if self._seats is not None:
            self._seats.give_back()
            self._seats = None
        if self._leave is not None:
            leave, self._leave = self._leave, None
            leave()

    def _forget_key(self) -> None:
        if self._key is not None and self._route is not None:
            self._keys.forget(self._key, self._route)
            self._key = self._route = None
