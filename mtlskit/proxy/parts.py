"""What a tunnel lends to each of its sessions."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property

from mtlskit.config.values import Endpoint, TunnelConfig, TunnelKind
from mtlskit.errors import UpstreamError, UpstreamLost, UpstreamTimeout, UpstreamUnreachable
from mtlskit.net.dial import Dialler, Upstream
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import RelayPolicy
from mtlskit.net.warm import WarmPool
from mtlskit.proxy.addon import Follower
from mtlskit.proxy.cancel import CancelKeys, TokenBucket
from mtlskit.proxy.established import Established
from mtlskit.proxy.events import UpstreamSkipped, described
from mtlskit.telemetry import Emit

__all__ = ["TunnelParts"]


@dataclass
class TunnelParts:
    """`identity` is the one reference that a reload swaps; a session looks at it once, when it dials.

    `dialler` is swapped as well where the upstream is an add-on's, by the `follower` that asks for it.
    """

    config: TunnelConfig
    dialler: Dialler
    identity: IdentitySnapshot
    established: Established
    emit: Emit
    cancel_keys: CancelKeys
    warm: WarmPool | None = None
    follower: Follower | None = None
    draining: bool = False
    """The door is closed: who has come in and not yet asked for a session gets none."""
    stray_cancels: TokenBucket = field(default_factory=lambda: TokenBucket(rate=1.0, burst=10))
    """Cancel requests with keys that are not ours: each costs a TLS handshake with every address of the upstream."""
    failed: tuple[UpstreamError, datetime] | None = None
    """Why the last connection could not be made, and when; None where it was made, or none was wanted yet."""
    skipped: set[Endpoint] = field(default_factory=set)
    """Endpoints that have been told of as failing, and have not worked since."""

    @cached_property
    def policy(self) -> RelayPolicy:
        """How the sessions end."""
        linger = self.config.timeouts.linger
        if self.config.kind is not TunnelKind.TCP:
            # PostgreSQL and Kafka end both directions at once, and their messages carry their own lengths.
            return RelayPolicy(linger=linger, upstream_end_is_final=True)
        # Only TLS knows whether the bytes were all of them: a cut-off stream must not look like a finished one.
        return RelayPolicy(linger=linger, ragged_end_resets=True)

    async def dial(self) -> Upstream:
        """Connect to the first endpoint that takes us; the log hears of those that did not. Raises UpstreamError.

        Where none does and the upstream is an add-on's, Heroku is asked whether it has moved.
        """
        try:
            upstream = await self._dial()
        except UpstreamError as exc:
            self.failed = exc, datetime.now(UTC)
            raise
        self.failed = None
        taken = upstream.route.endpoint
        for endpoint, error in upstream.skipped:
            if endpoint not in self.skipped:
                self.skipped.add(endpoint)
                facts = described(error)
                self.emit(
                    UpstreamSkipped(tunnel=self.config.name, endpoint=str(endpoint), went_on_to=str(taken), **facts)
                )
        self.skipped.discard(taken)
        return upstream

    async def _dial(self) -> Upstream:
        used = None if self.follower is None else self.follower.known
        identity = self.identity
        try:
            return await self.dialler.dial(identity)
        except (UpstreamUnreachable, UpstreamTimeout, UpstreamLost):
            if self.follower is None or not await self.follower.newer_than(used):
                raise
            return await self.dialler.dial(identity)
