"""Brokers stop, die and come again, and so does the tunnel, while clients send and read: nothing is lost or doubled.

The senders are idempotent, with ``acks=all``: librdkafka, Java, and aiokafka, which never goes back to the address that
it began with. Each must come back by itself. Consumer groups of librdkafka and aiokafka read on meanwhile.
"""

from __future__ import annotations

import shutil
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.services.kafka_warm import write_stores
from tests.services.places import free_port
from tests.support.kafka_load import Load
from tests.support.kafka_moves import MakeKafka
from tests.support.kafka_readers import AiokafkaReader, LibrdkafkaReader
from tests.support.kafka_senders import Aiokafka, Java, Librdkafka
from tests.support.kafka_strays import seen, strays
from tests.support.kafka_tunnel import KafkaTunnel, MakeKafkaTunnel


@pytest.fixture
def shaken_kafka(older_kafka: KafkaCluster) -> Iterator[KafkaCluster]:
    """A shared cluster, whole again afterwards whatever has become of it."""
    yield older_kafka
    for node_id in set(older_kafka.brokers) - set(older_kafka.running):
        older_kafka.kill_broker(node_id)
        older_kafka.start_broker(node_id)


def new_load(door: Door, cluster: KafkaCluster) -> tuple[Load, str]:
    topic = f"faults-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic)
    senders = (Librdkafka(door, topic), Aiokafka(door, topic), Java(cluster.build, door, topic))
    readers = (LibrdkafkaReader(door, topic, f"{topic}-l"), AiokafkaReader(door, topic, f"{topic}-a"))
    return Load(senders, readers), topic


def fixed_ports(cluster: KafkaCluster) -> dict[str, str]:
    """Keys of a tunnel that has the same ports whenever it starts."""
    for _ in range(100):
        base = free_port()
        ports = [base, *(base + node_id - min(cluster.brokers) + 1 for node_id in cluster.brokers)]
        if all(is_free(port) for port in ports):
            first = base + 1 - min(cluster.brokers)
            return {"listen": f'"127.0.0.1:{base}"', "first_broker_port": str(first), "last_broker_port": "65535"}
    raise AssertionError("no free ports in a row")


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_brokers_that_stop_and_brokers_that_die(
    shaken_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, times: int
) -> None:
    """One is killed; with ``--long`` many are, and as many are stopped. See also the test of another CA below."""
    cluster = shaken_kafka
    ways = (cluster.kill_broker,) if times == 1 else (cluster.stop_broker, cluster.kill_broker)
    tunnel = make_kafka_tunnel(cluster)
    before = seen(cluster)
    load, topic = new_load(tunnel.door, cluster)
    with load:
        load.goes_on()
        for turn in range(times):
            nodes = [*cluster.brokers][turn % 3 :] + [*cluster.brokers][: turn % 3]
            for take_away, node_id in zip(ways, nodes, strict=False):
                take_away(node_id)
                load.goes_on()
                cluster.start_broker(node_id)
                load.goes_on()
        load.finish(tunnel.door, topic)
    assert not strays(cluster, before)


def test_a_tunnel_that_stops_and_one_that_dies(
    kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, times: int
) -> None:
    ports = {**fixed_ports(kafka), "timeouts": '{ drain = "1s" }'}
    tunnel = make_kafka_tunnel(kafka, **ports)
    before = seen(kafka)
    load, topic = new_load(tunnel.door, kafka)
    with load:
        load.goes_on()
        for _ in range(times):
            tunnel.proxy.stop()
            tunnel = make_kafka_tunnel(kafka, **ports)
            load.goes_on()
            tunnel.proxy.close()  # SIGKILL
            tunnel = make_kafka_tunnel(kafka, **ports)
            load.goes_on()
        load.finish(tunnel.door, topic)
    assert not strays(kafka, before)


def trust(tunnel: KafkaTunnel, ca: Path, *certificates: Path) -> None:
    """Write what the tunnel trusts, and wait until it has seen that by itself."""
    mark = tunnel.proxy.mark
    ca.write_bytes(b"".join(certificate.read_bytes() for certificate in certificates))
    tunnel.proxy.wait_for("identity_loaded", since=mark)


def test_every_broker_restarts_with_a_certificate_of_another_ca(
    make_kafka: MakeKafka, make_kafka_tunnel: MakeKafkaTunnel, tmp_path: Path, times: int
) -> None:
    """As providers do: first both CAs are given out, then the brokers restart one by one, then the old CA goes.

    The last broker is killed instead of stopped. With ``--long`` all of it happens on the older Kafka too.
    """
    for line in ("4.3",) if times == 1 else ("3.9", "4.3"):
        cluster = make_kafka(line=line)
        ca = tmp_path / f"ca-{line}.pem"
        shutil.copyfile(cluster.ca, ca)
        tunnel = make_kafka_tunnel(cluster, ca=f'"{ca}"')
        before = seen(cluster)
        load, topic = new_load(tunnel.door, cluster)
        with load:
            trust(tunnel, ca, cluster.ca, cluster.pki.stranger_ca)
            load.goes_on()
            write_stores(cluster.folder, cluster.pki, cluster.pki.server_stranger)
            take_away = (cluster.stop_broker, cluster.stop_broker, cluster.kill_broker)
            for node_id, gone in zip(cluster.brokers, take_away, strict=True):
                gone(node_id)
                cluster.start_broker(node_id)
                load.goes_on()
            trust(tunnel, ca, cluster.pki.stranger_ca)
            load.finish(tunnel.door, topic)  # its reader is a new client, whose connections are verified with the new
        assert not strays(cluster, before)
        cluster.close()
