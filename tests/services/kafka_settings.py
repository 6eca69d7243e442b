"""How a test's Kafka is set up: its options, the ports of a broker, and the properties file that comes of them.

Each broker is controller too (KRaft, combined mode), so that any one of three can be away. It has three listeners:
CLIENTS, TLS with a client certificate, the only one that clients are told of; BROKERS and CONTROLLERS, plain, for the
cluster itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.services.pki import Pair
from tests.services.places import LOOPBACK_V4, free_port

# Not 1, 2, 3: whoever adds a node id to a port has to be told about such ids.
NODE_IDS = (1001, 1002, 1003)


@dataclass(frozen=True)
class KafkaOptions:
    """What a test may want different.

    `certificate` is what the brokers present (default: `Pki.server`); `client_ca` what they ask of clients (default:
    `Pki.client_ca`). `settings` are more lines of server.properties and win over all others. `jvm` are more options of
    Java: they win too.
    """

    node_ids: tuple[int, ...] = NODE_IDS
    certificate: Pair | None = None
    client_ca: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    jvm: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ports:
    """Where one broker listens, on 127.0.0.1."""

    clients: int
    brokers: int
    controllers: int


def free_ports(node_ids: tuple[int, ...]) -> dict[int, Ports]:
    """Ports for each broker, all different. Another program may still take one: be ready to try again."""
    taken: set[int] = set()
    while len(taken) < 3 * len(node_ids):
        taken.add(free_port())
    left = iter(sorted(taken))
    return {node_id: Ports(next(left), next(left), next(left)) for node_id in node_ids}


@dataclass(frozen=True)
class Stores:
    """The brokers' PEM stores: a PKCS#8 key with its chain in one file, and the anchors for clients."""

    key: Path
    trust: Path


def properties(options: KafkaOptions, node_id: int, ports: Mapping[int, Ports], stores: Stores, data: Path) -> str:
    """The whole server.properties of one broker (Kafka docs, "Broker Configs")."""
    own, copies = ports[node_id], str(min(3, len(ports)))
    advertised = f"CLIENTS://{LOOPBACK_V4}:{own.clients},BROKERS://{LOOPBACK_V4}:{own.brokers}"
    values = {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "controller.quorum.voters": ",".join(f"{id_}@{LOOPBACK_V4}:{at.controllers}" for id_, at in ports.items()),
        "controller.quorum.election.backoff.max.ms": "200",  # three that start at once vote again soon
        "listeners": f"{advertised},CONTROLLERS://{LOOPBACK_V4}:{own.controllers}",
        "advertised.listeners": advertised,
        "listener.security.protocol.map": "CLIENTS:SSL,BROKERS:PLAINTEXT,CONTROLLERS:PLAINTEXT",
        "inter.broker.listener.name": "BROKERS",
        "controller.listener.names": "CONTROLLERS",
        "listener.name.clients.ssl.client.auth": "required",
        "listener.name.clients.ssl.keystore.type": "PEM",
        "listener.name.clients.ssl.keystore.location": str(stores.key),
        "listener.name.clients.ssl.truststore.type": "PEM",
        "listener.name.clients.ssl.truststore.location": str(stores.trust),
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",  # as at providers; and a mistaken name is an error
        "default.replication.factor": copies,
        "min.insync.replicas": str(min(2, len(ports))),
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": "3",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": str(min(2, len(ports))),
        "transaction.state.log.num.partitions": "3",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": str(min(2, len(ports))),
        "share.coordinator.state.topic.num.partitions": "3",
        "group.initial.rebalance.delay.ms": "0",
        "broker.heartbeat.interval.ms": "500",  # whoever stops asks by heartbeats whether it may
        # A killed broker is missed only after this; so is the active controller's own when it comes again, stopped well
        # or not, because the next controller takes it to be there still.
        "broker.session.timeout.ms": "4000",
        "num.network.threads": "2",
        "num.io.threads": "4",
        **options.settings,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())
