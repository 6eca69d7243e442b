"""Healthy clusters: the doctor has nothing to say against any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from mtlskit.doctor.diagnosis import Diagnosis
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.gather import Gathered, diagnose
from tests.doctor.catalogue.base import told_of
from tests.doctor.catalogue.kafka import gathered
from tests.services.kafka_settings import KafkaOptions
from tests.support.kafka_liar import lying_door

if TYPE_CHECKING:
    from tests.conftest import MakeKafka
    from tests.services.kafka_cluster import KafkaCluster

_LOGIN = {
    "listener.security.protocol.map": "CLIENTS:SASL_SSL,BROKERS:PLAINTEXT,CONTROLLERS:PLAINTEXT",
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.clients.plain.sasl.jaas.config": (
        'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="of-alice";'
    ),
}


def examined(what: Gathered) -> Diagnosis:
    """Neither a failure nor a warning."""
    (diagnosis,) = trio.run(diagnose, what).diagnoses
    verdicts = {finding.verdict for finding in diagnosis.findings}
    assert not verdicts & {Verdict.FAIL, Verdict.WARN}, told_of(diagnosis)
    assert diagnosis.healthy, told_of(diagnosis)
    return diagnosis


def found(diagnosis: Diagnosis, check: str) -> list[Finding]:
    """What a check has found."""
    return [finding for finding in diagnosis.findings if finding.check == check]


def test_a_new_cluster_and_one_with_a_topic(each_kafka: KafkaCluster) -> None:
    upstream = tuple(each_kafka.bootstrap.split(","))
    examined(gathered(each_kafka.pki, upstream))
    topic = "doctor-healthy"
    each_kafka.create_topic(topic, partitions=2)
    diagnosis = examined(gathered(each_kafka.pki, upstream, write_test=topic))
    assert [each.facts["reached"] for each in found(diagnosis, "kafka.broker")] == [True] * 3
    [written] = found(diagnosis, "kafka.write-test")
    assert written.verdict is Verdict.PASS
    assert written.facts["topic"] == topic
    [topics] = found(diagnosis, "kafka.topics")
    assert topic in topics.facts["names"]
    line = ".".join(each_kafka.version.split(".")[:2])
    assert [each.facts["release"] for each in found(diagnosis, "kafka.versions")] == [line] * 3


def test_behind_something_that_rewrites_addresses(kafka: KafkaCluster) -> None:
    """Such as a proxy of another make: what it says is what counts."""
    with lying_door(kafka, {}) as own:
        examined(gathered(kafka.pki, f"127.0.0.1:{own}"))


def test_brokers_that_want_a_login(make_kafka: MakeKafka) -> None:
    kafka = make_kafka(KafkaOptions(node_ids=(1001,), settings=_LOGIN))
    diagnosis = examined(gathered(kafka.pki, kafka.bootstrap, write_test="orders"))
    [cluster] = found(diagnosis, "kafka.cluster")
    assert (cluster.verdict, cluster.because) == (Verdict.SKIPPED, "the brokers want a login (SASL)")
    assert "PLAIN" in cluster.seen
    [written] = found(diagnosis, "kafka.write-test")
    assert written.because == cluster.because
