"""One tunnel: it opens its door, admits clients up to its limit, swaps its identity, and drains.

Starting reads and checks everything before the first client can connect; what fails leaves no listener behind. A
tunnel that could not start can be tried again, which is what a reload does. One whose upstream is an add-on's asks
Heroku where that is, and goes on asking: see `mtlskit.proxy.addon`.
"""

from __future__ import annotations

import traceback
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial

import trio

from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, TunnelConfig, TunnelKind
from mtlskit.errors import Code, ConfigError, MtlskitError, UpstreamError
from mtlskit.net.dial import Dialler
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.identity_marks import Marks
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.net.warm import Outage, WarmBudget, WarmCounts, WarmPool
from mtlskit.proxy.addon import AddonLookup, Follower, Known
from mtlskit.proxy.admission import Admission, Session
from mtlskit.proxy.door_words import door_notes, door_warnings, open_to
from mtlskit.proxy.established import Established
from mtlskit.proxy.events import (
    IdentityKept,
    IdentityLoaded,
    IdentityWarned,
    SessionCrashed,
    TunnelFailed,
    TunnelListening,
    TunnelNoted,
    TunnelWarned,
    WarmCounted,
    WarmFailed,
    WarmRecovered,
    described,
)
from mtlskit.proxy.front_door import FrontDoor
from mtlskit.proxy.kafka.brokers import Broker, Brokers
from mtlskit.proxy.kafka.doors import HolderOf, collides, nobody
from mtlskit.proxy.kafka.look import ClusterLook
from mtlskit.proxy.kafka.session import BrokerSession
from mtlskit.proxy.loading import IdentityLoader
from mtlskit.proxy.parts import TunnelParts
from mtlskit.proxy.postgres import PostgresSession
from mtlskit.proxy.stay import Stay
from mtlskit.proxy.tcp import TcpSession
from mtlskit.telemetry import Emit

__all__ = ["Tunnel", "TunnelState"]


class TunnelState(StrEnum):
    """Where a tunnel is in its life."""

    NEW = "new"
    SERVING = "serving"
    FAILED = "failed"
    DRAINING = "draining"


class Tunnel:
    """One tunnel of the configuration. Its tasks live in the nursery that `start` is given."""

    def __init__(
        self,
        config: TunnelConfig,
        established: Established,
        emit: Emit,
        budget: WarmBudget,
        lookup: AddonLookup | None = None,
        holder_of: HolderOf = nobody,
    ) -> None:
        """`lookup` asks Heroku, for a tunnel whose upstream is an add-on's. `holder_of` knows what listens here."""
        self.config = config
        self.state = TunnelState.NEW
        self.failure: MtlskitError | None = None
        """Why it could not start, or why the last reload kept the old identity."""
        self.failed_at: datetime | None = None
        self.loaded_at: datetime | None = None
        """When the identity that is in use was loaded."""
        self.addresses: tuple[ListenAddress, ...] = ()
        self._established = established
        self._emit = emit
        self._budget = budget
        self._holder_of = holder_of
        self._listener: Listener | None = None
        self._parts: TunnelParts | None = None
        self._admission = Admission(config, emit)
        self.brokers: Brokers | None = None
        """Of a Kafka tunnel that serves."""
        self._loader = IdentityLoader(config)
        self.follower: Follower | None = None
        """Knows where the upstream is, where that is an add-on's."""
        if config.addon is not None and lookup is not None:
            self.follower = Follower(config, lookup, emit, self._moved)
        self._closed = False

    async def start(self, nursery: trio.Nursery) -> None:
        """Load the identity, open the door, and accept clients in `nursery`.

        Raises ConfigError, IdentityError, ListenError or HerokuError; nothing is open then, and the state is `FAILED`.
        Opens nothing if the door has been closed meanwhile.
        """
        config = self.config
        try:
            door, identity = await self._load_all()
            endpoints = await self._find_upstream()
            if self._closed:
                return
            self._listener = open_listeners(config.listen)
        except MtlskitError as exc:
            self.state = TunnelState.FAILED
            self._note_failure(exc)
            raise
        dialler = Dialler(
            config.kind, endpoints, config.negotiation, config.pins, config.timeouts.dial, source=config.source
        )
        self._admission.door = door
        if self._parts is not None:
            # Whoever came in before the listener broke dials with these; nobody may use the old certificate any more.
            self._parts.identity = identity
        self._parts = TunnelParts(config, dialler, identity, self._established, self._emit, self._admission.cancel_keys)
        self._parts.follower = self.follower
        if self.follower is not None and not self.follower.running:
            nursery.start_soon(self._follow, self.follower)
        if config.warm:
            self._parts.warm = WarmPool(self._parts.dial, config.warm, self._budget, self._tell_outage)
            nursery.start_soon(self._keep_warm, self._parts.warm)
        self.addresses = self._listener.addresses
        if config.kind is TunnelKind.KAFKA:
            self._know_brokers(self._parts, nursery)
        self.state = TunnelState.SERVING
        self._in_use(identity)
        nursery.start_soon(self._serve, self._listener, nursery)
        self._emit(
            TunnelListening(
                tunnel=config.name,
                kind=config.kind.value,
                addresses=tuple(str(address) for address in self.addresses),
                upstream=tuple(str(endpoint) for endpoint in endpoints),
                verify=str(config.verify),
                open_to=open_to(config),
                system_roots=config.identity.ca is None,
                brokers="" if self.brokers is None else str(self.brokers.ports),
            )
        )
        for note in door_notes(config):
            self._emit(TunnelNoted(tunnel=config.name, note=note))
        for warning in door_warnings(config):
            self._emit(TunnelWarned(tunnel=config.name, warning=warning))

    async def reload(self) -> bool:
        """Read the identity again; new sessions use it. On a failure the old one stays, and an event says so.

        An add-on's upstream is looked up again as well; where that fails or takes long, the reload goes on.
        """
        if self._parts is None:
            return False
        if self.follower is not None:
            await self.follower.refresh()
        try:
            identity = await self._loader.load()
        except MtlskitError as exc:
            self._note_failure(exc)
            self._emit(IdentityKept(tunnel=self.config.name, **described(exc)))
            return False
        self._parts.identity = identity
        if self._parts.warm is not None:
            self._parts.warm.renew()
        if self.brokers is not None:
            self.brokers.ask_again()
        self._in_use(identity)
        return True

    def close_door(self) -> None:
        """Refuse new clients for good; the sessions go on."""
        self._closed = True
        if self._listener is not None:
            self._listener.close()
        if self.brokers is not None:
            self.brokers.close()
        if self._parts is not None:
            self._parts.draining = True
            self._stop_warming()
        if self.follower is not None:
            self.follower.close()
        if self.state is not TunnelState.FAILED:
            self.state = TunnelState.DRAINING

    def _stop_warming(self) -> None:
        if self._parts is not None and self._parts.warm is not None:
            self._parts.warm.close()
            self._emit(WarmCounted(tunnel=self.config.name, **asdict(self._parts.warm.counts)))
            self._parts.warm = None

    def _tell_outage(self, outage: Outage) -> None:
        name = self.config.name
        self._emit(WarmRecovered(tunnel=name) if outage is None else WarmFailed(tunnel=name, **described(outage)))

    async def _keep_warm(self, pool: WarmPool) -> None:
        try:
            await pool.run()
        except Exception:  # noqa: BLE001 - a fault of ours costs the connections in advance, never the tunnel
            text = traceback.format_exc()
            self._emit(
                SessionCrashed(tunnel=self.config.name, client="nobody (connections in advance)", traceback=text)
            )
            if self._parts is not None and self._parts.warm is pool:
                self._stop_warming()

    def _know_brokers(self, parts: TunnelParts, nursery: trio.Nursery) -> None:
        """Have a listener for each broker, from the first time that it is named."""
        if self.brokers is not None:
            self.brokers.close()  # the tunnel is started once more
        self.brokers = brokers = Brokers(
            self.config, self.addresses, parts.dialler, self._welcome_to, self._emit, self._name_prefix, self._holder_of
        )
        nursery.start_soon(self._look_after, brokers, ClusterLook(parts, brokers), nursery)

    def listens_at(self, address: TcpAddress) -> str:
        """What of this tunnel keeps others from `address`, for a sentence; empty: nothing. Any thread may ask."""
        if self.state is TunnelState.SERVING and collides(address, self.addresses):
            return f"tunnel {self.config.name}"
        node_id = None if self.brokers is None else self.brokers.holder_of(address)
        return "" if node_id is None else f"broker {node_id} of tunnel {self.config.name}"

    def _name_prefix(self) -> str:
        """What names of topics begin with, where Heroku tells it. May be called by any thread."""
        known = None if self.follower is None else self.follower.known
        return "" if known is None else known.prefix

    async def _look_after(self, brokers: Brokers, look: ClusterLook, clients: trio.Nursery) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(look.run)
                await brokers.run(clients)
        except Exception:  # noqa: BLE001 - a fault of ours ends this tunnel's brokers and is told; other tunnels go on
            text = traceback.format_exc()
            self._emit(SessionCrashed(tunnel=self.config.name, client="nobody (listening for brokers)", traceback=text))

    async def _follow(self, follower: Follower) -> None:
        while True:
            try:
                await follower.run()
                break
            except Exception:  # noqa: BLE001 - as above: what is known stays in use, and it is looked up again later
                text = traceback.format_exc()
                self._emit(
                    SessionCrashed(tunnel=self.config.name, client="nobody (following the add-on)", traceback=text)
                )

    async def _find_upstream(self) -> tuple[Endpoint, ...]:
        """Where to connect. Raises HerokuError, ConfigError."""
        if self.config.addon is None:
            return self.config.upstream
        if self.follower is None:
            raise ConfigError(
                Code.CONFIG_NOT_SUPPORTED,
                f"tunnel {self.config.name}: the upstream is an add-on's, and nobody was named who could ask Heroku",
                "name a `lookup` where the proxy is run as a library",
            )
        return (await self.follower.begin()).endpoints

    def _moved(self, known: Known) -> None:
        """Heroku tells another place: one reference is swapped, and what was dialled in advance is dropped."""
        if self._parts is None:
            return
        self._parts.dialler = replace(self._parts.dialler, endpoints=known.endpoints)
        if self._parts.warm is not None:
            self._parts.warm.renew()

    @property
    def upstream(self) -> tuple[Endpoint, ...]:
        """Where new sessions go; empty as long as nobody has told."""
        return self.config.upstream if self._parts is None else self._parts.dialler.endpoints

    async def drained(self) -> None:
        """Wait until the last session has ended."""
        await self._admission.drained()

    @property
    def sessions(self) -> int:
        """How many clients are connected, whether they have a session yet or not."""
        return self._admission.sessions

    @property
    def identity(self) -> IdentitySnapshot | None:
        """What new sessions are dialled with."""
        return None if self._parts is None else self._parts.identity

    @property
    def tried(self) -> Marks | None:
        """Of the identity's files, as they were when they were last read, or could not be."""
        return self._loader.tried

    @property
    def sessions_by_serial(self) -> dict[str, int]:
        """How many sessions were opened, or are being opened, with which certificate, by its serial."""
        return dict(self._admission.arriving + Counter(self._established.serials(self.config.name)))

    @property
    def undecided(self) -> int:
        """How many clients have not come so far that a certificate is chosen for them."""
        return self._admission.undecided

    @property
    def upstream_failure(self) -> tuple[UpstreamError, datetime] | None:
        """Why the last connection to the upstream could not be made, and when."""
        return None if self._parts is None else self._parts.failed

    @property
    def warm_counts(self) -> WarmCounts | None:
        """What became of the connections made in advance; None where none are made."""
        return None if self._parts is None or self._parts.warm is None else self._parts.warm.counts

    async def _load_all(self) -> tuple[FrontDoor, IdentitySnapshot]:
        config = self.config

        def make_door() -> FrontDoor:
            return FrontDoor(config.allow_clients, config.allow_users, tunnel=config.name)

        # In a thread, too: the names of users may have to come from a directory server.
        return await self._loader.in_thread(make_door), await self._loader.load()

    def _note_failure(self, error: MtlskitError) -> None:
        self.failure, self.failed_at = error, datetime.now(UTC)

    def _in_use(self, identity: IdentitySnapshot) -> None:
        name = self.config.name
        self.failure = self.failed_at = None
        self.loaded_at = self._loader.tried_at
        self._emit(
            IdentityLoaded(
                tunnel=name,
                identity=identity.name,
                serial=identity.serial,
                not_after=identity.not_after.isoformat(),
            )
        )
        for warning in identity.warnings:
            self._emit(IdentityWarned(tunnel=name, warning=warning))

    # Clients.

    async def _serve(self, listener: Listener, nursery: trio.Nursery) -> None:
        try:
            await listener.serve(self._welcome, nursery=nursery, emit=self._emit)
        except MtlskitError as exc:
            self.state = TunnelState.FAILED
            self._note_failure(exc)
            self._stop_warming()
            if self.brokers is not None:
                self.brokers.close()
            self._emit(TunnelFailed(tunnel=self.config.name, **described(exc)))

    async def _welcome(self, sock: trio.socket.SocketType) -> None:
        await self._admission.welcome(self._begin, sock)

    async def _welcome_to(self, broker: Broker, sock: trio.socket.SocketType) -> None:
        await self._admission.welcome(partial(self._begin, broker=broker), sock)

    def _begin(self, sock: trio.socket.SocketType, peer: str, stay: Stay, *, broker: Broker | None = None) -> Session:
        parts, brokers = self._parts, self.brokers
        if parts is None:
            raise AssertionError("a client has come to a tunnel that was never started")
        if brokers is not None:
            return BrokerSession(parts, sock, peer, stay, brokers=brokers, broker=broker)
        return (TcpSession if self.config.kind is TunnelKind.TCP else PostgresSession)(parts, sock, peer, stay)
