"""The brokers of one Kafka tunnel, as far as they have been named: a listener for each, and where each of them is now.

Theory of operation
===================
`resolve` is asked for every address that the cluster advertises, before the client hears of it, by the relay's thread
(and by trio's, from `look`). A node that is new gets its listener then and there: `open_listeners` does not block, and
when it returns, the kernel takes connections. Accepting them is trio's business, and so is telling the log: both are
left in a queue for the task of `run`.

A node keeps its listener for as long as the tunnel serves, whether the broker is there or not: clients that know it
come back to it. What changes is where the listener leads to, which is what the cluster said last. It never leads to
another node. Metadata names every broker that is up, so that whoever is missing there is down or gone for good: which
of the two nobody says, and `absent` has them.

One lock guards what both threads change; the common case, a node whose address is known and the same, takes none.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import trio

from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, TunnelConfig
from mtlskit.errors import Code, ListenError, UpstreamError, UpstreamUnreachable
from mtlskit.net.dial import Dialler
from mtlskit.net.listen import Listener
from mtlskit.proxy.events import (
    BrokerFailed,
    BrokerListening,
    BrokerMoved,
    BrokerNotListening,
    BrokerRecovered,
    BrokerWithheld,
    TunnelWarned,
    described,
)
from mtlskit.proxy.kafka.denied import Denials
from mtlskit.proxy.kafka.doors import HolderOf, collides, nobody, open_door
from mtlskit.proxy.kafka.loops import OurListeners, leads_to
from mtlskit.proxy.kafka.outage import TOLD_EVERY, Outage
from mtlskit.proxy.kafka.ports import HIGHEST_PORT, BrokerPorts
from mtlskit.proxy.kafka.refusals import Refusals
from mtlskit.telemetry import Emit, Event
from mtlskit.wire.kafka.advertised import NO_LISTENER, Address, AddressWithheld

__all__ = ["BOOTSTRAP", "MOST_BROKERS", "Broker", "Brokers", "outage_of"]

BOOTSTRAP: Final = "bootstrap"

MOST_BROKERS: Final = 1024
"""Listeners of one tunnel. Each takes a descriptor for good, and it is the cluster that says how many there are."""

_OPEN_AGAIN: Final = 1.0
"""Seconds between the first two attempts to open the listener of a node. Each further one waits twice as long."""

_MOST_TOLD: Final = 256
"""Different addresses of which it is remembered that they have been told to the log as withheld."""

_LONGEST_HOST: Final = 253


@dataclass(eq=False)
class Broker:
    """One node. `dialler` is swapped when the node has another address; a session looks at it once."""

    node_id: int
    listener: Listener
    port: int
    """Of the listener."""
    host: str | None
    """The host that clients are told, where that is not the one at which they reached us."""
    dialler: Dialler
    outage: Outage
    moves: int = 0
    """How often it has moved since that was told."""
    moved_at: float = float("-inf")
    """When that was told (monotonic seconds)."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it is, as the cluster said last."""
        return self.dialler.endpoints[0]


class Brokers:
    """Made when a tunnel opens its door. `close` refuses new clients for good."""

    def __init__(
        self,
        config: TunnelConfig,
        listening: Iterable[ListenAddress],
        dialler: Dialler,
        welcome: Callable[[Broker, trio.socket.SocketType], Awaitable[None]],
        emit: Emit,
        prefix: Callable[[], str] = str,
        holder_of: HolderOf = nobody,
    ) -> None:
        """`listening` are the tunnel's own addresses. `dialler` says how brokers are dialled, but not where they are.

        `welcome` owns the socket of a client that has come to a broker's listener. `prefix` tells what names of topics
        begin with, empty where that is not known. `holder_of` tells who of this process has a port.
        """
        self._config = config
        self._own = tuple(address for address in listening if isinstance(address, TcpAddress))
        listen = config.listen if isinstance(config.listen, TcpAddress) else self._own[0]
        self.ports = BrokerPorts(config.name, config.kafka, listen, self._own[0].port)
        self._dialler = dialler
        self._welcome = welcome
        self._emit = emit
        self._holder_of = holder_of
        self._token = trio.lowlevel.current_trio_token()
        self._lock = threading.Lock()
        self._brokers: dict[int, Broker] = {}
        self._ours = OurListeners(self._own)
        self._refused = Refusals()
        """Nodes whose listener could not be opened."""
        self._absent: frozenset[int] = frozenset()
        """Replaced, never changed, so that it can be looked at without the lock."""
        self._crowd_told = False
        self._told: set[tuple[int, str, str]] = set()
        self._jobs: deque[Callable[[trio.Nursery], None]] = deque()
        self._news = trio.Event()
        self._closed = False
        self.outage = outage_of(config.name, BOOTSTRAP, emit)
        """Of the addresses that the configuration names."""
        self.denials = Denials(config.name, prefix, self.tell)
        self.wanted = trio.Event()
        """Set when it is worth while to ask the cluster where its brokers are: one could not be reached."""

    # Any thread.

    def resolve(self, reached: str, node_id: int, host: str, port: int) -> Address | None:
        """The address that clients who came to `reached` (an IP address of ours) are to use for a node; None: there can
        be none. See `mtlskit.wire.kafka.advertised.Resolve`."""
        if node_id in self._absent:
            with self._lock:
                self._absent -= {node_id}
        broker = self._brokers.get(node_id)
        if broker is None or (endpoint := broker.endpoint).port != port or endpoint.host != host:
            broker = self._learn(node_id, host, port)
            if broker is None:
                return None
        return broker.host or reached, broker.port

    def learn(self, node_id: int, host: str, port: int) -> None:
        """The cluster names a node, and no client is told of it."""
        if node_id >= 0 and host:
            self.resolve("", node_id, host, port)

    def holder_of(self, address: TcpAddress) -> int | None:
        """The node whose listener keeps others from `address`. Takes no lock (see `HolderOf`)."""
        if self._closed:
            return None
        # A copy in one step of the interpreter: the other thread may add a broker at any time.
        every = tuple(self._brokers.values())
        return next((one.node_id for one in every if collides(address, one.listener.addresses)), None)

    def listed(self, nodes: AbstractSet[int]) -> None:
        """The cluster has named all of its brokers, and these they are. See `mtlskit.wire.kafka.advertised.Listed`."""
        if not nodes:
            return  # a broker that is only starting names nobody, and it is there
        with self._lock:
            self._absent = frozenset(node_id for node_id in (*self._brokers, *self._refused) if node_id not in nodes)

    def notice(self, withheld: AddressWithheld) -> None:
        """Tell the log, once, that an address is not passed on."""
        address = f"{withheld.host}:{withheld.port}"[: _LONGEST_HOST + 6] if withheld.host else ""
        key = (withheld.node_id, address, withheld.reason)
        if withheld.reason == NO_LISTENER:
            return  # that has been told, with the reason
        with self._lock:
            if withheld.node_id in self._refused or key in self._told or len(self._told) >= _MOST_TOLD:
                return
            self._told.add(key)
        shown = address if address.isprintable() else repr(address)
        event = BrokerWithheld(
            tunnel=self._config.name, broker=withheld.node_id, address=shown, warning=withheld.reason
        )
        self.tell(event)

    def _learn(self, node_id: int, host: str, port: int) -> Broker | None:
        with self._lock:
            known = self._brokers.get(node_id)
            if self._closed:
                return known
            endpoint = Endpoint(host, port)
            if known is None:
                return self._open(node_id, endpoint)
            return self._follow(known, endpoint) if _can_be_dialled(endpoint) else known

    def _follow(self, broker: Broker, endpoint: Endpoint) -> Broker:
        before = broker.endpoint
        if endpoint != before:
            broker.dialler = replace(broker.dialler, endpoints=(endpoint,))
            broker.moves += 1
            now = time.monotonic()
            # Brokers that do not agree where one of them is make it move with each response.
            if now - broker.moved_at >= TOLD_EVERY:
                event = BrokerMoved(
                    tunnel=self._config.name,
                    broker=broker.node_id,
                    before=str(before),
                    upstream=str(endpoint),
                    times=broker.moves,
                )
                broker.moves, broker.moved_at = 0, now
                self.tell(event)
        return broker

    def _open(self, node_id: int, endpoint: Endpoint) -> Broker | None:
        now = time.monotonic()
        if self._refused.waits(node_id, now) or self._crowded(node_id):
            return None
        try:
            address = self.ports.address_of(node_id)
            self._check(endpoint, address)
            listener = open_door(self._config.name, node_id, address, self._holder_of)
        except ListenError as exc:
            if self._refused.add(node_id, exc, now, _OPEN_AGAIN):
                self.tell(BrokerNotListening(tunnel=self._config.name, broker=node_id, **described(exc)))
            return None
        self._refused.forget(node_id)
        self._ours.add(_tcp_of(listener))
        told = self._config.kafka.advertised
        if told is None and self._config.kafka.first_address is not None:
            told = address.host
        broker = Broker(
            node_id,
            listener,
            _tcp_of(listener)[0].port,
            told,
            replace(self._dialler, endpoints=(endpoint,)),
            outage_of(self._config.name, str(node_id), self._emit),
        )
        self._brokers[node_id] = broker
        self._later(partial(self._begin, broker))
        return broker

    def _crowded(self, node_id: int) -> bool:
        """Whether so many nodes have no listener that one more of them is of no interest."""
        if node_id in self._refused or len(self._refused) < MOST_BROKERS:
            return False
        if not self._crowd_told:
            self._crowd_told = True
            warning = f"the cluster names more than {MOST_BROKERS} brokers that have no listener; no more are told of"
            self.tell(TunnelWarned(tunnel=self._config.name, warning=warning))
        return True

    def _check(self, endpoint: Endpoint, address: TcpAddress) -> None:
        """Whether `address` can stand for a broker at `endpoint`. Raises ListenError."""
        if not _can_be_dialled(endpoint):
            raise ListenError(
                Code.KAFKA_NO_LISTENER,
                f"the cluster says that it is at {str(endpoint)[:_LONGEST_HOST]!a}, which is no address",
                "look at advertised.listeners of the broker",
            )
        if len(self._brokers) >= MOST_BROKERS:
            raise ListenError(
                Code.KAFKA_NO_LISTENER,
                f"the tunnel has listeners for {MOST_BROKERS} brokers already",
                "look at what the cluster advertises: `mtlskit status` lists the brokers",
            )
        if self._ours.reached_by(endpoint) or leads_to(endpoint, address):
            raise ListenError(Code.KAFKA_NO_LISTENER, *self._loop(endpoint))

    def _loop(self, endpoint: Endpoint) -> tuple[str, str]:
        """The sentence and the hint about a broker that is said to be where we listen."""
        return (
            f"the cluster says that it is at {endpoint}, which is this tunnel's own listener",
            "have the broker advertise (advertised.listeners) the address at which this host reaches it, or let the"
            f" tunnel listen on other ports: listen and first_broker_port of [tunnel.{self._config.name}]",
        )

    def tell(self, event: Event) -> None:
        """Have an event told by trio's thread."""
        self._later(lambda _: self._emit(event))

    def _later(self, job: Callable[[trio.Nursery], None]) -> None:
        """Have the task of `run` do it. The nursery is the one of the clients."""
        self._jobs.append(job)
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._wake)

    # Trio's thread.

    def _wake(self) -> None:
        self._news.set()

    @property
    def known(self) -> tuple[Broker, ...]:
        """The nodes that have a listener, in the order of their ids."""
        with self._lock:
            return tuple(broker for _, broker in sorted(self._brokers.items()))

    @property
    def refused(self) -> dict[int, ListenError]:
        """The nodes that have no listener, and why."""
        with self._lock:
            return self._refused.errors

    @property
    def absent(self) -> frozenset[int]:
        """Of those, the nodes that the cluster named once and does not name any more."""
        return self._absent

    @property
    def closed(self) -> bool:
        """Nothing new is served any more."""
        return self._closed

    def check_way(self, broker: Broker) -> None:
        """Raises UpstreamUnreachable where a broker is said to be at a listener of ours.

        It may have moved there, and a listener may have been opened where it was said to be.
        """
        endpoint = broker.endpoint
        with self._lock:
            leads_back = self._ours.reached_by(endpoint)
        if leads_back:
            raise UpstreamUnreachable(Code.KAFKA_NO_LISTENER, *self._loop(endpoint))

    def ask_again(self) -> None:
        """A broker could not be reached: it may be somewhere else by now."""
        self.wanted.set()

    def close(self) -> None:
        """Refuse new clients, and open no more listeners."""
        with self._lock:
            self._closed = True
            for broker in self._brokers.values():
                broker.listener.close()
        self.wanted.set()  # who waits to ask the cluster again is not needed any more

    async def run(self, clients: trio.Nursery) -> None:
        """Accept clients on the listeners, in tasks of `clients`, and tell the log, until cancelled."""
        try:
            while True:
                while self._jobs:
                    self._jobs.popleft()(clients)
                await self._news.wait()
                self._news = trio.Event()
        finally:
            self.close()

    def _begin(self, broker: Broker, clients: trio.Nursery) -> None:
        if self._closed:
            return  # meanwhile
        clients.start_soon(self._accept, broker, clients)
        self._emit(
            BrokerListening(
                tunnel=self._config.name,
                broker=broker.node_id,
                addresses=tuple(str(address) for address in broker.listener.addresses),
                upstream=str(broker.endpoint),
            )
        )

    async def _accept(self, broker: Broker, clients: trio.Nursery) -> None:
        try:
            await broker.listener.serve(partial(self._welcome, broker), nursery=clients, emit=self._emit)
        except ListenError as exc:
            with self._lock:
                del self._brokers[broker.node_id]  # whoever is told of it next opens another
                self._ours.remove(_tcp_of(broker.listener))
            self._emit(BrokerNotListening(tunnel=self._config.name, broker=broker.node_id, **described(exc)))


def outage_of(tunnel: str, broker: str, emit: Emit) -> Outage:
    """The outages of one broker, or of the bootstrap addresses, told to the log."""

    def tell(error: UpstreamError, clients: int) -> None:
        emit(BrokerFailed(tunnel=tunnel, broker=broker, clients=clients, **described(error)))

    return Outage(tell, lambda: emit(BrokerRecovered(tunnel=tunnel, broker=broker)))


def _tcp_of(listener: Listener) -> tuple[TcpAddress, ...]:
    return tuple(address for address in listener.addresses if isinstance(address, TcpAddress))


def _can_be_dialled(endpoint: Endpoint) -> bool:
    """A name in ASCII or an IP address; no more is asked, because clusters have names that DNS would not take."""
    host = endpoint.host
    named = 0 < len(host) <= _LONGEST_HOST and host.isascii() and host.isprintable() and " " not in host
    return named and 0 < endpoint.port <= HIGHEST_PORT
