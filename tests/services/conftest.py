"""Fixtures of real Kafka clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.services.kafka_cluster import KafkaCluster
    from tests.services.kafka_fleet import KafkaFleet
    from tests.services.kafka_settings import KafkaOptions
    from tests.services.pki import Pki

    MakeKafka = Callable[..., KafkaCluster]


@pytest.fixture(scope="session")
def kafka_fleet(services: None, pki: Pki) -> Iterator[KafkaFleet]:
    """The clusters that the session shares: ``kafka_fleet.of("3.9")``."""
    from tests.services.kafka_fleet import KafkaFleet

    with KafkaFleet(pki) as fleet:
        yield fleet


@pytest.fixture(scope="session")
def kafka(kafka_fleet: KafkaFleet) -> KafkaCluster:
    """A shared cluster of the newest Kafka."""
    from tests.services.kafka_builds import NEWEST

    return kafka_fleet.of(NEWEST)


@pytest.fixture(scope="session", params=["3.9", "4.3"])
def each_kafka(kafka_fleet: KafkaFleet, request: pytest.FixtureRequest) -> KafkaCluster:
    """A shared cluster of each Kafka in turn."""
    line: str = request.param
    return kafka_fleet.of(line)


@pytest.fixture(scope="session")
def older_kafka(kafka_fleet: KafkaFleet) -> KafkaCluster:
    """A shared cluster of Kafka 3.9."""
    return kafka_fleet.of("3.9")


@pytest.fixture
def make_kafka(services: None, pki: Pki) -> Iterator[MakeKafka]:
    """Start clusters of the test's own, to kill or set up differently: ``make_kafka(options, line="3.9")``."""
    from tests.services.kafka_builds import NEWEST, kafka_build
    from tests.services.kafka_cluster import KafkaCluster

    with ExitStack() as stack:

        def make(options: KafkaOptions | None = None, *, line: str = NEWEST) -> KafkaCluster:
            return stack.enter_context(KafkaCluster(kafka_build(line), pki, options))

        yield make
