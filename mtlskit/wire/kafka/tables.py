"""Where brokers' addresses stand: the responses that name them, as data, and the newest version that is known of each.

A table lists a response's fields in their order, from the first to the last one that matters; what follows that one is
never read, however much it is. Where a response also says what the cluster refuses, `Table.beyond` goes on to there:
`denials` reads it, the rewriting does not. Source: the message schemas of Apache Kafka 4.3.0
(``clients/src/main/resources/common/message/*Response.json``), which also hold the layouts of Kafka 2.8 to 4.2. A
version that is not in `NEWEST` must not be negotiated: `capping` sees to that, and `session` refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = [
    "API_VERSIONS",
    "FETCH",
    "FIND_COORDINATOR",
    "LIST_GROUPS",
    "METADATA",
    "NAMES",
    "NEWEST",
    "NO_TAG",
    "PRODUCE",
    "PRODUCE_REQUEST_FLEXIBLE",
    "SASL_HANDSHAKE",
    "TABLES",
    "WITHHELD",
    "Field",
    "Kind",
    "Table",
]

PRODUCE: Final = 0
FETCH: Final = 1
METADATA: Final = 3
FIND_COORDINATOR: Final = 10
LIST_GROUPS: Final = 16
SASL_HANDSHAKE: Final = 17
API_VERSIONS: Final = 18
DESCRIBE_CLUSTER: Final = 60
SHARE_FETCH: Final = 78
SHARE_ACKNOWLEDGE: Final = 79

NEWEST: Final = {PRODUCE: 13, FETCH: 15, METADATA: 13, FIND_COORDINATOR: 6, API_VERSIONS: 4, DESCRIBE_CLUSTER: 2}
"""The newest version of an api key that may pass. Keys that are not here carry no address and pass in any version.

Fetch 16 is Fetch 15 with brokers' addresses behind the records (KIP-951), 17 and 18 add what replicas need: below 16,
a Fetch response can stream. Produce must not fall below 12, which transactions with KIP-890 demand. ApiVersions 5
names the node that the client believes to reach (KIP-1242), and a broker refuses a name that is not its own."""

WITHHELD: Final = frozenset({SHARE_FETCH, SHARE_ACKNOWLEDGE})
"""Api keys that are left out of what a broker offers: their responses carry addresses behind records (KIP-932)."""

NAMES: Final = {
    PRODUCE: "Produce",
    FETCH: "Fetch",
    METADATA: "Metadata",
    FIND_COORDINATOR: "FindCoordinator",
    LIST_GROUPS: "ListGroups",
    SASL_HANDSHAKE: "SaslHandshake",
    API_VERSIONS: "ApiVersions",
    DESCRIBE_CLUSTER: "DescribeCluster",
    SHARE_FETCH: "ShareFetch",
    SHARE_ACKNOWLEDGE: "ShareAcknowledge",
}
"""For sentences."""

PRODUCE_REQUEST_FLEXIBLE: Final = 9
"""The first version of a Produce request in the flexible layout, header included."""

_FOR_EVER: Final = 1 << 15
NO_TAG: Final = -1


class Kind(Enum):
    """What a field is, as far as one must know to get past it, or to see what the cluster refuses."""

    INT8 = 1
    INT16 = 2
    INT32 = 4
    INT64 = 8
    UUID = 16
    STRING = "a string, null or not"
    INT32S = "an array of int32"
    STRUCTS = "an array of structs"
    ENDPOINT = "a node id (int32), its host (string) and its port (int32): three fields that always stand together"
    ERROR = "an error code (int16): what was asked for is refused"
    KEY = "a string: what was asked for"
    TOPIC = "an error code (int16) and the topic's name (string): two fields that always stand together"
    ENDPOINT_TYPE = "an int8: 1 where the endpoints are brokers, 2 where they are controllers (KIP-919)"


@dataclass(frozen=True)
class Field:
    """One field, in the versions `since` to `until`; with `tag`, a tagged one. `fields` are those of a struct."""

    name: str
    kind: Kind
    since: int = 0
    until: int = _FOR_EVER
    fields: tuple[Field, ...] = ()
    tag: int = NO_TAG


@dataclass(frozen=True)
class Table:
    """One response: it carries addresses in the versions `since` to `NEWEST`, and is flexible from `flexible` on.

    `fields` end with the last that leads to an address; `beyond` are those behind them up to the last denial.
    """

    name: str
    api_key: int
    since: int
    flexible: int
    fields: tuple[Field, ...]
    beyond: tuple[Field, ...] = ()


_ENDPOINT: Final = Field("NodeId, Host, Port", Kind.ENDPOINT)
_THROTTLE: Final = Field("ThrottleTimeMs", Kind.INT32)

_METADATA: Final = Table(
    NAMES[METADATA],
    METADATA,
    since=0,
    flexible=9,
    fields=(
        Field("ThrottleTimeMs", Kind.INT32, since=3),
        Field("Brokers", Kind.STRUCTS, fields=(_ENDPOINT, Field("Rack", Kind.STRING, since=1))),
    ),
    beyond=(
        Field("ClusterId", Kind.STRING, since=2),
        Field("ControllerId", Kind.INT32, since=1),
        Field(
            "Topics",  # most of the response
            Kind.STRUCTS,
            fields=(
                Field("ErrorCode, Name", Kind.TOPIC),
                Field("TopicId", Kind.UUID, since=10),
                Field("IsInternal", Kind.INT8, since=1),
                Field(
                    "Partitions",
                    Kind.STRUCTS,
                    fields=(
                        Field("ErrorCode", Kind.INT16),
                        Field("PartitionIndex", Kind.INT32),
                        Field("LeaderId", Kind.INT32),
                        Field("LeaderEpoch", Kind.INT32, since=7),
                        Field("ReplicaNodes", Kind.INT32S),
                        Field("IsrNodes", Kind.INT32S),
                        Field("OfflineReplicas", Kind.INT32S, since=5),
                    ),
                ),
                Field("TopicAuthorizedOperations", Kind.INT32, since=8),
            ),
        ),
    ),
)

_FIND_COORDINATOR: Final = Table(
    NAMES[FIND_COORDINATOR],
    FIND_COORDINATOR,
    since=0,
    flexible=3,
    fields=(
        Field("ThrottleTimeMs", Kind.INT32, since=1),
        Field("ErrorCode", Kind.ERROR, until=3),
        Field("ErrorMessage", Kind.STRING, since=1, until=3),
        Field("NodeId, Host, Port", Kind.ENDPOINT, until=3),
        Field(
            "Coordinators",
            Kind.STRUCTS,
            since=4,
            fields=(
                Field("Key", Kind.KEY),
                _ENDPOINT,
                Field("ErrorCode", Kind.ERROR),
                Field("ErrorMessage", Kind.STRING),
            ),
        ),
    ),
)

_DESCRIBE_CLUSTER: Final = Table(
    NAMES[DESCRIBE_CLUSTER],
    DESCRIBE_CLUSTER,
    since=0,
    flexible=0,
    fields=(
        _THROTTLE,
        Field("ErrorCode", Kind.INT16),
        Field("ErrorMessage", Kind.STRING),
        Field("EndpointType", Kind.ENDPOINT_TYPE, since=1),
        Field("ClusterId", Kind.STRING),
        Field("ControllerId", Kind.INT32),
        Field(
            "Brokers",
            Kind.STRUCTS,
            fields=(_ENDPOINT, Field("Rack", Kind.STRING), Field("IsFenced", Kind.INT8, since=2)),
        ),
    ),
)

_PRODUCE: Final = Table(
    NAMES[PRODUCE],
    PRODUCE,
    since=10,  # KIP-951
    flexible=9,
    fields=(
        Field(
            "Responses",
            Kind.STRUCTS,
            fields=(
                Field("Name", Kind.STRING, until=12),
                Field("TopicId", Kind.UUID, since=13),
                Field(
                    "PartitionResponses",
                    Kind.STRUCTS,
                    fields=(
                        Field("Index", Kind.INT32),
                        Field("ErrorCode", Kind.INT16),
                        Field("BaseOffset", Kind.INT64),
                        Field("LogAppendTimeMs", Kind.INT64),
                        Field("LogStartOffset", Kind.INT64),
                        Field(
                            "RecordErrors",
                            Kind.STRUCTS,
                            fields=(Field("BatchIndex", Kind.INT32), Field("BatchIndexErrorMessage", Kind.STRING)),
                        ),
                        Field("ErrorMessage", Kind.STRING),
                    ),
                ),
            ),
        ),
        _THROTTLE,
        Field("NodeEndpoints", Kind.STRUCTS, fields=(_ENDPOINT, Field("Rack", Kind.STRING)), tag=0),
    ),
)

TABLES: Final = {table.api_key: table for table in (_METADATA, _FIND_COORDINATOR, _DESCRIBE_CLUSTER, _PRODUCE)}
"""By api key."""
