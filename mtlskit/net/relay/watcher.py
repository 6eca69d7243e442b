"""What tells the relay which sockets are ready: epoll itself where there is one, any selector elsewhere.

`selectors.EpollSelector` makes a key, an iterator step and two masks of every event. The relay needs a descriptor and
a mask, and has little else to do for a small message: without that layer, a message costs about a tenth less.

Masks are those of poll(2), which epoll shares: `READ`, `WRITE`, and bits that nobody asked for (an error, a hang-up).
Whoever sees such a bit tries what it was waiting for, and hears the reason from that call.
"""

from __future__ import annotations

import select
import selectors
import sys
from typing import Protocol

__all__ = ["READ", "WRITE", "SelectorWatcher", "Watcher", "default_watcher"]

READ = 0x001
"""POLLIN."""

WRITE = 0x004
"""POLLOUT."""


class Watcher(Protocol):
    """Watches descriptors, level-triggered. Every method raises `OSError` as the system gives it."""

    def register(self, fd: int, mask: int) -> None:
        """Watch another descriptor. Raises LookupError or OSError where it is watched already."""

    def modify(self, fd: int, mask: int) -> None:
        """Watch a descriptor for other events."""

    def unregister(self, fd: int) -> None:
        """Forget a descriptor. Raises LookupError or OSError where it is not watched."""

    def select(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """Wait up to `timeout` seconds (None: for ever); descriptors and what they are ready for.

        Raises ValueError where a selector cannot watch a descriptor that it has taken.
        """

    def close(self) -> None:
        """Forget all."""


class SelectorWatcher:
    """Any `selectors` selector."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector

    def register(self, fd: int, mask: int) -> None:
        """See `Watcher`."""
        self._selector.register(fd, _events(mask))

    def modify(self, fd: int, mask: int) -> None:
        """See `Watcher`."""
        self._selector.modify(fd, _events(mask))

    def unregister(self, fd: int) -> None:
        """See `Watcher`."""
        self._selector.unregister(fd)

    def select(self, timeout: float | None = None) -> list[tuple[int, int]]:
        """See `Watcher`."""
        return [(key.fd, _mask(events)) for key, events in self._selector.select(timeout)]

    def close(self) -> None:
        """See `Watcher`."""
        self._selector.close()


def _events(mask: int) -> int:
    return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)


def _mask(events: int) -> int:
    return (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0)


if sys.platform == "linux":

    class EpollWatcher:
        """Linux's epoll, with nothing in between."""

        def __init__(self) -> None:
            epoll = select.epoll()
            self.register = epoll.register
            self.modify = epoll.modify
            self.unregister = epoll.unregister
            self.select = epoll.poll
            self.close = epoll.close


def default_watcher() -> Watcher:
    """The best that this platform has."""
    if sys.platform == "linux":
        return EpollWatcher()
    return SelectorWatcher(selectors.DefaultSelector())
