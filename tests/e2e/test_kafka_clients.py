"""Every client sends and reads through a tunnel, on the oldest and the newest Kafka, and hears of no other address."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.services.kafka_clients import Client, java_console, java_verifiable, kcat, kcat_command
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_python import aiokafka, confluent, kafka_python
from tests.support.kafka_strays import TUNNEL, seen, strays, visitors
from tests.support.kafka_tunnel import KafkaTunnel, MakeKafkaTunnel

VALUES = [str(number) for number in range(300)]

CLIENTS: dict[str, Callable[[KafkaCluster], Client]] = {
    "confluent-kafka": lambda cluster: confluent(),
    "kafka-python": lambda cluster: kafka_python(),
    "aiokafka": lambda cluster: aiokafka(),
    "kcat": lambda cluster: kcat(),
    "java-console": lambda cluster: java_console(cluster.build),
    "java-verifiable": lambda cluster: java_verifiable(cluster.build),
}


def new_topic(cluster: KafkaCluster) -> str:
    topic = f"e2e-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic)
    return topic


def send_and_read(tunnel: KafkaTunnel, client: Client) -> None:
    topic = new_topic(tunnel.cluster)
    before = seen(tunnel.cluster)
    client.produce(tunnel.door, topic, VALUES, {})
    assert sorted(client.consume(tunnel.door, topic, len(VALUES), {})) == sorted(VALUES)
    # Each broker leads a partition of the topic, so each was gone to: by us.
    came = visitors(tunnel.cluster, before)
    assert came[TUNNEL] >= len(tunnel.cluster.brokers)
    assert not strays(tunnel.cluster, before)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_sends_and_reads(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, name: str) -> None:
    send_and_read(make_kafka_tunnel(kafka), CLIENTS[name](kafka))


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_sends_and_reads_with_an_older_kafka(
    older_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, name: str
) -> None:
    send_and_read(make_kafka_tunnel(older_kafka), CLIENTS[name](older_kafka))


def test_kcat_lists_our_addresses_and_no_other(each_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    tunnel = make_kafka_tunnel(each_kafka)
    done = kcat_command(tunnel.door, "-L", "-J").run(timeout=60)
    assert done.returncode == 0, done.stderr
    listed = {broker["id"]: broker["name"] for broker in json.loads(done.stdout)["brokers"]}
    assert listed == {node_id: "{}:{}".format(*tunnel.listener_of(node_id)) for node_id in each_kafka.brokers}
    for host, port in each_kafka.brokers.values():
        assert f"{host}:{port}" not in done.stdout + done.stderr


def test_a_client_of_ipv6_is_told_where_it_can_go(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    """librdkafka, Java and the clients in Python write an address of IPv6 each in its own way."""
    tunnel = make_kafka_tunnel(kafka, listen='"[::1]:0"')
    door = replace(tunnel.door, bootstrap=tunnel.bootstrap.replace("::1", "[::1]"))
    for name in CLIENTS:
        topic = new_topic(kafka)
        client = CLIENTS[name](kafka)
        client.produce(door, topic, VALUES[:10], {})
        assert sorted(client.consume(door, topic, 10, {})) == sorted(VALUES[:10]), name


def test_each_broker_may_have_an_address_of_its_own(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    tunnel = make_kafka_tunnel(kafka, listen=f'"127.0.0.1:{port}"', first_broker_address='"127.0.5.0"')
    assert {tunnel.listener_of(node_id)[0] for node_id in kafka.brokers} == {
        "127.0.8.233",
        "127.0.8.234",
        "127.0.8.235",
    }
    assert {tunnel.listener_of(node_id)[1] for node_id in kafka.brokers} == {tunnel.proxy.address[1]}
    send_and_read(tunnel, confluent())
