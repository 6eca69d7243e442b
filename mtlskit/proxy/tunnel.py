"""One tunnel: it opens its door, admits clients up to its limit, swaps its identity, and drains.

Starting reads and checks everything before the first client can connect; what fails leaves no listener behind. A
tunnel that could not start can be tried again, which is what a reload does.
"""

from __future__ import annotations

import traceback
from enum import StrEnum

import trio

from mtlskit.config.values import ListenAddress, Negotiation, TunnelConfig, TunnelKind
from mtlskit.errors import ClientError, ClientLimitReached, Code, MtlskitError
from mtlskit.net.dial import POSTGRES_ALPN, Dialler
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.net.peer import Peer, identify
from mtlskit.net.relay import Relay
from mtlskit.proxy.events import (
    ClientRefused,
    IdentityKept,
    IdentityLoaded,
    IdentityWarned,
    SessionCrashed,
    TunnelFailed,
    TunnelListening,
    described,
)
from mtlskit.proxy.front_door import FrontDoor
from mtlskit.proxy.parts import TunnelParts
from mtlskit.proxy.postgres import PostgresSession
from mtlskit.proxy.tcp import TcpSession
from mtlskit.telemetry import Emit

__all__ = ["Tunnel", "TunnelState"]

_EXTRA = 64
"""Clients beyond `max_connections` that are still heard: to be told that the tunnel is full, or to cancel a query,
which must work just then. Beyond these, a client is closed without a word."""


class TunnelState(StrEnum):
    """Where a tunnel is in its life."""

    NEW = "new"
    SERVING = "serving"
    FAILED = "failed"
    DRAINING = "draining"
    STOPPED = "stopped"


class Tunnel:
    """One tunnel of the configuration. Its tasks live in the nursery that `start` is given."""

    def __init__(self, config: TunnelConfig, relay: Relay, emit: Emit) -> None:
        self.config = config
        self.state = TunnelState.NEW
        self.failure: MtlskitError | None = None
        self.sessions = 0
        self.addresses: tuple[ListenAddress, ...] = ()
        self._relay = relay
        self._emit = emit
        self._listener: Listener | None = None
        self._door: FrontDoor | None = None
        self._parts: TunnelParts | None = None
        self._idle = trio.Event()
        self._idle.set()

    async def start(self, nursery: trio.Nursery) -> None:
        """Load the identity, open the door, and accept clients in `nursery`.

        Raises ConfigError, IdentityError or ListenError; nothing is open then, and the state is `FAILED`.
        """
        config = self.config
        try:
            door = FrontDoor(config.allow_clients, config.allow_users, tunnel=config.name)
            identity = await self._load()
            self._listener = open_listeners(config.listen)
        except MtlskitError as exc:
            self.state, self.failure = TunnelState.FAILED, exc
            raise
        dialler = Dialler(config.kind, config.upstream, config.negotiation, config.pins, config.timeouts.dial)
        self._door = door
        self._parts = TunnelParts(config, dialler, identity, self._relay, self._emit)
        self.addresses = self._listener.addresses
        self.state, self.failure = TunnelState.SERVING, None
        self._tell_identity(identity)
        nursery.start_soon(self._serve, self._listener, nursery)
        self._emit(
            TunnelListening(
                tunnel=config.name,
                kind=config.kind.value,
                addresses=tuple(str(address) for address in self.addresses),
                upstream=tuple(str(endpoint) for endpoint in config.upstream),
                verify=str(config.verify),
                open_to=_open_to(config),
            )
        )

    async def reload(self) -> bool:
        """Read the identity again; new sessions use it. On a failure the old one stays, and an event says so."""
        if self._parts is None:
            return False
        try:
            identity = await self._load()
        except MtlskitError as exc:
            self.failure = exc
            self._emit(IdentityKept(tunnel=self.config.name, **described(exc)))
            return False
        self._parts.identity = identity
        self.failure = None
        self._tell_identity(identity)
        return True

    def close_door(self) -> None:
        """Refuse new clients; the sessions go on."""
        if self._listener is not None:
            self._listener.close()
            self.state = TunnelState.DRAINING

    async def drained(self) -> None:
        """Wait until the last session has ended."""
        await self._idle.wait()

    @property
    def identity(self) -> IdentitySnapshot | None:
        """What new sessions are dialled with."""
        return None if self._parts is None else self._parts.identity

    async def _load(self) -> IdentitySnapshot:
        config = self.config
        direct = config.kind is TunnelKind.POSTGRES and config.negotiation is Negotiation.DIRECT
        alpn = (POSTGRES_ALPN,) if direct else ()

        def load() -> IdentitySnapshot:
            return load_snapshot(config.identity, verify=config.verify, alpn=alpn)

        # The disk may be a network's, and the sessions in flight must not wait for it.
        return await trio.to_thread.run_sync(load)

    def _tell_identity(self, identity: IdentitySnapshot) -> None:
        name = self.config.name
        self._emit(
            IdentityLoaded(
                tunnel=name,
                identity=identity.name,
                serial=identity.serial,
                not_after=identity.not_after.strftime("%Y-%m-%d %H:%M UTC"),
            )
        )
        for warning in identity.warnings:
            self._emit(IdentityWarned(tunnel=name, warning=warning))

    # Clients.

    async def _serve(self, listener: Listener, nursery: trio.Nursery) -> None:
        try:
            await listener.serve(self._welcome, nursery=nursery, emit=self._emit)
        except MtlskitError as exc:
            self.state, self.failure = TunnelState.FAILED, exc
            self._emit(TunnelFailed(tunnel=self.config.name, **described(exc)))

    async def _welcome(self, sock: trio.socket.SocketType) -> None:
        if self.sessions >= self.config.max_connections + _EXTRA:
            sock.close()
            return
        self.sessions += 1
        if self.sessions == 1:
            self._idle = trio.Event()
        try:
            await self._admit(sock)
        finally:
            sock.close()
            self.sessions -= 1
            if not self.sessions:
                self._idle.set()

    async def _admit(self, sock: trio.socket.SocketType) -> None:
        door, parts = self._door, self._parts
        if door is None or parts is None:  # not started: nobody gets here
            return
        client = "a client"
        try:
            # Asked at once: the kernel only knows the owner of a socket that is still open.
            peer = identify(sock, with_user=door.needs_user)
            client = str(peer)
            refusal = self._refusal(door, peer)
            session = (TcpSession if self.config.kind is TunnelKind.TCP else PostgresSession)(parts, sock, client)
            await session.serve(refusal)
        except ClientError as exc:
            self._emit(ClientRefused(tunnel=self.config.name, client=client, **described(exc)))
        except Exception:  # noqa: BLE001 - a fault of ours ends one session and is told; the tunnel goes on
            self._emit(SessionCrashed(tunnel=self.config.name, client=client, traceback=traceback.format_exc()))

    def _refusal(self, door: FrontDoor, peer: Peer) -> ClientError | None:
        try:
            door.decide(peer)
        except ClientError as exc:
            return exc
        limit = self.config.max_connections
        if self.sessions > limit:
            return ClientLimitReached(
                Code.DOOR_FULL,
                f"tunnel {self.config.name} already carries its {limit} connections",
                f"close idle connections, or raise max_connections of [tunnel.{self.config.name}]",
            )
        return None


def _open_to(config: TunnelConfig) -> str:
    clients = ", ".join(str(network) for network in config.allow_clients) or "this host"
    users = ", ".join(config.allow_users) or "every user"
    return f"{users} of {clients}"
