"""What Kafka's clients say: Java, librdkafka (confluent-kafka, kcat), aiokafka, kafka-python."""

from __future__ import annotations

from typing import Final

from mtlskit.doctor.explain.known import Known, known
from mtlskit.errors import Code

__all__ = ["HUNG_UP", "KAFKA", "NO_BROKER"]

_DOCTOR: Final = "mtlskit doctor"
_PREFIX: Final = (
    "names on a shared Kafka of Heroku's begin with the prefix in KAFKA_PREFIX (`mtlskit status` shows it); else"
    " have an ACL granted"
)

KAFKA: Final[tuple[Known, ...]] = (
    known(
        r"(?:TopicAuthorization|GroupAuthorization|ClusterAuthorization|TransactionalIdAuthorization)\w*"
        r"|Not authorized to access (?:topics?|group|transactional)|(?:Topic|Group|Cluster) authorization failed"
        r"|TransactionalId authorization failed",
        Code.KAFKA_NOT_AUTHORIZED,
        "Kafka: this identity may not use that topic or group",
        "the network, TLS and the certificate work: the cluster knows us, and its access list (ACL) says no",
        _PREFIX,
        "mtlskit status",
        "heroku config:get KAFKA_PREFIX --app APP",
    ),
    known(
        r"Invalid receive \(size = (?:352518\d{3}|369295\d{3}|352452\d{3})"
        r"|Invalid response size (?:352518\d{3}|369295\d{3})|OutOfMemoryError.{0,400}(?:NetworkReceive"
        r"|org\.apache\.kafka)"
        r"|NetworkReceive.{0,400}OutOfMemoryError",
        Code.KAFKA_SERVER_SPEAKS_TLS,
        "a plain Kafka client at a TLS port",
        "the length that it has read is the beginning of a TLS record: the client speaks plain text to a listener"
        " that wants TLS",
        "connect to the tunnel's address, which is plain; straight to the brokers, set security.protocol=SSL",
        "mtlskit status",
    ),
    known(
        r"Invalid (?:receive \(size =|response size) (?:1213486160|1157627904)",
        Code.KAFKA_SERVER_RUBBISH,
        "a Kafka client at a web server, or at a PostgreSQL",
        "the length that it has read is the word HTTP, or the E of PostgreSQL's errors",
        "check the host and the port",
        _DOCTOR,
    ),
    known(
        r"broker certificate could not be verified",
        Code.TLS_CHAIN_NOT_TRUSTED,
        "librdkafka: it does not accept the broker's certificate",
        "librdkafka says so of a CA that it does not know and of a name that does not fit alike; on Heroku each"
        " cluster has a CA of its own, in KAFKA_TRUSTED_CERT, and its certificates do not carry the brokers' names",
        "connect through the tunnel; straight, ssl.ca.location is the file that KAFKA_TRUSTED_CERT holds, and for"
        " Heroku ssl.endpoint.identification.algorithm=none",
        "mtlskit certs show --connect HOST:9096 --kind kafka",
    ),
    known(
        r"No resolvable bootstrap urls|Couldn't resolve server (?P<server>\S+)|Host resolution failure"
        r"|Failed to resolve '(?P<name>[^']+)'",
        Code.DNS_FAILED,
        "the Kafka client: a broker's name does not resolve",
        "a name of bootstrap.servers is misspelt, or a broker advertises a name that this network does not know",
        "let the client connect to the tunnel: it tells addresses of this host instead",
        "mtlskit status",
        _DOCTOR,
    ),
    known(
        r"Topic (?P<topic>\S+) not present in metadata|Unknown topic or partition|UnknownTopicOrPartition"
        r"|This server does not host this topic-partition",
        Code.KAFKA_NOT_AUTHORIZED,
        "Kafka: there is no such topic for this identity",
        "the topic does not exist, or its name lacks the prefix of a shared plan, or the cluster hides it from us",
        _PREFIX,
        "mtlskit status",
        "heroku kafka:topics --app APP",
    ),
    known(
        r"NotLeaderOrFollower|NOT_LEADER_OR_FOLLOWER|Leader not available|LEADER_NOT_AVAILABLE|NotEnoughReplicas",
        Code.KAFKA_NO_LEADER,
        "Kafka: the partition has no leader at the moment, or too few copies",
        "brokers are moving or missing; clients try again by themselves",
        "if it lasts, see which broker is missing",
        _DOCTOR,
    ),
    known(
        r"SaslAuthentication|SASL authentication (?:error|failed)|SASL .{0,40}authentication failed",
        Code.KAFKA_WANTS_LOGIN,
        "Kafka: the login (SASL) was refused",
        "TLS and the certificate work, and the user or password of the client does not fit; mtlskit passes it on as"
        " it is",
        "check sasl.username and sasl.password; Apache Kafka on Heroku knows no SASL, only certificates",
    ),
    known(
        r"UnsupportedVersion(?:Exception)?|UNSUPPORTED_VERSION",
        Code.KAFKA_CLIENT_VERSION,
        "Kafka: one side does not know the version of a request",
        "the client is much newer or much older than the brokers",
        "update the older one; the tunnel caps what it does not know itself, and says so in its log",
        "mtlskit doctor",
    ),
)
"""What says enough by itself."""

HUNG_UP: Final[tuple[Known, ...]] = (
    known(
        r"client SSL authentication might be required"
        r"|terminated during authentication\. This may happen due to any of the following reasons",
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        "the Kafka client: the broker hung up in the TLS handshake or right after it",
        "a broker does so where it wants a client certificate and got none, or does not take the one that it got; a"
        " firewall that ends TLS connections looks the same",
        "connect through the tunnel; straight, configure certificate and key, and look whether it is the one of this"
        " add-on",
        _DOCTOR,
        "mtlskit certs list",
    ),
    known(
        r"Disconnected while requesting ApiVersion|incorrect security\.protocol configuration"
        r"|Bootstrap broker (?P<broker>\S+) \(id: -\d+ rack: null\) disconnected",
        Code.KAFKA_CLIENT_SPEAKS_TLS,
        "the Kafka client: hung up on at its first request",
        "one side speaks TLS and the other plain text: a client with security.protocol=SSL at the tunnel's plain"
        " door, or a plain one at a broker's TLS port; or the proxy has no way to the brokers and closes",
        "towards the tunnel: security.protocol=PLAINTEXT (or SASL_PLAINTEXT); then see why in the proxy's log",
        "mtlskit status",
        _DOCTOR,
    ),
)
"""Said of whoever hangs up: an alert of TLS in the same text says more."""

NO_BROKER: Final[tuple[Known, ...]] = (
    known(
        r"Timed out waiting for a node assignment|Failed to update metadata after|_ALL_BROKERS_DOWN"
        r"|All broker connections are down|\b\d{1,4}/\d{1,4} brokers are down|NoBrokersAvailable"
        r"|Unable to bootstrap from|Node may not be available|Broker transport failure",
        Code.KAFKA_BROKER_UNREACHABLE,
        "the Kafka client: it reaches no broker",
        "this is what all of them say in the end, whatever the reason: the one line that names the reason stands"
        " above it in the client's log, or in the proxy's",
        "see what is in the way",
        _DOCTOR,
        "mtlskit status",
    ),
)
"""Said in the end, whatever came before: everything else in the same text says more."""
