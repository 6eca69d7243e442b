"""Faults of Kafka clusters: real brokers, before most of them a door that tells of another address than theirs.

Where no real broker does it, a listener behind the same certificates answers as the fault demands.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic  # `admin` has it too, but not for mypy

from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_file, from_flags
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.services.kafka_settings import KafkaOptions
from tests.services.pki import Pair, Pki
from tests.support.kafka_liar import (
    HANG_UP,
    METADATA,
    Answer,
    Body,
    Named,
    Papers,
    answer_to,
    answers,
    closed_port,
    listener,
    lying_door,
    metadata,
    says,
    versions,
)

if TYPE_CHECKING:
    from tests.services.kafka_cluster import KafkaCluster

__all__ = ["DENIED", "FAULTS", "Build", "gathered", "means"]

Build = Callable[[Stage], AbstractContextManager[Gathered]]

LIED = 1002
"""The broker whose address is lied about."""

_STEP = 2.0
_DEADLINE = 20.0
_PATIENCE = 60.0  # seconds; a safety net
_HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"

DENIED: Mapping[str, str] = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS;User:CN=certuser",
}
"""A cluster in which CN=client may do nothing; brokers are anonymous to each other."""


def means(**more: Any) -> Means:
    """Quick enough for a test, patient enough for a machine that is busy."""
    return Means(step=_STEP, deadline=_DEADLINE, **more)


def gathered(pki: Pki, upstream: str | tuple[str, ...], *, client: Pair | None = None, **more: Any) -> Gathered:
    """A tunnel to these brokers, by flags; `verify` and `write_test` may be given."""
    write_test = more.pop("write_test", None)
    client = client or pki.client
    endpoints = (upstream,) if isinstance(upstream, str) else upstream
    flags = {"kind": "kafka", "upstream": endpoints, "cert": str(client.cert), "key": str(client.key)}
    return from_flags(flags | {"ca": str(pki.server_ca)} | more, means(write_test=write_test))


@contextmanager
def _behind(stage: Stage, lies: Mapping[int, Named]) -> Iterator[Gathered]:
    kafka: KafkaCluster = stage.fixture("kafka")
    with lying_door(kafka, lies) as own:
        yield gathered(kafka.pki, f"127.0.0.1:{own}")


@contextmanager
def _elsewhere(stage: Stage, host: str, port: int | None = None) -> Iterator[Gathered]:
    """One broker is said to be at a host, on a port that refuses."""
    with closed_port() as closed, _behind(stage, {LIED: (host, closed if port is None else port)}) as found:
        yield found


@contextmanager
def _localhost(stage: Stage) -> Iterator[Gathered]:
    """The cluster is reached by the name of this host, which for all that is known is another one."""
    kafka: KafkaCluster = stage.fixture("kafka")
    with closed_port() as closed, lying_door(kafka, {LIED: ("localhost", closed)}, host="0.0.0.0") as own:
        yield gathered(kafka.pki, f"{socket.gethostname()}:{own}", verify="ca")


def _at(answer: Answer, papers: Callable[[Pki], Papers] | None = None) -> Build:
    """One broker is said to be where something else answers."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        pki: Pki = stage.fixture("pki")
        with (
            listener(answer, papers=papers(pki) if papers else None) as port,
            _behind(stage, {LIED: ("127.0.0.1", port)}) as found,
        ):
            yield found

    return build


@contextmanager
def _two_clusters(stage: Stage) -> Iterator[Gathered]:
    kafka: KafkaCluster = stage.fixture("kafka")
    older: KafkaCluster = stage.fixture("older_kafka")
    endpoints = [f"{host}:{port}" for host, port in (kafka.brokers[1001], older.brokers[1001])]
    yield gathered(kafka.pki, tuple(endpoints))


@contextmanager
def _of_another_cluster(stage: Stage) -> Iterator[Gathered]:
    older: KafkaCluster = stage.fixture("older_kafka")
    with _behind(stage, {LIED: older.brokers[LIED]}) as found:
        yield found


@contextmanager
def _shared_address(stage: Stage) -> Iterator[Gathered]:
    kafka: KafkaCluster = stage.fixture("kafka")
    address = kafka.brokers[1001]
    with _behind(stage, dict.fromkeys(kafka.brokers, address)) as found:
        yield found


@contextmanager
def _controllers(stage: Stage) -> Iterator[Gathered]:
    kafka: KafkaCluster = stage.fixture("kafka")
    with lying_door(kafka, {}, port=kafka.ports[1001].controllers) as own:
        yield gathered(kafka.pki, f"127.0.0.1:{own}")


def _fake(*bodies: Body, own: Callable[[Callable[[], Any]], Body] | None = None) -> Build:
    """A broker that answers so; `own` makes an answer that names the broker itself."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        pki: Pki = stage.fixture("pki")
        ports: list[int] = []
        made = (own(lambda: [(1, "127.0.0.1", ports[0])]),) if own else ()
        with listener(answers(*bodies, *made), papers=Papers(pki.server, pki.client_ca)) as port:
            ports.append(port)
            yield gathered(pki, f"127.0.0.1:{port}")

    return build


def _writing(topic: str) -> Build:
    """A write test on the shared cluster."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        kafka: KafkaCluster = stage.fixture("kafka")
        yield gathered(kafka.pki, tuple(kafka.bootstrap.split(",")), write_test=topic)

    return build


@contextmanager
def _narrow(stage: Stage) -> Iterator[Gathered]:
    """A topic that takes records of 64 bytes; ours has more than a hundred."""
    kafka: KafkaCluster = stage.fixture("kafka")
    topic = NewTopic("narrow", 1, replication_factor=3, config={"max.message.bytes": "64"})
    admin = AdminClient({**kafka.door().librdkafka()})  # if it goes, so does what it was asked for
    [made] = admin.create_topics([topic]).values()
    made.result(_PATIENCE)
    kafka.create_topic("narrow-and-after")  # who knows this one knows that one, too
    yield gathered(kafka.pki, tuple(kafka.bootstrap.split(",")), write_test="narrow")


@contextmanager
def _denied(stage: Stage) -> Iterator[Gathered]:
    make: Callable[..., KafkaCluster] = stage.fixture("make_kafka")
    kafka = make(KafkaOptions(node_ids=(1001,), settings=DENIED))
    yield gathered(kafka.pki, tuple(kafka.bootstrap.split(",")), write_test="orders")


@contextmanager
def _leaderless(stage: Stage) -> Iterator[Gathered]:
    make: Callable[..., KafkaCluster] = stage.fixture("make_kafka")
    kafka = make(KafkaOptions(settings={"min.insync.replicas": "1"}))
    kafka.create_topic("orders", partitions=3, replicas=1)
    kafka.stop_broker(1003)
    host, port = kafka.brokers[1001]
    yield gathered(kafka.pki, f"{host}:{port}")


def _of_file(lines: str, lies: Callable[[int], Mapping[int, Named]] = lambda _: {}) -> Build:
    """A tunnel of a file, with these lines more; `lies` are made of the port that it listens on."""

    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        kafka: KafkaCluster = stage.fixture("kafka")
        with ExitStack() as stack:
            port = stack.enter_context(closed_port())
            own = stack.enter_context(lying_door(kafka, lies(port)))
            yield from_file(_file(stage.folder, kafka, own, f"127.0.0.1:{port}", lines), (), means())

    return build


def _file(folder: Path, kafka: KafkaCluster, door: int, listen: str, lines: str) -> Path:
    file = folder / "mtlskit.toml"
    file.write_text(
        "[identity.events]\n"
        f'cert = "{kafka.client.cert}"\nkey = "{kafka.client.key}"\nca = "{kafka.ca}"\n'
        "[tunnel.events]\n"
        f'kind = "kafka"\nlisten = "{listen}"\nupstream = "127.0.0.1:{door}"\nidentity = "events"\n{lines}\n',
        encoding="utf-8",
    )
    return file


def _showing(pair: str, client_ca: str = "client_ca") -> Callable[[Pki], Papers]:
    return lambda pki: Papers(getattr(pki, pair), getattr(pki, client_ca))


_TOO_LARGE = struct.pack("!i", 64 * 1024 * 1024)
_NO_PROXY = frozenset({Code.LOCAL_NOT_RUNNING})
"""Of a file whose proxy was not started, which is true as well."""


def _too_large(client: socket.socket) -> None:
    """Knows ApiVersions; to Metadata it promises 64 MiB."""

    def grow(key: int, request: bytes) -> bytes | None:
        if key == METADATA:
            client.sendall(_TOO_LARGE + request[4:8])
        return None

    answers(versions, grow)(client)


def _behind_certificates(answer: Answer) -> Build:
    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        pki: Pki = stage.fixture("pki")
        with listener(answer, papers=Papers(pki.server, pki.client_ca)) as port:
            yield gathered(pki, f"127.0.0.1:{port}")

    return build


FAULTS: tuple[Fault, ...] = (
    Fault(
        "kafka-broker-refuses",
        "One broker of three refuses connections at the address that the cluster names",
        Code.KAFKA_BROKER_UNREACHABLE,
        partial(_elsewhere, host="127.0.0.1"),
        seen="broker 1002 cannot be used",
    ),
    Fault(
        "kafka-broker-silent",
        "One broker takes connections and says nothing",
        Code.KAFKA_BROKER_UNREACHABLE,
        _at(says(b"")),
        seen="broker 1002 cannot be used",
    ),
    Fault(
        "kafka-broker-stuck",
        "One broker greets and answers nothing that it is asked then",
        Code.KAFKA_BROKER_UNREACHABLE,
        _at(answers(versions), _showing("server")),
        seen="did not answer what it was asked within 2 s",
    ),
    Fault(
        "kafka-broker-localhost",
        "One broker of a cluster on another host advertises localhost",
        Code.KAFKA_ODD_ADDRESS,
        _localhost,
        seen="advertises localhost:",
    ),
    Fault(
        "kafka-broker-wildcard",
        "One broker advertises 0.0.0.0",
        Code.KAFKA_ODD_ADDRESS,
        partial(_elsewhere, host="0.0.0.0"),
        seen="advertises 0.0.0.0:",
    ),
    Fault(
        "kafka-broker-name",
        "One broker advertises a name that only its own network knows",
        Code.KAFKA_ODD_ADDRESS,
        partial(_elsewhere, host="kafka-2.cluster.invalid", port=9093),
        seen="advertises kafka-2.cluster.invalid:9093",
    ),
    Fault(
        "kafka-broker-port-0",
        "One broker advertises port 0",
        Code.KAFKA_ODD_ADDRESS,
        partial(_elsewhere, host="127.0.0.1", port=0),
        seen="advertises 127.0.0.1:0: that is no address",
    ),
    Fault(
        "kafka-broker-web",
        "One broker advertises the port of a web server",
        Code.KAFKA_BROKER_UNREACHABLE,
        _at(says(_HTTP)),
        seen="broker 1002 cannot be used",
    ),
    Fault(
        "kafka-broker-other-ca",
        "One broker presents a certificate of another CA",
        Code.KAFKA_BROKER_UNREACHABLE,
        _at(answers(versions), _showing("server_stranger")),
        seen="a chain that we do not trust",
    ),
    Fault(
        "kafka-broker-other-name",
        "One broker presents a certificate for another name than the one it advertises",
        Code.KAFKA_BROKER_UNREACHABLE,
        _at(answers(versions), _showing("server_other_name")),
        seen="a certificate for another name",
    ),
    Fault(
        "kafka-broker-expired",
        "The certificate of one broker has expired",
        Code.KAFKA_BROKER_UNREACHABLE,
        _at(answers(versions), _showing("server_expired")),
        seen="outside its dates",
    ),
    Fault(
        "kafka-broker-refuses-us",
        "One broker takes the certificates of another CA than the others do",
        Code.KAFKA_BROKER_UNREACHABLE,
        _at(answers(versions), _showing("server", "stranger_ca")),
        seen="broker 1002 cannot be used",
    ),
    Fault(
        "kafka-brokers-share-address",
        "All brokers advertise one address, that of a load balancer",
        Code.KAFKA_ODD_ADDRESS,
        _shared_address,
        seen="3 brokers name that address",
    ),
    Fault(
        "kafka-broker-of-another-cluster",
        "The address of one broker leads to a broker of another cluster",
        Code.KAFKA_OTHER_CLUSTER,
        _of_another_cluster,
        seen="broker 1002 is said to be at",
    ),
    Fault(
        "kafka-two-clusters",
        "The tunnel names brokers of two clusters",
        Code.KAFKA_OTHER_CLUSTER,
        _two_clusters,
        seen="lead to 2 clusters",
    ),
    Fault(
        "kafka-controllers",
        "The tunnel names the port of a KRaft controller",
        Code.KAFKA_CONTROLLERS,
        _controllers,
        seen="a listener for controllers",
    ),
    Fault(
        "kafka-rubbish",
        "The broker's list of brokers cannot be read",
        Code.KAFKA_SERVER_RUBBISH,
        _fake(versions, answer_to(METADATA, b"\x7f" * 40)),
        seen="the broker's Metadata response",
    ),
    Fault(
        "kafka-too-large",
        "The broker promises an answer of 64 MiB, however little it is asked for",
        Code.KAFKA_RESPONSE_TOO_LARGE,
        _behind_certificates(_too_large),
        seen="above the limit",
    ),
    Fault(
        "kafka-too-late",
        "The broker greets, and leaves the question for brokers without an answer",
        Code.TCP_TIMEOUT,
        _fake(versions),
        seen="did not answer a Metadata request",
    ),
    Fault(
        "kafka-hangs-up",
        "The broker hangs up at the question for brokers, and wants no login",
        Code.UPSTREAM_CLOSED,
        _fake(versions, answer_to(METADATA, HANG_UP), answer_to(17, struct.pack("!hi", 34, 0))),
        seen="closed the connection after a Metadata request",
    ),
    Fault(
        "kafka-no-brokers",
        "The cluster names no broker at all",
        Code.KAFKA_BROKER_UNREACHABLE,
        _fake(versions, metadata(list)),
        seen="names no broker",
    ),
    Fault(
        "kafka-no-controller",
        "The cluster has no controller",
        Code.KAFKA_NO_LEADER,
        _fake(versions, answer_to(16, struct.pack("!hi", 0, 0)), own=partial(metadata, controller=-1)),
        verdict=Verdict.WARN,
        seen="has no controller now",
    ),
    Fault(
        "kafka-no-leader",
        "The only broker that holds a partition is down",
        Code.KAFKA_NO_LEADER,
        _leaderless,
        seen="1 of 3 partitions have no leader: orders-2",
    ),
    Fault(
        "kafka-write-unknown",
        "The topic of the write test is not there",
        Code.KAFKA_WRITE_FAILED,
        _writing("orders-of-nobody"),
        seen="the topic orders-of-nobody: the cluster has no topic of that name",
    ),
    Fault(
        "kafka-write-name",
        "The topic of the write test has a name that no topic can have",
        Code.KAFKA_WRITE_FAILED,
        _writing("my orders"),
        seen="no name of a topic",
    ),
    Fault(
        "kafka-write-too-large",
        "The topic of the write test takes no record as large as ours",
        Code.KAFKA_WRITE_FAILED,
        _narrow,
        seen="MESSAGE_TOO_LARGE",
    ),
    Fault(
        "kafka-write-denied",
        "No ACL lets this identity use the topic of the write test",
        Code.KAFKA_NOT_AUTHORIZED,
        _denied,
        seen="does not let this identity see the topic orders",
    ),
    Fault(
        "kafka-no-port",
        "The listener of a broker would be on a port above 65535",
        Code.KAFKA_NO_LISTENER,
        _of_file("first_broker_port = 65000"),
        also=_NO_PROXY,
        seen="the listener of broker 1001 would be on port 66001",
    ),
    Fault(
        "kafka-own-listener",
        "One broker advertises the address at which the tunnel itself listens",
        Code.KAFKA_NO_LISTENER,
        _of_file("", lambda port: {LIED: ("127.0.0.1", port)}),
        also=_NO_PROXY | {Code.KAFKA_BROKER_UNREACHABLE},
        seen="which is a listener of this file's own",
    ),
)
