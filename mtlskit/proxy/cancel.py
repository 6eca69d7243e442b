"""Which server connection owns which cancel key, and how often strangers' keys are passed on.

A CancelRequest names a process and a secret, not a server (PostgreSQL documentation, protocol flow, "Canceling
Requests in Progress"). Behind a name with several addresses it must reach the one that issued the key, so keys are
noted with the route they came over for as long as their session lives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mtlskit.net.dial import Route

__all__ = ["CancelKey", "CancelKeys", "TokenBucket"]

CancelKey: TypeAlias = tuple[int, bytes]
"""The process id and the secret of BackendKeyData."""


class CancelKeys:
    """The keys of the sessions that are alive. Secrets are compared, never shown."""

    def __init__(self) -> None:
        self._routes: dict[CancelKey, Route] = {}

    def note(self, key: CancelKey, route: Route) -> None:
        """Remember a key, until `forget` is called with the same."""
        self._routes[key] = route

    def forget(self, key: CancelKey, route: Route) -> None:
        """Its session has ended."""
        # A server that hands out a key again has ended its first owner; only the newest note is removed.
        if self._routes.get(key) is route:
            del self._routes[key]

    def route_of(self, process_id: int, secret: bytes) -> Route | None:
        """Where the owner of this key lives, if it is one of ours."""
        return self._routes.get((process_id, secret))

    def routes(self) -> frozenset[Route]:
        """Every address that has a session now."""
        return frozenset(self._routes.values())

    def __len__(self) -> int:
        return len(self._routes)


@dataclass
class TokenBucket:
    """A rate limit that allows a burst. `rate` in events per second; times in seconds of any steady clock."""

    rate: float
    burst: int
    _tokens: float | None = None
    _at: float = 0.0

    def take(self, now: float) -> bool:
        """Whether one more event is allowed now."""
        tokens = float(self.burst) if self._tokens is None else self._tokens + (now - self._at) * self.rate
        tokens = min(float(self.burst), tokens)
        self._at = now
        allowed = tokens >= 1.0
        self._tokens = tokens - 1.0 if allowed else tokens
        return allowed
