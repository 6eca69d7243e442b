"""While partition leaders move, brokers name the new ones in Produce responses (KIP-951): no client goes there.

That such responses came is read in the brokers' own logs, which tell each request with its response. And the same load
runs once through a tunnel that was robbed of what it knows of them, where clients do go astray: so this would be seen.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.kafka_builds import kafka_build
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_settings import KafkaOptions
from tests.services.kafka_visits import connections
from tests.services.pki import Pki
from tests.support.kafka_load import Load
from tests.support.kafka_moves import mover
from tests.support.kafka_readers import AiokafkaReader, LibrdkafkaReader
from tests.support.kafka_senders import Java, Librdkafka
from tests.support.kafka_strays import TUNNEL, seen, strays, visitors
from tests.support.kafka_tunnel import KafkaTunnel, MakeKafkaTunnel, kafka_toml
from tests.support.proxy_process import MakeProxy
from tests.support.until import until

ROUNDS = 2
_TOLD = re.compile(r'"listener":"CLIENTS"')
_NAMES_LEADERS = re.compile(r'"requestApiKeyName":"PRODUCE".*"nodeEndpoints":\[\{')

# The whole product, but for its knowledge of KIP-951: Produce and Fetch pass as they are.
_ROBBED = """
from mtlskit.wire.kafka import tables

del tables.TABLES[tables.PRODUCE]
tables.NEWEST[tables.FETCH] = 17
"""


@pytest.fixture(scope="module", params=["3.9", "4.3"])
def telling_kafka(services: None, pki: Pki, request: pytest.FixtureRequest) -> Iterator[KafkaCluster]:
    """A cluster whose brokers log every request with its response."""
    options = KafkaOptions(jvm=("-Dorg.slf4j.simpleLogger.log.kafka.request.logger=debug",))
    with KafkaCluster(kafka_build(request.param), pki, options) as cluster:
        yield cluster


def leaders_named(cluster: KafkaCluster) -> int:
    """How many responses to producers have named a leader with its address."""
    lines = (line for node_id in cluster.brokers for line in cluster.log_of(node_id).splitlines())
    return sum(1 for line in lines if _NAMES_LEADERS.search(line) and _TOLD.search(line))


def new_load(tunnel: KafkaTunnel) -> tuple[Load, str]:
    topic = f"moving-{uuid.uuid4().hex[:8]}"
    tunnel.cluster.create_topic(topic)
    door = tunnel.door
    senders = (Librdkafka(door, topic), Java(tunnel.cluster.build, door, topic))
    readers = (LibrdkafkaReader(door, topic, f"{topic}-l"), AiokafkaReader(door, topic, f"{topic}-a"))
    return Load(senders, readers), topic


def astray(tunnel: KafkaTunnel) -> Iterator[str]:
    """Who is connected to a broker and should not be: to the clients' ports only we, to the others only brokers."""
    cluster = tunnel.cluster
    brokers = {cluster.pid_of(node_id) for node_id in cluster.brokers}
    for ports in cluster.ports.values():
        for one in connections({ports.clients}):
            if one.pid != tunnel.proxy.pid:
                yield f"process {one.pid} is at a clients' port"
        for one in connections({ports.brokers, ports.controllers}):
            if one.pid not in brokers:
                yield f"process {one.pid} is at a port of brokers only"


def test_no_client_goes_where_a_leader_is(
    telling_kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, times: int
) -> None:
    tunnel = make_kafka_tunnel(telling_kafka)
    before, named_before = seen(telling_kafka), leaders_named(telling_kafka)
    load, topic = new_load(tunnel)
    with load:
        load.goes_on()
        for _ in range(ROUNDS * times):
            with mover(telling_kafka, topic) as moves:
                moves.move()
            load.goes_on()
            assert not list(astray(tunnel))
        load.finish(tunnel.door, topic)
    assert leaders_named(telling_kafka) - named_before >= ROUNDS * times
    assert visitors(telling_kafka, before)[TUNNEL] > 0
    assert not strays(telling_kafka, before)


@pytest.mark.parametrize("telling_kafka", ["4.3"], indirect=True)
def test_a_tunnel_that_does_not_know_of_them_leads_clients_astray(
    telling_kafka: KafkaCluster, make_proxy: MakeProxy, tmp_path: Path
) -> None:
    cluster = telling_kafka
    folder = tmp_path / "robbed"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_ROBBED)
    proxy = make_proxy(toml=kafka_toml(cluster), environment={"PYTHONPATH": str(folder)})
    tunnel = KafkaTunnel(proxy, cluster)
    before = seen(cluster)
    load, topic = new_load(tunnel)
    with load, mover(cluster, topic) as moves:
        load.goes_on()

        def some_stray() -> bool:
            moves.move()
            return bool(strays(cluster, before))

        until(some_stray, "a client that goes to a leader by itself")
