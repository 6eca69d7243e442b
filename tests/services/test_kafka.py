"""The Kafka clusters of the tests are real, speak TLS, refuse whom they should, and tell who came."""

from __future__ import annotations

import json
import os
import select
import socket
import ssl
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.errors import IntegrityError, UnavailableError
from tests.services.kafka_builds import VERSIONS, check_jars, kafka_build
from tests.services.kafka_clients import (
    Client,
    KafkaClientError,
    java_command,
    java_console,
    java_verifiable,
    kcat,
    kcat_command,
)
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_python import aiokafka, confluent, kafka_python
from tests.services.kafka_settings import NODE_IDS, KafkaOptions
from tests.services.kafka_visits import Visit, connections, visits
from tests.services.pki import Pair, Pki
from tests.support.until import until

VALUES = [str(number) for number in range(200)]

_CLIENTS: dict[str, Callable[[KafkaCluster], Client]] = {
    "confluent-kafka": lambda cluster: confluent(),
    "kafka-python": lambda cluster: kafka_python(),
    "aiokafka": lambda cluster: aiokafka(),
    "kcat": lambda cluster: kcat(),
    "java-console": lambda cluster: java_console(cluster.build),
    "java-verifiable": lambda cluster: java_verifiable(cluster.build),
}


def _topic(cluster: KafkaCluster) -> str:
    topic = f"test-{uuid.uuid4().hex[:8]}"
    cluster.create_topic(topic)
    return topic


def _plain_ports(cluster: KafkaCluster) -> list[int]:
    return [port for ports in cluster.ports.values() for port in (ports.brokers, ports.controllers)]


@pytest.mark.parametrize("name", _CLIENTS)
def test_a_client_sends_and_reads(kafka: KafkaCluster, name: str) -> None:
    _send_and_read(kafka, _CLIENTS[name](kafka))


@pytest.mark.parametrize(
    "name", ["confluent-kafka", "java-console"]
)  # of Java another version; the others are the same
def test_a_client_sends_and_reads_with_an_older_kafka(older_kafka: KafkaCluster, name: str) -> None:
    _send_and_read(older_kafka, _CLIENTS[name](older_kafka))


def _send_and_read(cluster: KafkaCluster, client: Client) -> None:
    topic = _topic(cluster)
    client.produce(cluster.door(), topic, VALUES, {})
    assert sorted(map(int, client.consume(cluster.door(), topic, len(VALUES), {}))) == list(range(len(VALUES)))


def test_clients_are_told_of_three_brokers_on_loopback(each_kafka: KafkaCluster) -> None:
    told = json.loads(kcat_command(each_kafka.door(), "-L", "-J").run().stdout)
    found = {broker["id"]: broker["name"] for broker in told["brokers"]}
    assert found == {node_id: f"{host}:{port}" for node_id, (host, port) in each_kafka.brokers.items()}
    assert tuple(sorted(found)) == each_kafka.running == NODE_IDS


def test_a_tool_of_java_names_the_version(each_kafka: KafkaCluster) -> None:
    # Whatever tool is asked, the jars answer: the brokers run from the same.
    done = java_command(each_kafka.build, "org.apache.kafka.tools.TopicCommand", "--version").run()
    assert (done.stdout, done.stderr) == (f"{each_kafka.version}\n", "")


@pytest.mark.parametrize("identity", ["client_stranger", "client_expired", None])
def test_a_client_without_a_good_certificate_is_refused(kafka: KafkaCluster, pki: Pki, identity: str | None) -> None:
    context = ssl.create_default_context(cafile=kafka.ca)
    if identity is not None:
        pair: Pair = getattr(pki, identity)
        context.load_cert_chain(pair.cert, pair.key)
    for host, port in kafka.brokers.values():
        with (
            socket.create_connection((host, port)) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
            pytest.raises(ssl.SSLError, match="ALERT"),
        ):
            tls.recv(1)  # TLS 1.3: the client hears of it only now


def test_a_plain_client_is_refused_and_told(kafka: KafkaCluster) -> None:
    [(node_id, (host, port)), *_] = kafka.brokers.items()
    before = len(kafka.visits(node_id))
    with socket.create_connection((host, port)) as plain:
        source = plain.getsockname()[1]
        plain.sendall(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff")  # ApiVersions v0
        plain.settimeout(30)
        assert not plain.recv(5).startswith(b"\0\0")  # an alert of TLS, or nothing
    assert until(lambda: Visit(source, refused=True) in kafka.visits(node_id)[before:], "the visit in the broker's log")


def test_an_identity_with_an_intermediate_is_taken_and_told(kafka: KafkaCluster, pki: Pki) -> None:
    context = ssl.create_default_context(cafile=kafka.ca)
    context.load_cert_chain(pki.client_chained.cert, pki.client_chained.key)
    for node_id, (host, port) in kafka.brokers.items():
        with (
            socket.create_connection((host, port)) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            assert tls.version() == "TLSv1.3"
            tls.sendall(b"\0\0\0\x0a\0\x12\0\0\0\0\0\x01\xff\xff")
            assert tls.recv(8)[4:] == b"\0\0\0\x01"  # its correlation id comes back
            source = tls.getsockname()[1]
            assert [(one.pid, one.source) for one in connections([port]) if one.source == source] == [
                (os.getpid(), source)
            ]
        assert Visit(source, identity="CN=client") in kafka.visits(node_id)


def test_only_brokers_come_to_the_plain_ports(kafka: KafkaCluster) -> None:
    found = connections(_plain_ports(kafka))
    assert {one.pid for one in found} == {kafka.pid_of(node_id) for node_id in NODE_IDS}
    with socket.create_connection(("127.0.0.1", kafka.ports[NODE_IDS[0]].brokers)):
        assert os.getpid() in {one.pid for one in connections(_plain_ports(kafka))}


def test_visits_are_told_by_port_and_the_latest_of_a_source() -> None:
    accepted = "DEBUG Acceptor - Accepted connection from /127.0.0.1:{} on /127.0.0.1:{} and assigned it to processor 0"
    shaken = (
        "DEBUG SslTransportLayer - [SslTransportLayer channelId=127.0.0.1:{}-127.0.0.1:{}-0-3 key=k] SSL handshake "
        "completed successfully with peerHost '127.0.0.1' peerPort 9 peerPrincipal 'CN=ann' protocol 'TLSv1.3'"
    )
    refused = "INFO Selector - Failed authentication with /127.0.0.1 (channelId=127.0.0.1:{}-127.0.0.1:{}-0-4) (SSL)"
    log = [accepted.format(source, port) for source, port in ((1, 21_001), (1, 21_002), (1, 21_001), (2, 21_001))]
    log += [line.format(21_002, 1) for line in (shaken, refused)]
    log += [shaken.format(21_001, 1), refused.format(21_001, 2)]
    assert visits("\n".join(log), 21_001) == (Visit(1), Visit(1, identity="CN=ann"), Visit(2, refused=True))


def test_a_handshake_that_is_told_before_its_visit_is_one_visit() -> None:
    """Two threads of a broker write the log, each when it comes to it."""
    log = [
        "[…] Failed authentication with /127.0.0.1 (channelId=127.0.0.1:21001-127.0.0.1:7-0-1) (SSL handshake failed)",
        "[…] Accepted connection from /127.0.0.1:7 on /127.0.0.1:21001 and assigned it to processor 0",
        "[…] Accepted connection from /127.0.0.1:7 on /127.0.0.1:21001 and assigned it to processor 1",
    ]
    assert visits("\n".join(log), 21_001) == (Visit(7, refused=True), Visit(7))


def test_another_takes_over_from_a_stopped_broker(kafka: KafkaCluster) -> None:
    topic, stopped = _topic(kafka), NODE_IDS[1]
    addresses = kafka.brokers
    client = confluent()
    client.produce(kafka.door(), topic, VALUES[:100], {"acks": "all"})
    kafka.stop_broker(stopped)
    try:
        assert kafka.running == (NODE_IDS[0], NODE_IDS[2])
        assert connections([kafka.ports[stopped].clients]) == ()
        client.produce(kafka.door(), topic, VALUES[100:], {"acks": "all"})
    finally:
        kafka.start_broker(stopped)
    assert kafka.brokers == addresses
    assert sorted(map(int, client.consume(kafka.door(), topic, 200, {}))) == list(range(200))
    assert kafka.log_of(stopped).count("Kafka Server started") == 2


def test_a_killed_broker_starts_again_with_what_it_had(make_kafka: Callable[..., KafkaCluster]) -> None:
    cluster = make_kafka(KafkaOptions(node_ids=(7,), settings={"broker.session.timeout.ms": "1500"}))
    cluster.create_topic("kept", partitions=1, replicas=1)
    confluent().produce(cluster.door(), "kept", VALUES, {})
    pid, folder = cluster.pid_of(7), cluster.folder
    cluster.kill_broker(7)
    assert cluster.running == ()
    with pytest.raises(KafkaClientError, match="not sent"):
        confluent().produce(cluster.door(), "kept", ["lost"], {"message.timeout.ms": "500"})
    cluster.start_broker(7)
    assert cluster.pid_of(7) != pid
    assert confluent().consume(cluster.door(), "kept", len(VALUES), {}) == VALUES
    cluster.close()
    assert not folder.exists()


_OWNER = """
import sys
from pathlib import Path
from tests.services.kafka_builds import NEWEST, kafka_build
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_settings import KafkaOptions
from tests.services.pki import make_pki

cluster = KafkaCluster(kafka_build(NEWEST), make_pki(Path(sys.argv[1])), KafkaOptions(node_ids=(7,)))
cluster.start()
print(cluster.pid_of(7), cluster.guard_pid_of(7), cluster.folder, flush=True)
sys.stdin.read()
"""


def test_a_cluster_does_not_outlive_a_killed_owner(services: None, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _OWNER, tmp_path],
        cwd=pytestconfig.rootpath,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        broker, guard, folder = owner.stdout.readline().split()
        ends = [os.pidfd_open(int(broker)), os.pidfd_open(int(guard))]
        owner.kill()
    try:
        for end in ends:
            assert select.select([end], [], [], 30) == ([end], [], []), "still running"
    finally:
        for end in ends:
            os.close(end)
    assert not Path(folder).exists()


def test_other_jars_than_the_pinned_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jar").write_bytes(b"a")
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    check_jars(tmp_path, f"{digest}  a.jar\n")
    with pytest.raises(IntegrityError, match=r"a\.jar: expected 0000, came as ca97"):
        check_jars(tmp_path, "0000  a.jar\n")
    with pytest.raises(IntegrityError, match=r"b\.jar: expected 1111, came as none"):
        check_jars(tmp_path, f"{digest}  a.jar\n1111  b.jar\n")
    (tmp_path / "c.jar").write_bytes(b"c")
    with pytest.raises(IntegrityError, match=r"c\.jar: expected none"):
        check_jars(tmp_path, f"{digest}  a.jar\n")


def test_a_line_that_is_not_pinned_is_told() -> None:
    assert all(version.startswith(f"{line}.") for line, version in VERSIONS.items())
    with pytest.raises(UnavailableError, match=r"choose one of 3\.9, 4\.3"):
        kafka_build("0.8")
