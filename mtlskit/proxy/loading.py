"""Loading one tunnel's identity: in a thread, with the marks of what was read, and never twice at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar

import trio

from mtlskit.config.values import Negotiation, TunnelConfig, TunnelKind
from mtlskit.errors import Code, IdentityError
from mtlskit.net.dial import POSTGRES_ALPN
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.net.identity_marks import Marks, marks_of

__all__ = ["IdentityLoader"]

_Found = TypeVar("_Found")


class IdentityLoader:
    """Reads the files of one tunnel's identity whenever it is told to."""

    def __init__(self, config: TunnelConfig) -> None:
        self._config = config
        self._limiter = trio.CapacityLimiter(1)
        """Of its own: look-ups that hang fill the threads that trio shares, and a reload must not wait for them."""
        self.tried: Marks | None = None
        """Of the files as they were right before the last attempt to read them, whether or not it succeeded."""
        self.tried_at: datetime | None = None
        """When that attempt ended."""

    async def in_thread(self, work: Callable[[], _Found]) -> _Found:
        """Run what may block on the disk: sessions in flight must not wait for it, and neither must the end."""
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)

    async def load(self) -> IdentitySnapshot:
        """Read and check. Raises IdentityError."""
        config = self._config
        direct = config.kind is TunnelKind.POSTGRES and config.negotiation is Negotiation.DIRECT
        alpn = (POSTGRES_ALPN,) if direct else ()

        def load() -> IdentitySnapshot:
            # Before they are read: what changes meanwhile has other marks afterwards, and is read again.
            self.tried = marks_of(config.identity)
            return load_snapshot(config.identity, verify=config.verify, alpn=alpn)

        try:
            return await self.in_thread(load)
        except OSError as exc:  # what is about no file of the identity: no descriptors left, no room for a copy
            raise IdentityError(
                Code.FILE_UNREADABLE,
                f"{config.identity.cert}: the identity cannot be loaded: {exc.strerror or exc}",
                "look at this host's limits of open files (`ulimit -n`), memory and disk, then reload",
            ) from exc
        finally:
            self.tried_at = datetime.now(UTC)
