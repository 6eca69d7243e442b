"""What a running proxy says of itself, as plain values. docs/reference/control.md has the keys; they are a contract."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

from mtlskit import __version__
from mtlskit.config.loading import LARGEST_FILE
from mtlskit.config.values import TunnelKind
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.pki.certificates import fingerprint_sha256, spki_sha256
from mtlskit.pki.renewal import due_at
from mtlskit.proxy.addon import KnownLogin
from mtlskit.proxy.events import described
from mtlskit.proxy.kafka.brokers import Brokers
from mtlskit.proxy.kafka.outage import Outage
from mtlskit.proxy.ready import address_facts, tunnel_facts
from mtlskit.proxy.reloading import Reloaded
from mtlskit.proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from mtlskit.proxy.run import Proxy

__all__ = ["Started", "reloaded_facts", "status"]

_DISK: Final = 1.0  # seconds


@dataclass(frozen=True)
class Started:
    """When a proxy was started, and from which file (None: from flags)."""

    source: Path | None = None
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    steady: float = field(default_factory=time.monotonic)
    """The same moment on the clock that nobody sets."""
    _digest: bytes = field(init=False, repr=False, default=b"")

    def __post_init__(self) -> None:
        object.__setattr__(self, "_digest", self._content())

    def _content(self) -> bytes:
        """A digest of the file, for a file that was only touched, or written anew as it was, is no other; empty where
        there is none to read."""
        try:
            if self.source is None:
                return b""
            with self.source.open("rb") as file:
                return hashlib.sha256(file.read(LARGEST_FILE + 1)).digest()
        except OSError:
            return b""

    async def outdated(self) -> bool:
        """Whether the file is another one now than the one that is in use. A disk that hangs holds nobody up."""
        with trio.move_on_after(_DISK):
            return await trio.to_thread.run_sync(self._content, abandon_on_cancel=True) != self._digest
        return False


def status(
    proxy: Proxy, started: Started, *, now: datetime | None = None, config_changed: bool = False
) -> dict[str, Any]:
    """The proxy and its tunnels. `config_changed`: its file says something else since."""
    moment = now or datetime.now(UTC)
    return {
        "pid": os.getpid(),
        "version": __version__,
        "config": None if started.source is None else str(started.source.absolute()),
        "config_changed": config_changed,
        "started_at": _text(started.at),
        "uptime": round(time.monotonic() - started.steady, 3),
        "draining": proxy.stopping,
        "sessions": proxy.sessions,
        "tunnels": [_tunnel(tunnel, moment) for tunnel in proxy.tunnels],
    }


def reloaded_facts(results: tuple[Reloaded, ...], *, config_changed: bool = False) -> dict[str, Any]:
    """What each tunnel serves after a reload."""
    return {"config_changed": config_changed, "tunnels": [_reloaded(result) for result in results]}


def _reloaded(result: Reloaded) -> dict[str, Any]:
    identity, follower = result.tunnel.identity, result.tunnel.follower
    return {
        "name": result.tunnel.config.name,
        "ok": result.ok,
        "identity": result.tunnel.config.identity.name,
        "serial": None if identity is None else identity.serial,
        "not_after": None if identity is None else _text(identity.not_after),
        "error": None if result.error is None else described(result.error),
        "addon_error": None if follower is None or follower.failure is None else described(follower.failure),
    }


def _tunnel(tunnel: Tunnel, now: datetime) -> dict[str, Any]:
    facts = tunnel_facts(tunnel)
    if tunnel.failed_at is not None and "error" in facts:
        facts["error"]["at"] = _text(tunnel.failed_at)
    facts["sessions"] = tunnel.sessions
    facts["sessions_by_serial"] = tunnel.sessions_by_serial
    facts["undecided"] = tunnel.undecided
    facts["identity"] = {
        "name": tunnel.config.identity.name,
        "cert": str(tunnel.config.identity.cert.absolute()),
        **(dict.fromkeys(_OF_CERTIFICATE) if tunnel.identity is None else _certificate(tunnel, tunnel.identity, now)),
    }
    facts["addon"] = None if tunnel.config.addon is None else _addon(tunnel, tunnel.config.addon)
    failed = tunnel.upstream_failure
    facts["upstream_error"] = None if failed is None else {**described(failed[0]), "at": _text(failed[1])}
    facts["brokers"] = None if tunnel.brokers is None else _brokers(tunnel.brokers)
    counts = tunnel.warm_counts
    facts["warm"] = None if counts is None else asdict(counts)
    return facts


def _brokers(brokers: Brokers) -> list[dict[str, Any]]:
    """The brokers that the cluster has named: those with a listener, then those that can have none."""
    absent = brokers.absent
    known: list[dict[str, Any]] = [
        {
            "id": broker.node_id,
            "addresses": [address_facts(address) for address in broker.listener.addresses],
            "upstream": str(broker.endpoint),
            "named": broker.node_id not in absent,
            "error": _outage(broker.outage),
        }
        for broker in brokers.known
    ]
    refused: list[dict[str, Any]] = [
        {
            "id": node_id,
            "addresses": [],
            "upstream": None,
            "named": node_id not in absent,
            "error": described(error),
        }
        for node_id, error in brokers.refused.items()
    ]
    return known + refused


def _outage(outage: Outage) -> dict[str, str] | None:
    if outage.error is None or outage.at is None:
        return None
    return {**described(outage.error), "at": _text(outage.at)}


def _addon(tunnel: Tunnel, addon: str) -> dict[str, Any]:
    """What is known of the add-on that the upstream belongs to; never a password or a key."""
    config, follower = tunnel.config, tunnel.follower
    known = None if follower is None else follower.known
    login = known.credential if isinstance(known, KnownLogin) else None
    failure = None if follower is None else follower.failure
    at = None if follower is None else follower.looked_up_at
    kafka = config.kind is TunnelKind.KAFKA
    return {
        "name": addon,
        "credential": None if kafka else config.credential,
        "login": None if kafka else config.login.value,
        "user": None if login is None else login.user,
        "database": None if login is None else login.database,
        "prefix": known.prefix if kafka and known is not None else None,
        "looked_up_at": None if at is None else _text(at),
        "error": None if failure is None else described(failure),
    }


_OF_CERTIFICATE = (
    *("serial", "not_after", "due_at", "due", "spki_sha256", "fingerprint_sha256", "loaded_at", "warnings"),
)
"""What is null as long as a tunnel has not been able to load its identity."""


def _certificate(tunnel: Tunnel, identity: IdentitySnapshot, now: datetime) -> dict[str, Any]:
    leaf = identity.pair.leaf
    due = due_at(leaf.not_valid_before_utc, leaf.not_valid_after_utc, tunnel.config.identity.renew_before)
    return {
        "serial": identity.serial,
        "not_after": _text(identity.not_after),
        "due_at": _text(due),
        "due": now >= due,
        "spki_sha256": base64.b64encode(spki_sha256(leaf)).decode("ascii"),
        "fingerprint_sha256": fingerprint_sha256(leaf).hex(),
        "loaded_at": None if tunnel.loaded_at is None else _text(tunnel.loaded_at),
        "warnings": list(identity.warnings),
    }


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
