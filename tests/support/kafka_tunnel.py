"""`mtlskit proxy` before a Kafka cluster of the tests, and the plain door that its clients come in by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.support.proxy_process import ProxyProcess

MakeKafkaTunnel: TypeAlias = "Callable[..., KafkaTunnel]"
"""What the fixture `make_kafka_tunnel` gives; see tests/e2e/conftest.py."""


def kafka_toml(cluster: KafkaCluster, **settings: str) -> str:
    """A configuration with one tunnel, `orders`; `settings` are further keys, or other values, in TOML.

    Its identity is CN=certuser, and nobody else's: who came to a broker by another way can be told from its name.
    """
    chosen = {
        "kind": '"kafka"',
        "listen": '"127.0.0.1:0"',
        "upstream": f'"{cluster.bootstrap}"',
        "cert": f'"{cluster.pki.certuser.cert}"',
        "key": f'"{cluster.pki.certuser.key}"',
        "ca": f'"{cluster.ca}"',
    }
    return "\n".join(["[tunnel.orders]", *(f"{key} = {value}" for key, value in (chosen | settings).items())]) + "\n"


@dataclass
class KafkaTunnel:
    """A proxy that runs, and its way in."""

    proxy: ProxyProcess
    cluster: KafkaCluster

    @property
    def bootstrap(self) -> str:
        """Where clients begin."""
        host, port = self.proxy.address
        return f"{host}:{port}"

    @property
    def door(self) -> Door:
        """For the clients of tests.services: plain, to the tunnel's own listener."""
        return Door(self.bootstrap, self.proxy.folder)

    def listener_of(self, node_id: int) -> tuple[str, int]:
        """Where clients find a broker, once it has been named."""
        told = self.proxy.wait_for("broker_listening", broker=node_id)
        host, _, port = told["addresses"][0].rpartition(":")
        return host, int(port)
