"""The Kafka clusters that a session of tests shares: one for each release line, started when first asked for."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tests.services.kafka_builds import kafka_build
from tests.services.kafka_cluster import KafkaCluster
from tests.services.pki import Pki


class KafkaFleet:
    """A context manager: on exit all clusters are gone."""

    def __init__(self, pki: Pki) -> None:
        self._pki = pki
        self._clusters: dict[str, KafkaCluster] = {}
        self._stack = ExitStack()

    def of(self, line: str) -> KafkaCluster:
        """The shared cluster of this release line. Whoever stops a broker of it starts it again."""
        if line not in self._clusters:
            self._clusters[line] = self._stack.enter_context(KafkaCluster(kafka_build(line), self._pki))
        return self._clusters[line]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
