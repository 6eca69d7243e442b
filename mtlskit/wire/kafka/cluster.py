"""Questions about a cluster as a whole, for whoever examines it: who is in it, which topics it shows, which groups.

Versions are the oldest that say what is wanted, in the old layout: Metadata 2 (Kafka 0.10.1) is the first with the
cluster's id; Metadata 4 (0.11) the first that can be asked for a topic by name without making it; ListGroups 0 and
SaslHandshake 1 (1.0). Kafka 4.x still takes all of them (KIP-896). Requests are sent as `asking` says.

Whoever answers decides how much there is to read: what is above the bounds below is refused by its count, unread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from typing import Final

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.kafka.asking import behind_header, request
from mtlskit.wire.kafka.primitives import Buffer, Reader, array_length, string
from mtlskit.wire.kafka.tables import LIST_GROUPS, METADATA, SASL_HANDSHAKE

__all__ = [
    "LONGEST_NAME",
    "MAX_CLUSTER",
    "MOST_MEMBERS",
    "MOST_NAMES",
    "MOST_PARTITIONS",
    "NAMED_METADATA",
    "WHOLE_METADATA",
    "Cluster",
    "Groups",
    "Member",
    "Topic",
    "cluster_of",
    "cluster_request",
    "groups_of",
    "groups_request",
    "mechanisms_of",
    "mechanisms_request",
    "release_of",
    "topic_request",
]

MAX_CLUSTER: Final = 16 * 1024 * 1024
"""Bytes of an answer that names all topics."""
MOST_MEMBERS: Final = 10_000
"""Brokers of a cluster."""
MOST_PARTITIONS: Final = 100_000
"""Topics and partitions of a cluster, in all: some 5 MiB with three replicas of each."""
_MOST_GROUPS: Final = 100_000
"""Groups that one broker coordinates."""
_MOST_MECHANISMS: Final = 1000
MOST_NAMES: Final = 50
"""Names of groups that are kept of an answer."""
LONGEST_NAME: Final = 249
"""Characters that are kept of a name: what a topic's may have. A group's has no bound."""

WHOLE_METADATA: Final = 2
"""The version in which all topics, or none, are asked for."""
NAMED_METADATA: Final = 4
"""The version in which one topic is asked for."""
_THROTTLED: Final = 3
"""The first version of Metadata whose response begins with a throttle time."""
_LIST_GROUPS_VERSION: Final = 0
_SASL_HANDSHAKE_VERSION: Final = 1

_NULL_ARRAY: Final = -1
_NO_CREATION: Final = b"\0"

_MARKS: Final = (
    ("4.3", 35, 5),
    ("4.2", 2, 11),
    ("4.1", 0, 13),
    ("4.0", 0, 12),
    ("3.9", 1, 17),
    ("3.8", 0, 11),
    ("3.7", 1, 16),
    ("3.5", 1, 15),
    ("3.1", 1, 13),
    ("2.8", 0, 9),
    ("2.7", 1, 12),
    ("2.4", 0, 8),
    ("2.3", 1, 11),
    ("2.1", 1, 10),
    ("2.0", 1, 8),
    ("1.1", 1, 7),
    ("1.0", 1, 6),
    ("0.11", 1, 5),
    ("0.10.1", 1, 3),
)
"""Releases of Apache Kafka by what was new in them, newest first: an api key and its version. The keys are Produce (0),
Fetch (1), ListOffsets (2) and DescribeLogDirs (35)."""


@dataclass(frozen=True, slots=True)
class Member:
    """A broker, where it says that clients reach it."""

    node_id: int
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as far as an examination goes; partitions are counted, not kept."""

    name: str
    error: int
    internal: bool
    partitions: int
    leaderless: tuple[int, ...]
    """The numbers of partitions that have no leader now."""
    under_replicated: int
    """Partitions of which not all replicas are in sync."""
    led: tuple[tuple[int, int], ...] = ()
    """A partition that has a leader, and the leader's node id: the first one of them, or none."""


@dataclass(frozen=True, slots=True)
class Groups:
    """What a ListGroups response says: names are counted, and few are kept."""

    error: int
    count: int
    begun: int
    """How many names begin as was asked."""
    names: tuple[str, ...]
    """The first in alphabetical order, each as far as `LONGEST_NAME`."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a Metadata response says."""

    members: tuple[Member, ...]
    cluster_id: str
    """Empty where the broker knows none."""
    controller: int
    """A node id, -1 where there is none. With KRaft, some broker that passes on what is for the controller."""
    topics: tuple[Topic, ...]


def cluster_request(correlation_id: int, *, topics: bool = True) -> bytes:
    """Asks for the brokers and for all topics, or for none."""
    body = array_length(_NULL_ARRAY if topics else 0, flexible=False)
    return request(METADATA, WHOLE_METADATA, correlation_id, body)


def topic_request(correlation_id: int, topic: str) -> bytes:
    """Asks for the brokers and for one topic, which is not made by that. Raises ValueError for a name above 32 KiB."""
    body = array_length(1, flexible=False) + string(topic, flexible=False) + _NO_CREATION
    return request(METADATA, NAMED_METADATA, correlation_id, body)


def cluster_of(answer: Buffer, version: int = WHOLE_METADATA) -> Cluster:
    """Reads the answer to `cluster_request`, or with `NAMED_METADATA` that to `topic_request`.

    Raises UpstreamProtocolError for what cannot be read, or is above the bounds. Takes half a second at most.
    """
    reader = behind_header(answer, METADATA, version)
    if version >= _THROTTLED:
        reader.int32()
    members: list[Member] = []
    for _ in range(_count(reader, MOST_MEMBERS, "brokers")):
        members.append(Member(reader.int32(), reader.text(), reader.int32()))
        reader.skip_string()  # the rack
    cluster_id, controller = reader.text(), reader.int32()
    count = _count(reader, MOST_PARTITIONS, "topics")
    room = MOST_PARTITIONS - count
    topics: list[Topic] = []
    for _ in range(count):
        topics.append(_topic(reader, room))
        room -= topics[-1].partitions
    return Cluster(tuple(members), cluster_id, controller, tuple(topics))


def _count(reader: Reader, most: int, what: str) -> int:
    """What leads an array of which no more than `most` elements are read."""
    count = reader.count()
    if count > most:
        raise UpstreamProtocolError(
            Code.KAFKA_RESPONSE_TOO_LARGE,
            f"the broker's {reader.place.name} response names more {what} than are read ({count}, and {most} at most)",
            "look at the cluster with Kafka's own tools (kafka-topics.sh, kafka-consumer-groups.sh)",
        )
    return count


def _topic(reader: Reader, room: int) -> Topic:
    """`room` is how many partitions are still read."""
    error, name, internal = reader.int16(), reader.text(), reader.boolean()
    count, under_replicated = _count(reader, room, "partitions"), 0
    leaderless: list[int] = []
    led: tuple[tuple[int, int], ...] = ()
    for _ in range(count):
        reader.int16()  # its error repeats that there is no leader, or says that a replica is away
        partition, leader = reader.int32(), reader.int32()
        replicas, in_sync = _length_of_ids(reader), _length_of_ids(reader)
        under_replicated += in_sync < replicas
        if leader < 0:
            leaderless.append(partition)
        elif not led:
            led = ((partition, leader),)
    return Topic(name, error, internal, count, tuple(leaderless), under_replicated, led)


def _length_of_ids(reader: Reader) -> int:
    count = reader.count()
    reader.skip(4 * count)
    return count


def groups_request(correlation_id: int) -> bytes:
    """Asks a broker for the groups that it coordinates."""
    return request(LIST_GROUPS, _LIST_GROUPS_VERSION, correlation_id)


def groups_of(answer: Buffer, prefix: str = "") -> Groups:
    """The groups, and how many of them begin with `prefix`.

    Raises UpstreamProtocolError for what cannot be read, or is above the bounds.
    """
    reader = behind_header(answer, LIST_GROUPS, _LIST_GROUPS_VERSION)
    error, count, begun = reader.int16(), _count(reader, _MOST_GROUPS, "groups"), 0

    def names() -> Iterator[str]:
        nonlocal begun
        for _ in range(count):
            name = reader.text()
            reader.skip_string()  # the type of its protocol
            begun += name.startswith(prefix)
            yield name[:LONGEST_NAME]

    first = tuple(nsmallest(MOST_NAMES, names()))
    return Groups(error, count, begun, first)


def mechanisms_request(correlation_id: int, mechanism: str = "PLAIN") -> bytes:
    """Asks how one may log in; no login begins as long as nothing follows."""
    return request(SASL_HANDSHAKE, _SASL_HANDSHAKE_VERSION, correlation_id, string(mechanism, flexible=False))


def mechanisms_of(answer: Buffer) -> tuple[str, ...]:
    """The mechanisms of SASL that the broker has; none where its listener wants no login (error 34, no mechanisms).

    Raises UpstreamProtocolError for what cannot be read.
    """
    reader = behind_header(answer, SASL_HANDSHAKE, _SASL_HANDSHAKE_VERSION)
    reader.int16()  # error 33 where the mechanism that we named is not among them
    return tuple(reader.text() for _ in range(_count(reader, _MOST_MECHANISMS, "mechanisms")))


def release_of(versions: Mapping[int, tuple[int, int]]) -> str:
    """The oldest release of Apache Kafka that speaks these versions, such as "3.9"; for what else speaks the protocol,
    whatever comes close."""
    return next((release for release, key, version in _MARKS if versions.get(key, (0, -1))[1] >= version), "0.10")
