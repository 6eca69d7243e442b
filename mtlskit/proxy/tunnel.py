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

import trio

from mtlskit.config.values import Endpoint, ListenAddress, TunnelConfig, TunnelKind
from mtlskit.errors import ClientError, ClientLimitReached, Code, ConfigError, MtlskitError, UpstreamError
from mtlskit.net.dial import Dialler
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.identity_marks import Marks
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.net.peer import Peer, identify
from mtlskit.net.warm import Outage, WarmBudget, WarmCounts, WarmPool
from mtlskit.proxy.addon import AddonLookup, Follower, Known
from mtlskit.proxy.cancel import CancelKeys
from mtlskit.proxy.door_words import door_warnings, open_to
from mtlskit.proxy.established import Established
from mtlskit.proxy.events import (
    ClientLeft,
    IdentityKept,
    IdentityLoaded,
    IdentityWarned,
    SessionCrashed,
    TunnelFailed,
    TunnelListening,
    TunnelWarned,
    WarmCounted,
    WarmFailed,
    WarmRecovered,
    described,
)
from mtlskit.proxy.front_door import FrontDoor
from mtlskit.proxy.loading import IdentityLoader
from mtlskit.proxy.parts import TunnelParts
from mtlskit.proxy.postgres import PostgresSession
from mtlskit.proxy.seats import Seats
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
    ) -> None:
        """`lookup` asks Heroku, for a tunnel whose upstream is an add-on's."""
        self.config = config
        self.state = TunnelState.NEW
        self.failure: MtlskitError | None = None
        """Why it could not start, or why the last reload kept the old identity."""
        self.failed_at: datetime | None = None
        self.loaded_at: datetime | None = None
        """When the identity that is in use was loaded."""
        self.sessions = 0
        self.addresses: tuple[ListenAddress, ...] = ()
        self._established = established
        self._emit = emit
        self._budget = budget
        self._listener: Listener | None = None
        self._door: FrontDoor | None = None
        self._parts: TunnelParts | None = None
        self._cancel_keys = CancelKeys()
        self._arriving: set[Stay] = set()
        """Of clients that have no session yet."""
        self._seats = Seats(config.max_connections)
        self._loader = IdentityLoader(config)
        self.follower: Follower | None = None
        """Knows where the upstream is, where that is an add-on's."""
        if config.addon is not None and lookup is not None:
            self.follower = Follower(config, lookup, emit, self._moved)
        self._closed = False
        self._idle = trio.Event()
        self._idle.set()

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
        self._door = door
        if self._parts is not None:
            # Whoever came in before the listener broke dials with these; nobody may use the old certificate any more.
            self._parts.identity = identity
        self._parts = TunnelParts(config, dialler, identity, self._established, self._emit, self._cancel_keys)
        self._parts.follower = self.follower
        if self.follower is not None and not self.follower.running:
            nursery.start_soon(self._follow, self.follower)
        if config.warm:
            self._parts.warm = WarmPool(self._parts.dial, config.warm, self._budget, self._tell_outage)
            nursery.start_soon(self._keep_warm, self._parts.warm)
        self.addresses = self._listener.addresses
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
            )
        )
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
        self._in_use(identity)
        return True

    def close_door(self) -> None:
        """Refuse new clients for good; the sessions go on."""
        self._closed = True
        if self._listener is not None:
            self._listener.close()
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
        return ((await self.follower.begin()).endpoint,)

    def _moved(self, known: Known) -> None:
        """The add-on's credential has changed: one reference is swapped, and what was dialled in advance is dropped."""
        if self._parts is None:
            return
        self._parts.dialler = replace(self._parts.dialler, endpoints=(known.endpoint,))
        if self._parts.warm is not None:
            self._parts.warm.renew()

    @property
    def upstream(self) -> tuple[Endpoint, ...]:
        """Where new sessions go; empty as long as nobody has told."""
        return self.config.upstream if self._parts is None else self._parts.dialler.endpoints

    async def drained(self) -> None:
        """Wait until the last session has ended."""
        await self._idle.wait()

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
        arriving = Counter(stay.serial for stay in self._arriving if stay.serial and not stay.established)
        return dict(arriving + Counter(self._established.serials(self.config.name)))

    @property
    def undecided(self) -> int:
        """How many clients have not come so far that a certificate is chosen for them."""
        return sum(stay.serial is None and not stay.established for stay in self._arriving)

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
            self._emit(TunnelFailed(tunnel=self.config.name, **described(exc)))

    async def _welcome(self, sock: trio.socket.SocketType) -> None:
        if self._seats.crowded:
            sock.close()
            return
        self.sessions += 1
        if self.sessions == 1:
            self._idle = trio.Event()
        stay = Stay(self._cancel_keys, self._one_less)
        self._arriving.add(stay)
        try:
            await self._admit(sock, stay)
        finally:
            self._arriving.discard(stay)
            if not stay.established:
                sock.close()
                stay.end()

    def _one_less(self) -> None:
        self.sessions -= 1
        if not self.sessions:
            self._idle.set()

    async def _admit(self, sock: trio.socket.SocketType, stay: Stay) -> None:
        door, parts = self._door, self._parts
        if door is None or parts is None:  # not started: nobody gets here
            return
        try:
            # Asked at once: the kernel only knows the owner of a socket that is still open.
            peer = identify(sock, with_user=door.needs_user)
        except ClientError:
            self._emit(ClientLeft(tunnel=self.config.name, client="a client"))
            return
        try:
            await self._serve_client(sock, stay, peer, door, parts)
        except Exception:  # noqa: BLE001 - a fault of ours ends one session and is told; the tunnel goes on
            self._emit(SessionCrashed(tunnel=self.config.name, client=str(peer), traceback=traceback.format_exc()))

    async def _serve_client(
        self, sock: trio.socket.SocketType, stay: Stay, peer: Peer, door: FrontDoor, parts: TunnelParts
    ) -> None:
        session = (TcpSession if self.config.kind is TunnelKind.TCP else PostgresSession)(parts, sock, str(peer), stay)
        refusal = self._refusal(door, peer)
        if refusal is None:
            stay.sit(self._seats)
            await session.serve(None)
            return
        with self._seats.stand() as heard:
            if heard:
                await session.serve(refusal)

    def _refusal(self, door: FrontDoor, peer: Peer) -> ClientError | None:
        try:
            door.decide(peer)
        except ClientError as exc:
            return exc
        if not self._seats.free:
            limit = self.config.max_connections
            return ClientLimitReached(
                Code.DOOR_FULL,
                f"tunnel {self.config.name} already carries its {limit} connections",
                f"close idle connections, or raise max_connections of [tunnel.{self.config.name}]",
            )
        return None
