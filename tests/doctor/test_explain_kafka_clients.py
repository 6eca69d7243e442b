"""What kcat and Kafka's Java clients really print when something is broken, pasted into `mtlskit doctor explain`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mtlskit.doctor.explain.recognise import explain
from mtlskit.errors import Code
from tests.services.kafka_clients import java_command, kcat_command
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.support.tls_servers import closed_port


def kcat_says(door: Door) -> str:
    """What kcat prints when it lists a cluster."""
    done = kcat_command(door, "-L", "-m", "5", limit=20).run()
    assert done.returncode != 0
    return done.stderr


def java_says(cluster: KafkaCluster, door: Door) -> str:
    """What Kafka's own tool prints when it lists topics."""
    settings = {"default.api.timeout.ms": "4000", "request.timeout.ms": "3000"}
    done = java_command(
        cluster.build,
        "org.apache.kafka.tools.TopicCommand",
        *("--list", "--bootstrap-server", door.bootstrap, "--command-config", str(door.java_file(settings))),
        limit=40,
    ).run(timeout=60)
    assert done.returncode != 0
    return done.stdout + done.stderr


@pytest.fixture
def closed(tmp_path: Path) -> Door:
    """A tunnel that does not run."""
    with closed_port() as port:
        return Door(f"127.0.0.1:{port}", tmp_path)


def test_a_tunnel_that_does_not_run(kafka: KafkaCluster, closed: Door) -> None:
    said = kcat_says(closed), java_says(kafka, closed)
    assert [explain(text)[0].code for text in said] == [Code.LOCAL_NOT_RUNNING] * 2, said


def test_another_ca(kafka: KafkaCluster) -> None:
    door = replace(kafka.door(), ca=kafka.pki.stranger_ca)
    said = kcat_says(door), java_says(kafka, door)
    assert [explain(text)[0].code for text in said] == [Code.TLS_CHAIN_NOT_TRUSTED] * 2, said


def test_no_certificate(kafka: KafkaCluster) -> None:
    door = replace(kafka.door(), client=None)
    told = {Code.TLS_CLIENT_CERTIFICATE_REFUSED, Code.TLS_CLIENT_CERTIFICATE_REQUIRED}
    for text in (kcat_says(door), java_says(kafka, door)):
        assert explain(text)[0].code in told, text


def test_a_plain_client_at_a_port_of_tls(kafka: KafkaCluster, tmp_path: Path) -> None:
    door = Door(kafka.door().bootstrap, tmp_path)
    said = kcat_says(door)  # no more than that there is no broker
    assert explain(said)[0].code is Code.KAFKA_BROKER_UNREACHABLE, said
    told = {Code.KAFKA_SERVER_SPEAKS_TLS, Code.KAFKA_CLIENT_SPEAKS_TLS}
    said = java_says(kafka, door)
    assert explain(said)[0].code in told, said
