"""The doctor knows a Kafka where none is meant, and a listener without TLS where one is."""

from __future__ import annotations

import pytest
import trio

from mtlskit.doctor.checks.negotiation import negotiate
from mtlskit.doctor.finding import Verdict
from tests.doctor.catalogue.base import Fault, Stage, check_fault
from tests.doctor.catalogue.network import tunnel
from tests.doctor.catalogue.network_kafka import FAULTS
from tests.services.kafka_cluster import KafkaCluster


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.id)
def test_the_fault_is_named(fault: Fault, stage: Stage) -> None:
    check_fault(fault, stage)


@pytest.mark.parametrize("kind", ["kafka", "tcp"])
async def test_a_broker_is_ready_for_tls(kind: str, each_kafka: KafkaCluster) -> None:
    host, port = each_kafka.brokers[1001]
    (case,) = tunnel(f"{host}:{port}", kind=kind).cases
    opened = await negotiate(case, case.tunnel.upstream[0], (trio.socket.AF_INET, (host, port)))
    assert opened.ready
    assert [finding.verdict for finding in opened.findings] == [Verdict.PASS]
