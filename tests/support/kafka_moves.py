"""Partition leaders moved from one broker to the next, directly on the cluster, while clients work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from kafka import KafkaAdminClient, TopicPartition

from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_python import python_settings
from tests.support.until import until

MakeKafka: TypeAlias = Callable[..., KafkaCluster]
"""What the fixture `make_kafka` gives; see tests/conftest.py."""

_PREFERRED = 0


class Mover:
    """Moves the leaders of one topic."""

    def __init__(self, admin: KafkaAdminClient, topic: str) -> None:
        self._admin = admin
        self._topic = topic
        self.moves = 0
        """Leaders that were moved so far."""

    def move(self) -> None:
        """Each partition gets another leader, and the old one stays with it, as a follower that is asked in vain."""
        wanted = {partition: [*rest, first] for partition, (first, *rest) in self._replicas().items()}
        changes = {TopicPartition(self._topic, partition): nodes for partition, nodes in wanted.items()}
        errors = self._admin.alter_partition_reassignments(changes)
        assert not any(errors.values()), errors

        def elected() -> bool:
            self._admin.elect_leaders(_PREFERRED, {self._topic: list(wanted)}, raise_errors=False)
            return self._leaders() == {partition: nodes[0] for partition, nodes in wanted.items()}

        until(elected, f"the leaders {wanted}")
        self.moves += len(wanted)

    def _partitions(self) -> list[dict[str, object]]:
        [topic] = self._admin.describe_topics([self._topic])
        found: list[dict[str, object]] = topic["partitions"]
        return found

    def _replicas(self) -> dict[object, list[int]]:
        return {one["partition_index"]: one["replica_nodes"] for one in self._partitions()}  # type: ignore[misc]  # kafka-python has no types

    def _leaders(self) -> dict[object, object]:
        return {one["partition_index"]: one["leader_id"] for one in self._partitions()}


@contextmanager
def mover(cluster: KafkaCluster, topic: str) -> Iterator[Mover]:
    """It comes in directly, with an identity of its own, and is gone afterwards."""
    admin = KafkaAdminClient(**python_settings(cluster.door()))
    try:
        yield Mover(admin, topic)
    finally:
        admin.close()
