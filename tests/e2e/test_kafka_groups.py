"""Consumer groups of both protocols, whose members come and go, and what administrators do: all through a tunnel."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource  # public, but not for mypy
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from tests.services.kafka_clients import java_command, java_console
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.services.kafka_python import confluent
from tests.support.kafka_load import Load
from tests.support.kafka_readers import LibrdkafkaReader
from tests.support.kafka_senders import Librdkafka
from tests.support.kafka_strays import seen, strays
from tests.support.kafka_tunnel import MakeKafkaTunnel
from tests.support.until import until

PARTITIONS = 6
TIMEOUT = 60

CLASSIC = {"group.protocol": "classic", "heartbeat.interval.ms": "500"}
KIP_848 = {"group.protocol": "consumer"}


def new_topic(cluster: KafkaCluster, partitions: int = PARTITIONS) -> str:
    topic = f"groups-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic, partitions=partitions)
    return topic


def join_and_leave(door: Door, topic: str, settings: dict[str, str]) -> None:
    """One member has all partitions; another joins, and they share; it leaves, and the first has all again."""
    first, second = (LibrdkafkaReader(door, topic, topic, **settings) for _ in range(2))
    everything = set(range(PARTITIONS))
    sender = Librdkafka(door, topic)
    with Load([sender], [first]) as load:
        until(lambda: first.mine == everything, "a member with all partitions")
        load.goes_on()
        second.start()
        try:
            until(lambda: first.mine and second.mine and first.mine ^ second.mine == everything, "two that share")
            until(lambda: second.seen, "records for the second")
        finally:
            second.finish()
        until(lambda: first.mine == everything, "the first with all partitions again")
        sender.finish()
        until(lambda: first.seen | second.seen == set(sender.acknowledged), "every record")
        assert not first.failures + second.failures + sender.failures


def test_a_member_joins_and_leaves_a_classic_group(
    each_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel
) -> None:
    tunnel = make_kafka_tunnel(each_kafka)
    before = seen(each_kafka)
    join_and_leave(tunnel.door, new_topic(each_kafka), CLASSIC)
    assert not strays(each_kafka, before)


def test_a_member_joins_and_leaves_a_group_of_the_new_protocol(
    kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel
) -> None:
    """KIP-848, where the broker says who reads what."""
    tunnel = make_kafka_tunnel(kafka)
    before = seen(kafka)
    join_and_leave(tunnel.door, new_topic(kafka), KIP_848)
    assert not strays(kafka, before)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_java_reads_in_a_group_of_either_protocol(
    kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, protocol: str
) -> None:
    tunnel = make_kafka_tunnel(kafka)
    topic = new_topic(kafka)
    values = [str(number) for number in range(100)]
    confluent().produce(tunnel.door, topic, values, {})
    settings = {"group.protocol": protocol, "group.id": topic}
    assert sorted(java_console(kafka.build).consume(tunnel.door, topic, 100, settings)) == sorted(values)
    admin = AdminClient({**tunnel.door.librdkafka()})  # if it goes, so does what it was asked for
    group = admin.describe_consumer_groups([topic])[topic].result(TIMEOUT)
    assert group.type.name.lower() == protocol


def test_an_administrator_makes_changes_and_looks_at_them(
    each_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel
) -> None:
    tunnel = make_kafka_tunnel(each_kafka)
    before = seen(each_kafka)
    admin = AdminClient({**tunnel.door.librdkafka()})
    topic = f"made-{uuid.uuid4().hex[:8]}"
    admin.create_topics([NewTopic(topic, 2, 3)], operation_timeout=TIMEOUT)[topic].result(TIMEOUT)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    resource.add_incremental_config(ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET))
    admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)
    confluent().produce(tunnel.door, topic, ["one", "two", "three"], {})
    reader = LibrdkafkaReader(tunnel.door, topic, topic)
    with Load([], [reader]):
        until(lambda: reader.seen == {"one", "two", "three"}, "what was sent")

    asked = ConfigResource(ResourceType.TOPIC, topic)
    assert admin.describe_configs([asked])[asked].result(TIMEOUT)["retention.ms"].value == "3600000"
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent-kafka gives it no type
    ends = admin.list_offsets({TopicPartition(topic, at): latest for at in range(2)})
    assert sum(end.result(TIMEOUT).offset for end in ends.values()) == 3
    assert topic in {group.group_id for group in admin.list_consumer_groups().result(TIMEOUT).valid}
    [committed] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(topic)]).values()
    assert sum(one.offset for one in committed.result(TIMEOUT).topic_partitions if one.offset > 0) == 3
    cluster = admin.describe_cluster().result(TIMEOUT)
    assert {node.id: (node.host, node.port) for node in cluster.nodes} == {
        node_id: tunnel.listener_of(node_id) for node_id in each_kafka.brokers
    }

    admin.delete_consumer_groups([topic])[topic].result(TIMEOUT)
    admin.delete_topics([topic], operation_timeout=TIMEOUT)[topic].result(TIMEOUT)
    until(lambda: topic not in admin.list_topics(timeout=TIMEOUT).topics, "a cluster without the topic")
    assert not strays(each_kafka, before)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("org.apache.kafka.tools.TopicCommand", ("--describe",)),
        ("org.apache.kafka.tools.BrokerApiVersionsCommand", ()),
    ],
    ids=["kafka-topics", "kafka-broker-api-versions"],
)
def test_tools_of_java_look_at_the_cluster(
    kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, tool: str, arguments: tuple[str, ...]
) -> None:
    tunnel = make_kafka_tunnel(kafka)
    topic, before = new_topic(kafka), seen(kafka)
    done = java_command(kafka.build, tool, "--bootstrap-server", tunnel.bootstrap, *arguments).run(timeout=90)
    assert done.returncode == 0, done.stderr
    if arguments:
        assert topic in done.stdout
    else:
        for node_id in kafka.brokers:
            host, port = tunnel.listener_of(node_id)
            assert f"{host}:{port} (id: {node_id} " in done.stdout
    for host, port in kafka.brokers.values():
        assert f"{host}:{port}" not in done.stdout + done.stderr
    assert not strays(kafka, before)
