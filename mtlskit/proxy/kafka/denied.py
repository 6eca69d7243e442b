"""What the cluster refuses by name, told to the log once: a prefix that was forgotten, or a right that is missing.

Clients put it in words of their own, if in any, and none of them knows of the prefix that names have on a plan which
many share. Where the tunnel knows it (an add-on's), an unknown topic is told of as well, if its name lacks the prefix.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mtlskit.proxy.events import ClusterDenied
from mtlskit.telemetry import Event
from mtlskit.wire.kafka.denials import Denied

__all__ = ["UNKNOWN_TOPIC", "Denials"]

UNKNOWN_TOPIC: Final = 3
"""The error of a topic that is not there, or not yet."""

_MOST_TOLD: Final = 256
"""Names that are told of. Clients choose them, and may choose a new one each time."""


class Denials:
    """Of one tunnel. `hear` is called by the relay's thread, and by nobody else."""

    def __init__(self, tunnel: str, prefix: Callable[[], str], tell: Callable[[Event], None]) -> None:
        """`prefix` tells what names begin with now, empty where that is not known. `tell` may be called there."""
        self._tunnel = tunnel
        self._prefix = prefix
        self._tell = tell
        self._told: set[tuple[str, str]] = set()

    def hear(self, denied: Denied) -> None:
        """The cluster refuses a name. Never raises."""
        key = (denied.kind, denied.name)
        if key in self._told or len(self._told) >= _MOST_TOLD:
            return
        prefix = self._prefix()
        if denied.error == UNKNOWN_TOPIC and (not prefix or denied.name.startswith(prefix)):
            return  # a client may ask before a topic is made, and then it is no concern of ours
        self._told.add(key)
        self._tell(
            ClusterDenied(
                tunnel=self._tunnel, kind=denied.kind, resource=denied.name, error=denied.error, prefix=prefix
            )
        )
