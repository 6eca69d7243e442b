"""The space's Kafka: a mock cluster in a process of its own, and a door for each of its brokers.

The order of the start matters: the doors' addresses are known first, the brokers are told to advertise them, the topics
are made, and then the doors open. So no client is ever told where a broker listens in plain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

import trio

from mtlskit.config.values import Endpoint, TcpAddress
from mtlskit.errors import Code, SandboxError
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.sandbox.events import BrokerStarted, BrokerStopped, KafkaReady, LeaderMoved
from mtlskit.sandbox.kafka_cluster import Cluster
from mtlskit.sandbox.kafka_gateway import KafkaGateway
from mtlskit.sandbox.kafka_options import KafkaOptions, Topic
from mtlskit.telemetry import Emit

__all__ = ["SpaceKafka", "open_doors"]

_REPLICAS: Final = 3
_LOOPBACK: Final = "127.0.0.1"


@contextmanager
def open_doors(options: KafkaOptions) -> Iterator[list[Listener]]:
    """The brokers' listeners, in the order of the brokers' ids. Raises ListenError."""
    with ExitStack() as stack:
        yield [stack.enter_context(open_listeners(address)) for address in options.addresses()]


class SpaceKafka:
    """A Kafka that runs. Its methods raise SandboxError for what cannot be done. Use it from trio's thread."""

    def __init__(
        self,
        options: KafkaOptions,
        cluster: Cluster,
        gateway: KafkaGateway,
        addresses: Sequence[TcpAddress],
        *,
        emit: Emit,
    ) -> None:
        """`addresses`: where clients of this host reach the doors, in the order of the brokers' ids."""
        self.addresses = dict(enumerate(addresses, start=1))
        """By node id."""
        self._options = options
        self._cluster = cluster
        self._gateway = gateway
        self._emit = emit
        self._topics: dict[str, int] = {}

    async def open(self, nursery: trio.Nursery, listeners: Sequence[Listener]) -> None:
        """Serves in `nursery`, with the topics that were asked for."""
        for broker, address in self.addresses.items():
            await self._cluster.advertise(broker, address.host, address.port)
        for topic in self._options.topics:
            await self.create_topic(topic.name, topic.partitions)
        for (broker, port), listener in zip(enumerate(self._cluster.ports, start=1), listeners, strict=True):
            await nursery.start(self._gateway.run, broker, Endpoint(_LOOPBACK, port), listener)
        self._emit(KafkaReady(brokers=", ".join(map(str, self.addresses.values()))))

    @property
    def url(self) -> str:
        """KAFKA_URL: every broker."""
        return ",".join(f"kafka+ssl://{address}" for address in self.addresses.values())

    @property
    def prefix(self) -> str:
        """KAFKA_PREFIX; empty: there is none."""
        return self._options.prefix

    @property
    def topics(self) -> Mapping[str, int]:
        """The topics that were made by name, with their numbers of partitions. Clients make others by using them."""
        return self._topics

    def brokers(self) -> Mapping[int, tuple[str, bool]]:
        """The address of each broker, and whether it is up."""
        return {node: (str(address), node not in self._gateway.down) for node, address in self.addresses.items()}

    async def create_topic(self, name: str, partitions: int) -> None:
        """Make a topic. Raises ConfigError for a name or a number that Kafka would not take, too."""
        topic = Topic(name, partitions)
        replicas = min(_REPLICAS, len(self.addresses))
        await self._cluster.create_topic(topic.name, partitions=topic.partitions, replicas=replicas)
        self._topics[topic.name] = topic.partitions

    async def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """Give a partition another leader. Clients learn of it by an error, or by KIP-951's hint in a response."""
        self._known(broker)
        await self._cluster.set_leader(topic, partition, broker)
        self._emit(LeaderMoved(topic=topic, partition=partition, broker=broker))

    async def set_up(self, broker: int, up: bool) -> None:
        """Stop a broker, or start it again. Partitions that it leads keep it as their leader meanwhile."""
        self._known(broker)
        if up:
            await self._cluster.start_broker(broker)
            self._gateway.down.discard(broker)
            self._emit(BrokerStarted(broker=broker))
        else:
            self._gateway.down.add(broker)
            await self._cluster.stop_broker(broker)
            self._emit(BrokerStopped(broker=broker))

    async def push_errors(self, api_key: int, errors: Sequence[int]) -> None:
        """The next requests with this API key are answered with these error codes; -195 cuts the connection off."""
        await self._cluster.push_errors(api_key, list(errors))

    def _known(self, broker: int) -> None:
        if broker not in self.addresses:
            raise SandboxError(
                Code.SANDBOX_KAFKA,
                f"there is no Kafka broker {broker}",
                f"name one from 1 to {len(self.addresses)}",
            )
