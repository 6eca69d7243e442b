"""A real Kafka of three brokers, each with TLS and client certificates, for one test or for the session.

A cluster lives in one folder of its own, with a folder for each broker. `start` returns when every broker serves;
`close` ends all and removes the folder; and if this process dies first, a guard for each broker does both. One process
is one broker, so that each can be stopped, killed and looked at like those of a real cluster.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.errors import ServerError
from tests.services.kafka_broker import KafkaBroker, PortTakenError
from tests.services.kafka_builds import KafkaBuild
from tests.services.kafka_doors import Door
from tests.services.kafka_settings import KafkaOptions, Ports, free_ports, properties
from tests.services.kafka_visits import Visit, visits
from tests.services.kafka_warm import format_data, new_cluster_id, warm, write_stores
from tests.services.pki import Pair, Pki
from tests.services.places import LOOPBACK_V4, make_scratch

_PORT_ATTEMPTS = 10


class KafkaCluster:
    """One cluster. A context manager: started on entry, gone on exit."""

    def __init__(self, build: KafkaBuild, pki: Pki, options: KafkaOptions | None = None) -> None:
        """Nothing happens before `start`."""
        self.build = build
        self.pki = pki
        self.options = options or KafkaOptions()
        self._folder: Path | None = None
        self._ports: Mapping[int, Ports] = {}
        self._nodes: dict[int, KafkaBroker] = {}

    def __repr__(self) -> str:
        return f"<Kafka {self.version}, running: {self.running}>"

    @property
    def version(self) -> str:
        """The version of the brokers."""
        return self.build.version

    @property
    def folder(self) -> Path:
        """The folder with all that is the cluster's own."""
        if self._folder is None:
            raise ServerError("the cluster was not started")
        return self._folder

    @property
    def brokers(self) -> dict[int, tuple[str, int]]:
        """The address that each node advertises to clients, which wants TLS; the same after a restart."""
        return {node_id: (LOOPBACK_V4, ports.clients) for node_id, ports in self._ports.items()}

    @property
    def ports(self) -> Mapping[int, Ports]:
        """Every port of each node, with the plain ones that no client may ever come to."""
        return self._ports

    @property
    def bootstrap(self) -> str:
        """Every broker's address, as clients take it."""
        return ",".join(f"{host}:{port}" for host, port in self.brokers.values())

    @property
    def ca(self) -> Path:
        """What the brokers' certificates are verified with."""
        return self.pki.server_ca

    @property
    def client(self) -> Pair:
        """An identity that the brokers accept."""
        return self.pki.client

    @property
    def running(self) -> tuple[int, ...]:
        """The nodes whose process is there."""
        return tuple(node_id for node_id, node in self._nodes.items() if node.running)

    def door(self, *, client: Pair | None = None) -> Door:
        """The direct way in, for the clients of `tests.services.kafka_clients`; `client` is another identity."""
        return Door(self.bootstrap, self.folder, ca=self.ca, client=client or self.client)

    def pid_of(self, node_id: int) -> int:
        """A broker's process id."""
        return self._nodes[node_id].pid

    def guard_pid_of(self, node_id: int) -> int:
        """The process id of the guard that ends this broker if we die."""
        return self._nodes[node_id].guard_pid

    def log_of(self, node_id: int) -> str:
        """All that a broker has logged."""
        return self._nodes[node_id].log()

    def visits(self, node_id: int) -> tuple[Visit, ...]:
        """Every connection that the broker ever accepted on the port for clients, with the identity that it showed."""
        return visits(self.log_of(node_id), self._ports[node_id].clients)

    def create_topic(self, topic: str, *, partitions: int = 3, replicas: int = 3) -> None:
        """Make a topic on the nodes that run, each leading its share, and wait until each of its replicas is there.

        Raises `ServerError` where that takes too long. No topic is made by using it, as at providers.
        """
        from tests.services.kafka_python import create_topic

        nodes = self.running
        assigned = [[nodes[(at + turn) % len(nodes)] for turn in range(replicas)] for at in range(partitions)]
        create_topic(self.door(), topic, assigned)
        for partition, hosts in enumerate(assigned):
            for node_id in hosts:
                self._nodes[node_id].wait_logged(f"Created log for partition {topic}-{partition} in ")

    def stop_broker(self, node_id: int) -> None:
        """Stop one in good order, and wait for its end. Without two of three the cluster elects no leaders."""
        self._nodes[node_id].stop()

    def kill_broker(self, node_id: int) -> None:
        """SIGKILL one. The others miss it after ``broker.session.timeout.ms``."""
        self._nodes[node_id].kill()

    def start_broker(self, node_id: int) -> None:
        """Start one that was stopped or killed, on its ports, and wait until it serves."""
        node = self._nodes[node_id]
        node.launch()
        try:
            node.wait_started()
        except PortTakenError as exc:
            raise ServerError(f"a port of broker {node_id} was taken while it was stopped") from exc

    def start(self) -> None:
        """Start and wait until every broker serves. Raises `ServerError`, with a log, where one does not."""
        if self._folder is not None:
            raise ServerError("the cluster was started already")
        for _ in range(_PORT_ATTEMPTS):
            try:
                return self._start_on(free_ports(self.options.node_ids))
            except PortTakenError:
                self.close()
            except BaseException:
                self.close()
                raise
        raise ServerError(f"{_PORT_ATTEMPTS} times a free port was taken before Kafka had it")

    def close(self) -> None:
        """Kill every broker and remove the folder: there is nothing to keep, and good order takes its time."""
        for node in self._nodes.values():
            node.kill()
        self._nodes.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_on(self, ports: Mapping[int, Ports]) -> None:
        made = warm(self.build)
        self._ports = ports
        self._folder = make_scratch("mtlskit-kafka-", None)
        stores = write_stores(self._folder, self.pki, self.options.certificate, self.options.client_ca)
        cluster_id = new_cluster_id()
        for node_id in ports:
            folder = self._folder / str(node_id)
            folder.mkdir()
            format_data(folder / "data", made.formatted, cluster_id, node_id)
            written = properties(self.options, node_id, ports, stores, folder / "data")
            (folder / "server.properties").write_text(written)
            self._nodes[node_id] = KafkaBroker(self.build, folder, self._folder, (*made.jvm, *self.options.jvm))
        for node in self._nodes.values():
            node.launch()
        for node in self._nodes.values():
            node.wait_started()
