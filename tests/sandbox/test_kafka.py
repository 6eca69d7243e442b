"""The space's Kafka: real clients with the add-on's certificate get to every broker, and nobody else does."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.helpers import create_ssl_context
from confluent_kafka.admin import AdminClient

from mtlskit.sandbox.events import (
    BrokerStarted,
    BrokerStopped,
    ClientRefused,
    KafkaClientAdmitted,
    KafkaReady,
    LeaderMoved,
    SessionClosed,
)
from mtlskit.sandbox.kafka_options import KafkaOptions, Topic
from mtlskit.sandbox.space import SpaceOptions
from tests.services.kafka_doors import Door
from tests.services.pki import Pair
from tests.support.space import RunningSpace, running_space, until
from tests.support.space_kafka import (
    config_vars,
    consume,
    door_of,
    handshake,
    is_silent_to,
    kafka_of,
    produce,
    settings,
    told,
)

TOPIC = "orders"
LEADERS = "/sandbox/kafka/leaders"
BROKERS = "/sandbox/kafka/brokers"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A space of this file's own: brokers go down in it."""
    kafka = KafkaOptions(asked=True, topics=(Topic(TOPIC),), prefix="columbia-1.")
    options = SpaceOptions(tmp_path_factory.mktemp("space") / "space", kafka=kafka, keep_data=False)
    with running_space(options) as running:
        yield running


@pytest.fixture
def door(live: RunningSpace, tmp_path: Path) -> Door:
    return door_of(live, tmp_path)


def lead(live: RunningSpace, topic: str, leaders: dict[int, int]) -> None:
    for partition, broker in leaders.items():
        live.call("POST", LEADERS, {"topic": topic, "partition": partition, "broker": broker}, status=200)


def visited(live: RunningSpace, since: int) -> set[int]:
    return {event.broker for event in live.events.of(KafkaClientAdmitted, since=since)}  # type: ignore[attr-defined]  # by `of`


def test_every_broker_is_advertised_by_its_door_and_serves(live: RunningSpace, door: Door) -> None:
    lead(live, TOPIC, {0: 1, 1: 2, 2: 3})
    mark = live.events.mark
    sent = produce(door, TOPIC, 3, rounds=20)
    assert len(sent) == 60
    assert sent <= consume(door, TOPIC, 60)
    assert visited(live, mark) == {1, 2, 3}

    cluster = AdminClient(settings(door)).list_topics(timeout=60)
    doors = {node: f"{broker.host}:{broker.port}" for node, broker in cluster.brokers.items()}
    assert doors == {node: str(address) for node, address in kafka_of(live).addresses.items()}
    assert sorted(door.bootstrap.split(",")) == sorted(doors.values())


def test_a_producer_follows_a_leader_that_moves(live: RunningSpace, door: Door) -> None:
    topic = "moving"
    live.call("POST", "/sandbox/kafka/topics", {"name": topic, "partitions": 1}, status=201)
    mark = live.events.mark
    sent: set[str] = set()
    for broker in (1, 2, 3, 1):
        lead(live, topic, {0: broker})
        sent |= produce(door, topic, 1, rounds=3)
    assert consume(door, topic, 12) == sent
    moves = live.events.of(LeaderMoved, since=mark)
    assert [move.broker for move in moves] == [1, 2, 3, 1]  # type: ignore[attr-defined]  # by `of`


def test_a_broker_goes_down_and_comes_back(live: RunningSpace, door: Door) -> None:
    topic = "resting"
    live.call("POST", "/sandbox/kafka/topics", {"name": topic, "partitions": 1}, status=201)
    lead(live, topic, {0: 2})
    with handshake(live, door, broker=2) as idle:
        live.events.wait_for(KafkaClientAdmitted)
        mark = live.events.mark
        answer = live.call("POST", BROKERS, {"broker": 2, "up": False}, status=200)
        assert [(each["id"], each["up"]) for each in answer["brokers"]] == [(1, True), (2, False), (3, True)]
        live.events.wait_for(BrokerStopped, since=mark)
        with pytest.raises(OSError, match=r"reset|EOF|aborted"):
            handshake(live, door, broker=2)
        lead(live, topic, {0: 3})
        first = produce(door, topic, 1)
        live.call("POST", BROKERS, {"broker": 2, "up": True}, status=200)
        live.events.wait_for(BrokerStarted, since=mark)
        lead(live, topic, {0: 2})
        second = produce(door, topic, 1)
        assert consume(door, topic, 2) == first | second
        idle.close()


def test_errors_can_be_asked_for(live: RunningSpace, door: Door) -> None:
    """A produce request that fails twice for a passing reason, and is sent again."""
    topic = "refused"
    live.call("POST", "/sandbox/kafka/topics", {"name": topic, "partitions": 1}, status=201)
    live.call("POST", "/sandbox/kafka/errors", {"api_key": 0, "errors": [19, 19]}, status=200)
    sent = produce(door, topic, 1)
    assert consume(door, topic, 1) == sent


def test_what_cannot_be_is_refused_by_name(live: RunningSpace) -> None:
    for path, body, reason in (
        ("topics", {"name": TOPIC}, "already exists"),
        ("topics", {"name": "no such name"}, "cannot be the name of a topic"),
        ("topics", {"name": "huge", "partitions": 101}, "partitions"),
        ("topics", {}, "name must be a text"),
        ("leaders", {"topic": TOPIC, "partition": 77, "broker": 1}, "(?i)unknown partition|unknown topic"),
        ("leaders", {"topic": TOPIC, "partition": 0, "broker": 4}, "there is no Kafka broker 4"),
        ("leaders", {"topic": TOPIC, "partition": True, "broker": 1}, "partition must be a whole number"),
        ("brokers", {"broker": 9, "up": True}, "there is no Kafka broker 9"),
        ("brokers", {"broker": 1}, "up must be true or false"),
        ("errors", {"api_key": 0, "errors": []}, "errors must be a list"),
        ("errors", {"api_key": 0, "errors": ["19"]}, "error must be a whole number"),
    ):
        answer = live.call("POST", f"/sandbox/kafka/{path}", body, status=422)
        assert re.search(reason, answer["message"]), answer


def test_the_config_vars_say_where_it_is(live: RunningSpace) -> None:
    values = config_vars(live)
    kafka = kafka_of(live)
    assert values["KAFKA_URL"] == ",".join(f"kafka+ssl://{kafka.addresses[node]}" for node in (1, 2, 3))
    assert values["KAFKA_PREFIX"] == "columbia-1."
    cluster = live.call("GET", f"/data/kafka/v0/clusters/{live.space.kafka_addon}", status=200)
    assert (cluster["topic_prefix"], cluster["shared_cluster"]) == ("columbia-1.", True)
    addon = live.call("GET", f"/addons/{live.space.kafka_addon}", status=200)
    assert sorted(addon["config_vars"]) == sorted(values)
    ready = live.events.of(KafkaReady)[0]
    assert ready.sentence() == f"the Kafka brokers are ready on {', '.join(map(str, kafka.addresses.values()))}"


def test_the_files_say_where_it_is(live: RunningSpace) -> None:
    values, found = config_vars(live), told(live)
    assert found["url"] == values["KAFKA_URL"]
    assert found["prefix"] == values["KAFKA_PREFIX"]
    listed = [{"id": node, "address": str(address)} for node, address in kafka_of(live).addresses.items()]
    assert found["brokers"] == listed
    for key, variable in (("ca", "TRUSTED_CERT"), ("cert", "CLIENT_CERT"), ("key", "CLIENT_CERT_KEY")):
        assert Path(str(found[key])).read_text(encoding="ascii") == values[f"KAFKA_{variable}"]
    environment = live.space.env_file.read_text(encoding="utf-8")
    assert f"export KAFKA_URL={values['KAFKA_URL']}\n" in environment
    assert "export KAFKA_PREFIX=columbia-1.\n" in environment


def until_ended(live: RunningSpace, door: Door | None) -> None:
    """TLS 1.3 has the handshake done for the client before its certificate is looked at."""
    with closing(handshake(live, door)) as client:
        while client.recv(1):
            pass


def refused(live: RunningSpace, door: Door | None, mark: int) -> str:
    """Why a client with this identity is turned away, whose handshake or first read must fail."""
    with pytest.raises(ssl.SSLError):
        until_ended(live, door)
    reason = live.events.wait_for(ClientRefused, since=mark).reason
    return str(reason)


def test_a_client_without_a_certificate_is_refused(live: RunningSpace) -> None:
    assert refused(live, None, live.events.mark) == "Kafka broker 1: it has no client certificate"


def test_a_certificate_that_is_not_the_add_ons_is_refused(live: RunningSpace, door: Door) -> None:
    """The space's CA issues for Postgres, too."""
    mark, client = live.events.mark, live.space.client
    other = Door(door.bootstrap, door.folder, ca=door.ca, client=Pair(client.cert, client.key))
    with closing(handshake(live, other)) as connection:
        assert connection.recv(1) == b""
    reason = live.events.wait_for(ClientRefused, since=mark).reason
    assert reason == f"Kafka broker 1: its certificate (serial {client.serial:x}) is not the Kafka add-on's"


def test_a_certificate_of_yesterday_is_refused(live: RunningSpace, door: Door, tmp_path: Path) -> None:
    topic = "rotated"
    sent = produce(door, topic, 1)
    assert consume(door, topic, 1) == sent
    live.call("POST", f"/data/kafka/v0/clusters/{live.space.kafka_addon}/rotate-credentials", status=200)
    reason = refused(live, door, live.events.mark)
    assert reason == "Kafka broker 1: its certificate was not accepted: certificate revoked"
    newer = door_of(live, tmp_path)
    assert len(produce(newer, topic, 1)) == 1


def test_a_client_that_speaks_plain_is_refused(live: RunningSpace) -> None:
    mark, address = live.events.mark, kafka_of(live).addresses[1]
    with socket.create_connection((address.host, address.port), 60) as client:
        client.sendall(b"\0\0\0\x0c\0\x12\0\0\0\0\0\1\xff\xff")
        while client.recv(4096):
            pass
    reason = live.events.wait_for(ClientRefused, since=mark).reason
    assert reason.startswith("Kafka broker 1: the TLS handshake failed: ")


def test_the_rules_of_the_kafka_add_on_decide_who_is_heard(live: RunningSpace) -> None:
    source = "127.0.0.45"
    assert is_silent_to(live, source)
    live.authorize(f"{source}/32")  # of the Postgres add-on: another door
    assert is_silent_to(live, source, broker=2)
    rules = f"/data/kafka/v0/clusters/{live.space.kafka_addon}/ip-rules"
    made = live.call("POST", rules, {"cidr": f"{source}/32", "description": "of a test"}, status=201)
    until(lambda: bool(live.call("GET", f"{rules}/{made['id']}", status=200)["status"] == "Authorized"))
    address, mark = kafka_of(live).addresses[3], live.events.mark
    with socket.create_connection((address.host, address.port), 60, (source, 0)) as client:
        client.sendall(b"no handshake at all")
        assert client.recv(1) in (b"", b"\x15"), "the end, with or without an alert"
    assert live.events.wait_for(ClientRefused, since=mark).peer.startswith(f"{source}:")


def test_a_verified_name_is_refused_by_the_client(live: RunningSpace, door: Door) -> None:
    """As at Heroku: the brokers' certificate is not for their hosts."""
    assert door.client is not None
    address, context = kafka_of(live).addresses[1], ssl.create_default_context(cafile=door.ca)
    context.load_cert_chain(door.client.cert, door.client.key)
    with (
        socket.create_connection((address.host, address.port), 60) as raw,
        pytest.raises(ssl.SSLCertVerificationError, match=r"IP address mismatch"),
    ):
        context.wrap_socket(raw, server_hostname=address.host)


def test_aiokafka_works(live: RunningSpace, door: Door) -> None:
    topic, values = "with-aiokafka", [b"one", b"two", b"three"]
    assert door.ca is not None
    assert door.client is not None
    context = create_ssl_context(cafile=str(door.ca), certfile=str(door.client.cert), keyfile=str(door.client.key))
    context.check_hostname = False

    async def main() -> list[bytes]:
        security = {"bootstrap_servers": door.bootstrap, "security_protocol": "SSL", "ssl_context": context}
        async with AIOKafkaProducer(**security) as producer:
            for value in values:
                await producer.send_and_wait(topic, value, partition=0)
        consumer = AIOKafkaConsumer(topic, **security, group_id="aiokafka", auto_offset_reset="earliest")
        async with consumer:
            return [(await consumer.getone()).value for _ in values]

    assert asyncio.run(asyncio.wait_for(main(), 60)) == values


def test_closing_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    options = SpaceOptions(folder, kafka=KafkaOptions(brokers=1, asked=True), keep_data=False)
    with running_space(options) as live:
        door, kafka = door_of(live, tmp_path), kafka_of(live)
        with closing(handshake(live, door)) as idle:
            live.events.wait_for(KafkaClientAdmitted)
            plain = kafka._cluster.ports[0]
            pid = kafka._cluster._process.pid
            socket.create_connection(("127.0.0.1", plain), 60).close()
            scope_open = live.events.of(SessionClosed)
            assert scope_open == []
    assert idle.fileno() == -1
    for port in (plain, kafka.addresses[1].port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 60)
    assert not Path(f"/proc/{pid}").exists()
    shutil.rmtree(folder)
