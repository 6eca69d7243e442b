"""What a tunnel lends to each of its sessions."""

from __future__ import annotations

from dataclasses import dataclass, field

from mtlskit.config.values import TunnelConfig
from mtlskit.net.dial import Dialler
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import Relay
from mtlskit.net.warm import WarmPool
from mtlskit.proxy.cancel import CancelKeys, TokenBucket
from mtlskit.telemetry import Emit

__all__ = ["TunnelParts"]


@dataclass
class TunnelParts:
    """`identity` is the one reference that a reload swaps; a session looks at it once, when it dials."""

    config: TunnelConfig
    dialler: Dialler
    identity: IdentitySnapshot
    relay: Relay
    emit: Emit
    cancel_keys: CancelKeys
    warm: WarmPool | None = None
    draining: bool = False
    """The door is closed: who has come in and not yet asked for a session gets none."""
    stray_cancels: TokenBucket = field(default_factory=lambda: TokenBucket(rate=1.0, burst=10))
    """Cancel requests with keys that are not ours: each costs a TLS handshake with every address of the upstream."""
