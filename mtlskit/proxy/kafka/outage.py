"""Telling of a broker that cannot be reached: at once, and then now and again, not for each client.

Kafka clients that are turned away come back several times a second, each of them, for as long as the broker is away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from mtlskit.errors import Code, UpstreamError

__all__ = ["TOLD_EVERY", "Outage"]

TOLD_EVERY: Final = 30.0
"""Seconds between two tellings of one outage, at least."""


@dataclass
class Outage:
    """Of one place to connect to.

    `tell` gets the error, and how many clients were turned away since it was last called; `over` is called when a
    connection has been made again.
    """

    tell: Callable[[UpstreamError, int], None]
    over: Callable[[], None]
    error: UpstreamError | None = None
    """Why the last connection could not be made; None where it was made, or none was wanted yet."""
    at: datetime | None = None
    _untold: int = field(default=0, init=False)
    _told_at: float = field(default=float("-inf"), init=False)
    _told: Code | None = field(default=None, init=False)
    """Of what was told last."""
    _made: bool = field(default=False, init=False)
    """The connection was made before it failed."""

    def failed(self, error: UpstreamError, now: float) -> None:
        """A connection could not be made. `now`: trio's clock."""
        self._failed(error, now, news=self.error is None or _trouble(self.error.code) is not _trouble(error.code))
        self._made = False

    def failed_after_all(self, error: UpstreamError, now: float) -> None:
        """A connection was made, and broken off before it was of any use.

        The next one will be made as well, which says nothing, so it is told by the clock alone.
        """
        self._failed(error, now, news=self._told is not _trouble(error.code))
        self._made = True

    def _failed(self, error: UpstreamError, now: float, *, news: bool) -> None:
        self.error, self.at = error, datetime.now(UTC)
        self._untold += 1
        if news or now - self._told_at >= TOLD_EVERY:
            self.tell(error, self._untold)
            self._untold, self._told_at, self._told = 0, now, _trouble(error.code)

    def worked(self) -> None:
        """A connection was made."""
        if self.error is not None:
            self.error = self.at = None
            if not self._made:
                self._untold = 0
                self.over()


def _trouble(code: Code) -> Code:
    """A broker that is going away resets some connections and closes others: one trouble, and told as one."""
    return Code.UPSTREAM_CLOSED if code is Code.TCP_RESET else code
