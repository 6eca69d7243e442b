"""What a rotation works on, what it works with, and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from mtlskit.config.values import Endpoint, Hooks, IdentityConfig, IssuerKind, ProxyConfig, TunnelConfig
from mtlskit.errors import Code, MtlskitError, RotationError
from mtlskit.issuers.base import Following, Issuer
from mtlskit.lifecycle.proxies import Proxies
from mtlskit.store.identities import Material, Store, StoredIdentity
from mtlskit.telemetry import Emit

__all__ = ["Outcome", "Result", "Target", "Tools", "Wanted", "target_of"]

PATIENCE = 600.0
"""Seconds to wait for another process that works on the same identity: a rotation that is asked to wait takes long."""


@dataclass(frozen=True)
class Target:
    """One identity of the store, and the tunnels that use it."""

    identity: IdentityConfig
    tunnels: tuple[TunnelConfig, ...]
    stored: StoredIdentity
    store: Path
    hooks: Hooks

    @property
    def name(self) -> str:
        """The identity's."""
        return self.identity.name


def target_of(config: ProxyConfig, identity: IdentityConfig) -> Target:
    """The target for one of the identities of `config`, whose store is known and whose issuer is not `files`."""
    if config.store is None or identity.issuer.kind is IssuerKind.FILES:
        raise ValueError("only an identity of the store can be rotated")
    tunnels = tuple(tunnel for tunnel in config.tunnels if tunnel.identity.name == identity.name)
    stored = Store(config.store).identity(identity.name)
    return Target(identity, tunnels, stored, config.store, config.hooks)


@dataclass(frozen=True)
class Tools:
    """What a rotation works with."""

    issuer: Issuer
    proxies: Proxies
    emit: Emit
    clock: Callable[[], datetime]
    """Aware, UTC."""
    following: Following | None = None
    """The issuer once more, where what it hands out may be a credential to be followed."""
    endpoints: Callable[[TunnelConfig], Awaitable[tuple[Endpoint, ...]]] | None = None
    """Finds where a tunnel leads to; it asks Heroku where the tunnel names an add-on."""

    async def located(self, tunnel: TunnelConfig) -> TunnelConfig:
        """The tunnel with its upstream, whoever tells it. Raises HerokuError, ConfigError or RotationError."""
        if tunnel.upstream:
            return tunnel
        if self.endpoints is None:
            raise RotationError(
                Code.PROOF_FAILED,
                f"tunnel {tunnel.name}: the upstream is an add-on's, and nobody was named who could ask Heroku",
                "do without the proof: --no-prove",
            )
        return replace(tunnel, upstream=await self.endpoints(tunnel))


@dataclass(frozen=True)
class Wanted:
    """What is asked of one run."""

    reason: str
    """Why, for the log: `asked for`, `due`, `first certificate`, `imported`."""
    wait: float | None = None
    """Seconds for the certificate to be ready and for old sessions to end; None: what is not ready is left."""
    prove: bool = True
    only_if_due: bool = False
    """Begin nothing for a certificate that is fine; what was left unfinished is finished."""
    fresh: bool = False
    """Give up what an earlier run has left, and begin anew."""
    by_name: bool = False
    """A person wants a new certificate for this very identity: nothing less will do."""
    reset: bool = False
    """Have the credential that is followed replaced, for everybody who uses it."""
    material: Material | None = field(default=None, repr=False)
    """Brought by hand: nobody is asked for a certificate."""


class Result(StrEnum):
    """How a run ended."""

    ROTATED = "rotated"
    NOTHING_TO_DO = "nothing to do"
    WAITING = "waiting"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """What came of one run. Serials are lower-case hexadecimal, empty where there is none."""

    identity: str
    result: Result
    told: str
    rotation: str = ""
    version: int | None = None
    serial: str = ""
    old_serial: str = ""
    not_after: str = ""
    step: str = ""
    """Where it failed or waits."""
    error: MtlskitError | None = None
    notes: tuple[str, ...] = ()
    left: int = 0
    """Sessions of older certificates that were still open when the time that was given for them was over."""
