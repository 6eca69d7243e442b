"""A watcher that counts its turns, and says when it has nothing to do."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from mtlskit.net.relay import Relay
from mtlskit.net.relay.watcher import Watcher

_DEADLINE = 30.0  # seconds; a safety net, nothing is measured by it


@dataclass
class Watch:
    """What is known about the watchers made with `watched`; tests may read and wait, the relay's thread writes."""

    turns: int = 0
    """How often a select has returned."""
    readies: list[int] = field(default_factory=list)
    """How many sockets were ready, for each turn."""
    asleep: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
    on_turn: Callable[[int], None] = lambda turn: None

    def settle(self, relay: Relay) -> int:
        """Wait until select finds nothing ready and sleeps; the count of turns so far.

        What was sent to a socket of the relay before the call has been dealt with. Takes one turn, for the command
        that makes sure of that.
        """
        awake = threading.Event()
        relay._submit(awake.set)
        assert awake.wait(_DEADLINE)
        with self.changed:
            assert self.changed.wait_for(lambda: self.asleep, _DEADLINE)
            return self.turns


def watched(base: Callable[[], Watcher], watch: Watch) -> Callable[[], Watcher]:
    """A factory of `base` watchers that report to `watch`."""

    def make() -> Watcher:
        watcher = base()
        select = watcher.select

        def reporting(timeout: float | None = None) -> list[tuple[int, int]]:
            ready = select(0)
            if not ready and (timeout is None or timeout > 0):
                with watch.changed:
                    watch.asleep = True
                    watch.changed.notify_all()
                ready = select(timeout)
            with watch.changed:
                watch.asleep = False
                watch.turns += 1
                watch.readies.append(len(ready))
            watch.on_turn(watch.turns)
            return ready

        watcher.select = reporting  # type: ignore[method-assign]
        return watcher

    return make
