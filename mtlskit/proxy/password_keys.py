"""The keys that SCRAM makes of one password: derived in a thread, and remembered.

Deriving takes milliseconds of computing by design (RFC 5802 section 2.2: PBKDF2), up to a second for the most
iterations that we take, and a server asks for the same salt and count each time: that of its stored verifier.
"""

from __future__ import annotations

from typing import Final

import trio

from mtlskit.wire.postgres.scram import ScramKeys

__all__ = ["PasswordKeys"]

_REMEMBERED: Final = 4
"""Pairs of salt and count. A server has one for a user; a few more while a change travels to its followers."""


class PasswordKeys:
    """The keys of one password."""

    def __init__(self, password: str) -> None:
        self._password = password
        self._known: dict[tuple[bytes, int], ScramKeys] = {}
        # One at a time: a hundred clients at once want the same keys. And a thread that the look-ups of names, which
        # may hang, do not keep from us.
        self._turn = trio.Lock()
        self._limiter = trio.CapacityLimiter(1)

    async def derive(self, salt: bytes, iterations: int) -> ScramKeys:
        """The keys for this challenge."""
        async with self._turn:
            keys = self._known.get((salt, iterations))
            if keys is None:
                keys = await trio.to_thread.run_sync(
                    ScramKeys.derive, self._password, salt, iterations, abandon_on_cancel=True, limiter=self._limiter
                )
                while len(self._known) >= _REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[salt, iterations] = keys
        return keys
