"""Who has come to a tunnel: counted, given a seat, let in or told why not, and brought to a session.

A tunnel may have several listeners (Kafka has one for each broker), and all their clients are counted together.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Protocol, TypeAlias

import trio

from mtlskit.config.values import TunnelConfig
from mtlskit.errors import ClientError, ClientLimitReached, Code
from mtlskit.net.peer import Peer, identify
from mtlskit.proxy.cancel import CancelKeys
from mtlskit.proxy.events import ClientLeft, SessionCrashed
from mtlskit.proxy.front_door import FrontDoor
from mtlskit.proxy.seats import Seats
from mtlskit.proxy.stay import Stay
from mtlskit.telemetry import Emit

__all__ = ["Admission", "Begin", "Session"]


class Session(Protocol):
    """One client's way to the upstream. It owns the socket."""

    async def serve(self, refusal: ClientError | None) -> None:
        """Bring the client to its session, or close its socket. `refusal`: it may not come in, and is told why.

        Raises nothing of ours.
        """


Begin: TypeAlias = Callable[[trio.socket.SocketType, str, Stay], Session]
"""Makes the session of a client: its socket, what to call it in the log, its stay."""


class Admission:
    """Of one tunnel. `door` decides once it is there; nobody is let in before."""

    def __init__(self, config: TunnelConfig, emit: Emit) -> None:
        self.door: FrontDoor | None = None
        self.sessions = 0
        self.cancel_keys = CancelKeys()
        self._config = config
        self._emit = emit
        self._arriving: set[Stay] = set()
        """Of clients that have no session yet."""
        self._seats = Seats(config.max_connections)
        self._idle = trio.Event()
        self._idle.set()

    @property
    def undecided(self) -> int:
        """How many clients have not come so far that a certificate is chosen for them."""
        return sum(stay.serial is None and not stay.established for stay in self._arriving)

    @property
    def arriving(self) -> Counter[str]:
        """How many clients are on their way to a session, by the serial of the certificate that it is opened with."""
        return Counter(stay.serial for stay in self._arriving if stay.serial and not stay.established)

    async def drained(self) -> None:
        """Wait until the last client has left."""
        await self._idle.wait()

    async def welcome(self, begin: Begin, sock: trio.socket.SocketType) -> None:
        """Look after one client, until it has left or its session is established. Owns the socket."""
        if self._seats.crowded:
            sock.close()
            return
        self.sessions += 1
        if self.sessions == 1:
            self._idle = trio.Event()
        stay = Stay(self.cancel_keys, self._one_less)
        self._arriving.add(stay)
        try:
            await self._admit(begin, sock, stay)
        finally:
            self._arriving.discard(stay)
            if not stay.established:
                sock.close()
                stay.end()

    def _one_less(self) -> None:
        self.sessions -= 1
        if not self.sessions:
            self._idle.set()

    async def _admit(self, begin: Begin, sock: trio.socket.SocketType, stay: Stay) -> None:
        door = self.door
        if door is None:  # not started: nobody gets here
            return
        try:
            # Asked at once: the kernel only knows the owner of a socket that is still open.
            peer = identify(sock, with_user=door.needs_user)
        except ClientError:
            self._emit(ClientLeft(tunnel=self._config.name, client="a client"))
            return
        try:
            await self._serve(begin(sock, str(peer), stay), stay, self._refusal(door, peer))
        except Exception:  # noqa: BLE001 - a fault of ours ends one session and is told; the tunnel goes on
            self._emit(SessionCrashed(tunnel=self._config.name, client=str(peer), traceback=traceback.format_exc()))

    async def _serve(self, session: Session, stay: Stay, refusal: ClientError | None) -> None:
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
            limit = self._config.max_connections
            return ClientLimitReached(
                Code.DOOR_FULL,
                f"tunnel {self._config.name} already carries its {limit} connections",
                f"close idle connections, or raise max_connections of [tunnel.{self._config.name}]",
            )
        return None
