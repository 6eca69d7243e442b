"""The nodes that have no listener: why, when it is tried again, and that no more of them are kept than can be read.

It is the cluster that says how many nodes there are, and a response has room for a million. Those beyond the first
thousand are neither tried nor kept, and the log hears once that there are more.

An attempt costs system calls in the relay's thread, and every response that names the node would ask for another. So
each further one waits twice as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mtlskit.errors import ListenError

__all__ = ["Refusals"]

_LONGEST: Final = 30.0
"""Seconds between two attempts to open the listener of one node, at most."""


@dataclass(frozen=True)
class _Refusal:
    error: ListenError
    pause: float
    again: float
    """When it is worth while to try (monotonic seconds)."""


class Refusals:
    """Of one tunnel. The owner's lock guards it."""

    def __init__(self) -> None:
        self._nodes: dict[int, _Refusal] = {}

    def __contains__(self, node_id: int) -> bool:
        return node_id in self._nodes

    def __iter__(self) -> Iterator[int]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    @property
    def errors(self) -> dict[int, ListenError]:
        """Why, in the order of the node ids."""
        return {node_id: refusal.error for node_id, refusal in sorted(self._nodes.items())}

    def waits(self, node_id: int, now: float) -> bool:
        """Whether the node was tried so short a time ago that it is not tried again."""
        refusal = self._nodes.get(node_id)
        return refusal is not None and now < refusal.again

    def add(self, node_id: int, error: ListenError, now: float, pause: float) -> bool:
        """The node was tried in vain; `pause` is in seconds, for the first time. Whether there is something to tell."""
        before = self._nodes.get(node_id)
        if before is not None:
            pause = min(2 * before.pause, _LONGEST)
        self._nodes[node_id] = _Refusal(error, pause, now + pause)
        return before is None or before.error.code is not error.code

    def forget(self, node_id: int) -> None:
        """The node has its listener."""
        self._nodes.pop(node_id, None)
