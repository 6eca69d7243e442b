"""A rotation in this process: an issuer and proxies that do as a test says, a clock that it sets, and what was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from mtlskit.config.values import Hooks, IdentityConfig, IssuerConfig, IssuerKind, TunnelConfig
from mtlskit.errors import Code, MtlskitError, RotationError
from mtlskit.issuers.base import Delivery, Facts, Issuer, Order
from mtlskit.issuers.heroku_addon import HerokuAddonIssuer
from mtlskit.lifecycle.rotate import rotate
from mtlskit.lifecycle.target import Outcome, Target, Tools, Wanted
from mtlskit.pki.authority import Authority
from mtlskit.pki.profiles import Profile
from mtlskit.store.audit import read_audit
from mtlskit.store.identities import Store, StoredIdentity, Version
from mtlskit.store.journal import Journal
from mtlskit.telemetry import Event

__all__ = ["DAY", "FakeFollowing", "FakeIssuer", "FakeProxies", "World"]

DAY = timedelta(days=1)
E = TypeVar("E", bound=Event)


class FakeIssuer:
    """Signs at once, unless it is told otherwise; counts what it is asked."""

    pause = 0.01

    def __init__(self, authority: Authority, *, makes_key: bool = False) -> None:
        self.makes_key = makes_key
        self.lifetime = 90 * DAY
        self.ready = True
        self.fault: MtlskitError | None = None
        """What `request` raises."""
        self.found: Facts | None = None
        """What a request whose answer was lost has got."""
        self.cannot_revoke: MtlskitError | None = None
        self.deliver: Callable[[Order], Delivery] = self._sign
        self.orders: list[Order] = []
        self.fetched = 0
        self.revoked: list[str] = []
        self._authority = authority

    async def survey(self, order: Order) -> Facts:
        return {"seen": [1]}

    async def request(self, order: Order, before: Facts) -> Facts:
        assert before == {"seen": [1]}
        self.orders.append(order)
        if self.fault is not None:
            raise self.fault
        return {"id": f"remote-{len(self.orders)}"}

    async def find(self, order: Order, before: Facts) -> Facts | None:
        assert before == {"seen": [1]}
        return self.found

    async def fetch(self, order: Order, receipt: Facts) -> Delivery | None:
        assert str(receipt["id"]).startswith("remote-")
        self.fetched += 1
        return self.deliver(order) if self.ready else None

    def waiting_for(self, order: Order, receipt: Facts) -> str:
        return f"{receipt['id']} is not ready"

    async def revoke(self, serial: str, remote_id: str | None, *, now: datetime) -> str:
        if self.cannot_revoke is not None:
            raise self.cannot_revoke
        self.revoked.append(serial)
        return f"{serial} is gone"

    def _sign(self, order: Order) -> Delivery:
        if self.makes_key:
            issued = self._authority.issue_client("client", now=order.now, lifetime=self.lifetime)
            return Delivery(issued.cert_pem, key_pem=issued.key_pem, remote_id="remote")
        assert order.request_pem is not None
        answer = self._authority.sign_request(order.request_pem, Profile.CLIENT, now=order.now, lifetime=self.lifetime)
        return Delivery(answer.cert_pem)


class FakeFollowing(FakeIssuer):
    """Hands out copies of one credential, which an order with `reset` replaces."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority, makes_key=True)
        self.deliver = self._copy
        self.follows_it = True
        self.looked = 0
        self.resets = 0
        self.credential = authority.issue_client("app", now=datetime.now(UTC), lifetime=self.lifetime)
        self.roots = authority.cert_pem

    def change(self, *, lifetime: timedelta = 90 * DAY) -> None:
        """The app gets another credential."""
        self.credential = self._authority.issue_client("app", now=datetime.now(UTC), lifetime=lifetime)

    async def follows(self) -> bool:
        return self.follows_it

    async def changed(self, cert_pem: bytes, root_pem: bytes | None) -> bool:
        self.looked += 1
        if self.fault is not None:
            raise self.fault
        return (cert_pem, root_pem) != (self.credential.cert_pem, self.roots)

    async def request(self, order: Order, before: Facts) -> Facts:
        if order.reset:
            self.resets += 1
            self.change()
        return await super().request(order, before)

    def _copy(self, order: Order) -> Delivery:
        return Delivery(self.credential.cert_pem, self.credential.key_pem, self.roots, ours=False, followed=True)


class FakeProxies:
    """Running proxies. `left`: sessions of the old certificate at each look, the last one for ever; None: not told."""

    def __init__(self) -> None:
        self.left: list[int | None] = [0]
        self.served: list[str] = []
        self.fault: MtlskitError | None = None
        self.looks = 0

    async def serve(self, identity: str, cert: Path, serial: str) -> str:
        if self.fault is not None:
            raise self.fault
        self.served.append(serial)
        return "served by process 1"

    async def sessions(self, cert: Path, serial: str, *, expected: bool, others: bool = False) -> int | None:
        self.looks += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


@dataclass
class World:
    """One identity in a store of its own."""

    folder: Path
    authority: Authority
    issuer: FakeIssuer
    proxies: FakeProxies = field(default_factory=FakeProxies)
    kind: IssuerKind = IssuerKind.COMMAND
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    tunnels: tuple[TunnelConfig, ...] = ()
    hooks: Hooks = field(default_factory=Hooks)
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the `IdentityConfig`."""
    events: list[Event] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, authority: Authority | None = None, **more: Any) -> World:
        authority = authority or Authority.create("our ca", now=datetime.now(UTC) - DAY)
        issuer = more.pop("issuer", None) or FakeIssuer(authority, makes_key=more.pop("makes_key", False))
        return cls(folder, authority, issuer, **more)

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def stored(self) -> StoredIdentity:
        return Store(self.store).identity("reporting")

    @property
    def identity(self) -> IdentityConfig:
        current = self.store / "reporting" / "current"
        settings = {"issuer": IssuerConfig(self.kind, subject="CN=client")} | self.settings
        return IdentityConfig("reporting", current / "client.crt", current / "client.key", **settings)

    @property
    def target(self) -> Target:
        identity = self.identity
        tunnels = tuple(replace(tunnel, identity=replace(identity, ca=tunnel.identity.ca)) for tunnel in self.tunnels)
        return Target(identity, tunnels, self.stored, self.store, self.hooks)

    def tools(self, issuer: Issuer | None = None) -> Tools:
        chosen = issuer or self.issuer
        following = chosen if isinstance(chosen, FakeFollowing | HerokuAddonIssuer) else None
        return Tools(chosen, self.proxies, self.events.append, lambda: self.now, following)

    async def rotate(self, reason: str = "asked for", *, issuer: Issuer | None = None, **wanted: Any) -> Outcome:
        """One run, as another process would make it."""
        return await rotate(self.target, self.tools(issuer), Wanted(reason, **wanted))

    @property
    def current(self) -> Version:
        found = self.stored.current()
        assert found is not None
        return found

    @property
    def journal(self) -> Journal:
        return Journal(self.stored.journal_path)

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def audit(self) -> list[str]:
        return [line["action"] for line in read_audit(self.store)]

    def cannot(self, code: Code = Code.ISSUER_FAILED, sentence: str = "no") -> RotationError:
        return RotationError(code, sentence, "try again")

    def names(self, below: str = ".") -> Sequence[str]:
        """The files of the identity's folder, sorted."""
        return sorted(path.name for path in (self.stored.folder / below).iterdir())
