"""Noticing that the files of an identity have been replaced: a look at their marks every few seconds.

Files are replaced one after another, so what differs from what was read is loaded once it has looked the same twice in
a row. Whatever was tried is noted by its marks, so that a pair that will not do is not tried again before it has
changed, and a signal or a `mtlskit reload` in between leaves nothing to do.

The look happens in a thread. A disk that hangs keeps that one thread, and signals still work for identities on others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio

from mtlskit.config.values import IdentityConfig
from mtlskit.net.identity_marks import Marks, marks_of
from mtlskit.proxy.events import IdentityChanged
from mtlskit.proxy.tunnel import Tunnel, TunnelState
from mtlskit.telemetry import Emit

__all__ = ["LOOK_EVERY", "FileWatch"]

LOOK_EVERY: Final = 5.0
"""Seconds. Two looks pass before a change is acted on; certificates live for days. Costs some 15 µs a tunnel."""


class FileWatch:
    """Looks at the files of `tunnels`, and calls `reload` with those whose identity has been replaced."""

    def __init__(
        self, tunnels: Sequence[Tunnel], reload: Callable[[list[Tunnel]], Awaitable[object]], emit: Emit
    ) -> None:
        self._tunnels = tunnels
        self._reload = reload
        self._emit = emit
        self._limiter = trio.CapacityLimiter(1)
        self._seen: dict[IdentityConfig, Marks] = {}

    async def run(self, every: float = LOOK_EVERY) -> None:
        """Look every so many seconds, until cancelled."""
        while True:
            await trio.sleep(every)
            await self.look()

    async def look(self) -> None:
        """Look once; reload what has changed and settled."""
        watched = {
            tunnel: tunnel.tried
            for tunnel in self._tunnels
            if tunnel.state in (TunnelState.SERVING, TunnelState.FAILED) and tunnel.tried is not None
        }
        identities = {tunnel.config.identity for tunnel in watched}

        def look() -> dict[IdentityConfig, Marks]:
            return {identity: marks_of(identity) for identity in identities}

        before = self._seen
        try:
            self._seen = await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=self._limiter)
        except RuntimeError:  # "can't start new thread": the host is short of something, and the next look may succeed
            return
        due = []
        for tunnel, tried in watched.items():
            identity = tunnel.config.identity
            found = self._seen[identity]
            # Neither what had been tried when this look began, nor what somebody has loaded while it went on.
            if found == before.get(identity) and found not in (tried, tunnel.tried):
                due.append(tunnel)
                self._emit(
                    IdentityChanged(tunnel=tunnel.config.name, identity=identity.name, files=found.changed(tried))
                )
        if due:
            await self._reload(due)
