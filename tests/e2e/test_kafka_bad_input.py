"""What is not as it should be: who speaks to the port, what the port leads to, certificates, logins, names, ports."""

from __future__ import annotations

import socket
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient

from tests.services.kafka_builds import NEWEST, kafka_build
from tests.services.kafka_clients import java_command
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.services.kafka_python import confluent, create_topic, kafka_python
from tests.services.kafka_settings import KafkaOptions
from tests.services.pki import Pki
from tests.support.bad_servers import Behaviour, says, says_nothing, serving
from tests.support.kafka_tunnel import KafkaTunnel, MakeKafkaTunnel, kafka_toml
from tests.support.proxy_process import MakeProxy, ProxyProcess

# --- who speaks to the port ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tunnel(kafka: KafkaCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaTunnel]:
    """One that all who speak something else come to."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "mtlskit.toml").write_text(kafka_toml(kafka))
    with ProxyProcess([], folder=folder) as proxy:
        yield KafkaTunnel(proxy, kafka)


def refused(tunnel: KafkaTunnel, since: int, code: str) -> str:
    told = tunnel.proxy.wait_for("client_refused", since=since, code=code)
    return f"{told['reason']}; {told['hint']}"


def test_a_tls_client_of_java(tunnel: KafkaTunnel) -> None:
    mark = tunnel.proxy.mark
    limits = {"default.api.timeout.ms": "4000", "request.timeout.ms": "3000"}
    settings = tunnel.door.java_file({"security.protocol": "SSL", **limits})
    arguments = ("--bootstrap-server", tunnel.bootstrap, "--command-config", str(settings), "--list")
    done = java_command(tunnel.cluster.build, "org.apache.kafka.tools.TopicCommand", *arguments).run(timeout=90)
    assert done.returncode
    assert "speaks TLS to a port that is plain" in refused(tunnel, mark, "MTLS-KFK-001")


def test_a_tls_client_of_librdkafka(tunnel: KafkaTunnel) -> None:
    mark = tunnel.proxy.mark
    settings = {"bootstrap.servers": tunnel.bootstrap, "security.protocol": "ssl", "log_level": "0"}
    with pytest.raises(confluent_kafka.KafkaException):
        AdminClient({**settings}).list_topics(timeout=3)
    said = refused(tunnel, mark, "MTLS-KFK-001")
    assert "speaks TLS to a port that is plain (the bytes 16 03 01" in said
    assert "security.protocol to PLAINTEXT" in said


def test_a_web_client(tunnel: KafkaTunnel) -> None:
    mark = tunnel.proxy.mark
    with pytest.raises(OSError, match=r"closed|reset"):
        urllib.request.urlopen(f"http://{tunnel.bootstrap}/", timeout=10)
    said = refused(tunnel, mark, "MTLS-KFK-002")
    assert "(the bytes 47 45 54 20, 'GET ')" in said


@pytest.mark.parametrize("sslmode", ["prefer", "disable"])
def test_psql(tunnel: KafkaTunnel, sslmode: str) -> None:
    mark = tunnel.proxy.mark
    host, _, port = tunnel.bootstrap.rpartition(":")
    command = ["psql", f"host={host} port={port} user=ann dbname=sales sslmode={sslmode} gssencmode=disable"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert done.returncode
    said = refused(tunnel, mark, "MTLS-KFK-003")
    assert "speaks PostgreSQL to a Kafka port" in said
    assert "a tunnel of kind postgres" in said


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "53 53 48 2d, 'SSH-'"),
        (b"\x00" * 64, "00 00 00 00"),
        (b"\xff" * 64, "ff ff ff ff"),
        (b"\x00\x00\x00\x0c\xff\xff\x00\x00\x00\x00\x00\x01\xff\xff\xff\xff", "api key -1"),
    ],
)
def test_bytes_that_are_nothing(tunnel: KafkaTunnel, said: bytes, seen: str) -> None:
    mark = tunnel.proxy.mark
    with socket.create_connection(tunnel.proxy.address, timeout=20) as client:
        client.sendall(said)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert seen in refused(tunnel, mark, "MTLS-KFK-003")


def test_half_a_frame_holds_nobody_up(tunnel: KafkaTunnel) -> None:
    """One that promises 1 GiB and sends nothing more, in many connections: the others are served."""
    crowd = [socket.create_connection(tunnel.proxy.address, timeout=20) for _ in range(30)]
    try:
        for client in crowd:
            client.sendall(b"\x40\x00\x00\x00\x00\x00\x00\x0d")
        assert len(AdminClient({**tunnel.door.librdkafka()}).list_topics(timeout=30).brokers) == 3
    finally:
        for client in crowd:
            client.close()


# --- what the port leads to ----------------------------------------------------------------------------------------


def unseen(proxy: ProxyProcess, code: str) -> str:
    told = proxy.wait_for("cluster_unseen", code=code)
    return f"{told['reason']}; {told['hint']}"


def test_the_upstream_is_a_plain_port(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    plain = kafka.ports[1001].brokers
    tunnel = make_kafka_tunnel(kafka, upstream=f'"127.0.0.1:{plain}"')
    said = unseen(tunnel.proxy, "MTLS-NET-006")
    assert f"127.0.0.1:{plain} closed the connection during the TLS handshake" in said
    assert "a port of Kafka's that is plain does so too" in said


@pytest.mark.parametrize(
    ("behave", "code", "words"),
    [
        (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "MTLS-TLS-014", "for Kafka it is that of a listener with TLS"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "MTLS-TLS-014", "for Kafka it is that of a listener with TLS"),
        (says_nothing, "MTLS-TLS-015", "did not finish the TLS handshake within 2 s"),
    ],
)
def test_the_upstream_is_something_else(
    kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel, behave: Behaviour, code: str, words: str
) -> None:
    with serving(behave) as (host, port):
        tunnel = make_kafka_tunnel(kafka, upstream=f'"{host}:{port}"', timeouts="{ dial = 2 }")
        assert words in unseen(tunnel.proxy, code)


def checks_revocation(pki: Pki) -> Behaviour:
    """A server that knows which certificates were revoked. Kafka's knows it only with settings of Java's own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(pki.client_ca)
    context.load_verify_locations(pki.client_crl)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF

    def behave(connection: socket.socket) -> None:
        with connection.dup() as raw, suppress(ssl.SSLError):
            raw.settimeout(20)
            try:
                context.wrap_socket(connection, server_side=True).close()
            finally:
                says_nothing(raw)  # to close with unread bytes would reset, and the alert be lost

    return behave


def test_a_certificate_that_was_revoked(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    pair = kafka.pki.client_revoked
    with serving(checks_revocation(kafka.pki)) as (host, port):
        settings = {"upstream": f'"{host}:{port}"', "cert": f'"{pair.cert}"', "key": f'"{pair.key}"'}
        tunnel = make_kafka_tunnel(kafka, **settings)
        assert "revoked" in unseen(tunnel.proxy, "MTLS-TLS-012")
        with socket.create_connection(tunnel.proxy.address, timeout=20) as client, suppress(ConnectionResetError):
            assert client.recv(1) == b""
        assert tunnel.proxy.wait_for("broker_failed", broker="bootstrap")["code"] == "MTLS-TLS-012"
        assert not tunnel.proxy.events("session_broken", "session_closed")


def test_brokers_that_refuse_our_certificate(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    """TLS 1.3: the handshake is over for us when they do. A client that tries on and on is told of twice a minute."""
    pair, code = kafka.pki.client_stranger, "MTLS-TLS-008"
    tunnel = make_kafka_tunnel(kafka, cert=f'"{pair.cert}"', key=f'"{pair.key}"')
    proxy = tunnel.proxy
    assert proxy.wait_for("cluster_unseen")["code"] == code
    settings = tunnel.door.librdkafka() | {"reconnect.backoff.ms": "10", "reconnect.backoff.max.ms": "50"}
    with pytest.raises(confluent_kafka.KafkaException):
        AdminClient({**settings, "log_level": "0"}).list_topics(timeout=3)
    failed = proxy.wait_for("broker_failed", broker="bootstrap", code=code)
    assert failed["hint"]
    # It came a dozen times at least; a reset in place of the alert has another code.
    assert len(proxy.events("session_opened")) > 5
    assert len(proxy.events("broker_failed", "session_broken", "session_failed")) <= 2


# --- a cluster with logins, rights, and certificates for another name ----------------------------------------------

_LOGINS = "".join(f' user_{name}="{name}-secret"' for name in ("ann", "bob"))
_RIGHTS = {
    "listener.security.protocol.map": "CLIENTS:SASL_SSL,BROKERS:PLAINTEXT,CONTROLLERS:PLAINTEXT",
    "listener.name.clients.sasl.enabled.mechanisms": "PLAIN",
    "listener.name.clients.plain.sasl.jaas.config": (
        f"org.apache.kafka.common.security.plain.PlainLoginModule required{_LOGINS};"
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS;User:ann",  # the brokers themselves are nobody, and plain
}


@pytest.fixture(scope="module")
def guarded(services: None, pki: Pki) -> Iterator[KafkaCluster]:
    """One broker: SASL behind mutual TLS; ann may everything and bob nothing."""
    options = KafkaOptions(node_ids=(1001,), certificate=pki.server_other_name, settings=_RIGHTS)
    with KafkaCluster(kafka_build(NEWEST), pki, options) as cluster:
        yield cluster


@pytest.fixture
def guarded_tunnel(guarded: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> KafkaTunnel:
    return make_kafka_tunnel(guarded, verify='"ca"')


def login(name: str) -> dict[str, str]:
    """For librdkafka: plain, for the tunnel does the TLS."""
    return {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "PLAIN",
        "sasl.username": name,
        "sasl.password": f"{name}-secret",
    }


def new_topic(cluster: KafkaCluster, topic: str) -> str:
    inside = Door(f"127.0.0.1:{cluster.ports[1001].brokers}", cluster.folder)
    with suppress(confluent_kafka.KafkaException):  # it is there from the test before
        create_topic(inside, topic, [[1001]])
    return topic


def test_a_certificate_for_another_name(guarded: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    said = unseen(make_kafka_tunnel(guarded).proxy, "MTLS-TLS-005")
    assert "its certificate is for other.example" in said
    assert "--verify name:other.example" in said
    assert "--verify ca" in said


def test_the_chain_alone_is_checked_and_that_is_told(guarded_tunnel: KafkaTunnel) -> None:
    told = guarded_tunnel.proxy.events("tunnel_warned")
    assert ["the chain alone is checked" in event["warning"] for event in told] == [True]


def test_clients_log_in_through_the_tunnel(guarded: KafkaCluster, guarded_tunnel: KafkaTunnel) -> None:
    proxy, door = guarded_tunnel.proxy, guarded_tunnel.door
    assert "SASL" in proxy.wait_for("cluster_unseen")["hint"]
    assert not proxy.events("broker_listening")
    topic = new_topic(guarded, "bern-4711.orders")
    confluent().produce(door, topic, ["1", "2", "3"], login("ann"))
    # Nobody could be asked before; now the listener is there because a client has asked.
    assert proxy.wait_for("broker_listening", broker=1001)
    found = confluent().consume(door, topic, 3, login("ann"))
    assert found[-3:] == ["1", "2", "3"]
    named = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    named |= {"sasl_plain_username": "ann", "sasl_plain_password": "ann-secret"}
    kafka_python().produce(door, topic, ["4"], named)
    assert len(proxy.events("cluster_unseen")) == 1


def test_java_logs_in_through_the_tunnel(guarded: KafkaCluster, guarded_tunnel: KafkaTunnel) -> None:
    topic = new_topic(guarded, "bern-4711.orders")
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    settings = guarded_tunnel.door.java_file(
        {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": f'{module} required username="ann" password="ann-secret";',
        }
    )
    arguments = ("--bootstrap-server", guarded_tunnel.bootstrap, "--command-config", str(settings), "--list")
    done = java_command(guarded.build, "org.apache.kafka.tools.TopicCommand", *arguments).run(timeout=90)
    assert topic in done.stdout.split(), done.stderr


def test_a_client_without_rights_is_told_of(guarded: KafkaCluster, guarded_tunnel: KafkaTunnel) -> None:
    topic = new_topic(guarded, "bern-4711.orders")
    settings = guarded_tunnel.door.librdkafka() | login("bob") | {"group.id": "billing", "log_level": "0"}
    consumer = confluent_kafka.Consumer({**settings})
    try:
        for _ in range(3):
            assert consumer.list_topics(topic, 20).topics[topic].error is not None
        consumer.subscribe([topic])
        consumer.poll(0.1)
        told = {kind: guarded_tunnel.proxy.wait_for("cluster_denied", kind=kind) for kind in ("topic", "group")}
    finally:
        consumer.close()
    assert (told["topic"]["resource"], told["topic"]["error"]) == (topic, 29)
    assert (told["group"]["resource"], told["group"]["error"]) == ("billing", 30)
    assert len(guarded_tunnel.proxy.events("cluster_denied")) == 2


def test_a_login_of_kafka_0_10(guarded_tunnel: KafkaTunnel) -> None:
    """SaslHandshake version 0, whose tokens come without a frame."""
    mark = guarded_tunnel.proxy.mark
    with socket.create_connection(guarded_tunnel.proxy.address, timeout=20) as client:
        request = b"\x00\x11\x00\x00\x00\x00\x00\x01\x00\x01x\x00\x05PLAIN"
        client.sendall(len(request).to_bytes(4) + request)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""
    assert "SaslHandshake version 1" in refused(guarded_tunnel, mark, "MTLS-KFK-006")


# --- ports ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def test_a_port_of_the_range_is_in_use(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tunnel = make_kafka_tunnel(kafka, brokers=f"{{ 1002 = {port} }}")
        told = tunnel.proxy.wait_for("broker_not_listening", broker=1002, code="MTLS-LSN-001")
        assert "brokers = { 1002 = PORT } in [tunnel.orders]" in told["hint"]
        assert tunnel.listener_of(1001)
        assert tunnel.listener_of(1003)


def test_a_range_beyond_the_last_port(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    tunnel = make_kafka_tunnel(kafka, first_broker_port="64533")
    told = tunnel.proxy.wait_for("broker_not_listening", broker=1003)
    assert (told["code"], "65536, above 65535" in told["reason"]) == ("MTLS-KFK-011", True)


def test_two_tunnels_whose_ranges_overlap(kafka: KafkaCluster, make_proxy: MakeProxy) -> None:
    first = free_port() - 1001
    one = kafka_toml(kafka, first_broker_port=str(first))
    proxy = make_proxy(toml=one + one.replace("[tunnel.orders]", "[tunnel.returns]"))
    told = proxy.wait_for("broker_not_listening", broker=1001)
    assert (told["code"], "brokers = { 1001 = PORT }" in told["hint"]) == ("MTLS-LSN-001", True)
    assert {told["tunnel"], proxy.wait_for("broker_listening", broker=1001)["tunnel"]} == {"orders", "returns"}


def test_the_ports_are_the_same_after_a_crash(kafka: KafkaCluster, make_proxy: MakeProxy) -> None:
    ports = {node_id: free_port() for node_id in kafka.brokers}
    toml = kafka_toml(kafka, brokers="{ " + ", ".join(f"{node} = {port}" for node, port in ports.items()) + " }")
    for _ in range(2):
        tunnel = KafkaTunnel(make_proxy(toml=toml), kafka)
        assert {node_id: tunnel.listener_of(node_id)[1] for node_id in ports} == ports
        with socket.create_connection(("127.0.0.1", ports[1001]), timeout=20):
            tunnel.proxy.close()  # SIGKILL


def test_a_listener_on_localhost_and_a_name_to_tell(kafka: KafkaCluster, make_kafka_tunnel: MakeKafkaTunnel) -> None:
    tunnel = make_kafka_tunnel(kafka, listen='"localhost:0"', advertised='"localhost"')
    listed = AdminClient({**tunnel.door.librdkafka()}).list_topics(timeout=30).brokers
    assert {broker.host for broker in listed.values()} == {"localhost"}
    addresses = tunnel.proxy.wait_for("broker_listening", broker=1001)["addresses"]
    assert {address.rpartition(":")[0] for address in addresses} == {"127.0.0.1", "[::1]"}
