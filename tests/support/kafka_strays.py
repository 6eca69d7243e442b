"""Whether clients have come to the brokers by any other way than the tunnel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_visits import Visit

TUNNEL = "CN=certuser"
"""The identity that `tests.support.kafka_tunnel` gives to tunnels, and nobody else has."""

BROKERS_AND_TESTS = "CN=client"
"""The identity with which tests make topics, directly."""


def seen(cluster: KafkaCluster) -> Mapping[int, int]:
    """How many visits each broker has had so far: a mark for `strays`."""
    return {node_id: len(cluster.visits(node_id)) for node_id in cluster.brokers}


def strays(cluster: KafkaCluster, since: Mapping[int, int]) -> list[Visit]:
    """The visits since that mark that came neither from a tunnel nor from the tests themselves.

    A client that was led astray speaks plainly to a port that wants TLS, so it is refused, and told as such.
    """
    visits = [visit for node_id in cluster.brokers for visit in cluster.visits(node_id)[since[node_id] :]]
    return [visit for visit in visits if visit.refused or visit.identity not in (TUNNEL, BROKERS_AND_TESTS, None)]


def visitors(cluster: KafkaCluster, since: Mapping[int, int]) -> Counter[str | None]:
    """Who has come since that mark, to any broker, and how often."""
    return Counter(visit.identity for node_id in cluster.brokers for visit in cluster.visits(node_id)[since[node_id] :])
