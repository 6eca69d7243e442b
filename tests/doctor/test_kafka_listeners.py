"""Where the tunnel of a file has its listeners for brokers."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlskit.doctor.case import Case
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import from_file
from mtlskit.doctor.kafka.listeners import plan_listeners
from mtlskit.errors import Code
from mtlskit.wire.kafka.cluster import Cluster, Member
from tests.doctor.catalogue.kafka import gathered, means
from tests.services.pki import Pki


def case_of(pki: Pki, folder: Path, lines: str = "", listen: str = "127.0.0.1:9092", name: str = "events") -> Case:
    file = folder / "mtlskit.toml"
    file.write_text(
        f'[identity.events]\ncert = "{pki.client.cert}"\nkey = "{pki.client.key}"\nca = "{pki.server_ca}"\n'
        f'[tunnel.events]\nkind = "kafka"\nlisten = "{listen}"\nupstream = "kafka.example:9093"\nidentity = "events"\n'
        + lines
    )
    found = {case.name: case for case in from_file(file, (), means()).cases}
    return found[name]


def cluster_of(*node_ids: int, port: int = 9093) -> Cluster:
    return Cluster(tuple(Member(node, f"b{node}.example", port) for node in node_ids), "id", 1, ())


def test_every_broker_has_one(pki: Pki, tmp_path: Path) -> None:
    case = case_of(pki, tmp_path, "brokers = { 1001 = 9200 }\n")
    [finding] = plan_listeners(case, cluster_of(1, 2, 1001))
    assert finding.verdict is Verdict.PASS
    assert finding.facts["listeners"] == {"1": "127.0.0.1:9094", "2": "127.0.0.1:9095", "1001": "127.0.0.1:9200"}
    [finding] = plan_listeners(case, cluster_of(*range(20)))
    assert finding.seen.endswith(", and 12 more")


def test_one_that_has_none(pki: Pki, tmp_path: Path) -> None:
    case = case_of(pki, tmp_path, "last_broker_port = 9095\n")
    [finding] = plan_listeners(case, cluster_of(1, 2, 3))
    assert (finding.verdict, finding.code, finding.about) == (Verdict.FAIL, Code.KAFKA_NO_LISTENER, "broker 3")


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 9092), ("localhost", 9300), ("127.0.0.1", 9200)])
def test_one_that_is_said_to_be_at_a_listener_of_ours(pki: Pki, tmp_path: Path, host: str, port: int) -> None:
    other = (
        '[tunnel.other]\nkind = "kafka"\nlisten = "127.0.0.1:9300"\nupstream = "other.example:9093"\n'
        'identity = "events"\n'
    )
    case = case_of(pki, tmp_path, "brokers = { 1001 = 9200 }\n" + other)
    [finding] = plan_listeners(case, Cluster((Member(1, host, port),), "id", 1, ()))
    assert finding.code is Code.KAFKA_NO_LISTENER
    assert "a listener of this file's own" in finding.seen


def test_where_there_is_nothing_to_plan(pki: Pki, tmp_path: Path) -> None:
    [case] = gathered(pki, "kafka.example:9093").cases
    assert plan_listeners(case, cluster_of(1)) == []
    assert plan_listeners(case_of(pki, tmp_path), cluster_of()) == []


def test_addresses_that_the_kernel_chooses(pki: Pki, tmp_path: Path) -> None:
    case = case_of(pki, tmp_path, listen="127.0.0.1:0")
    [finding] = plan_listeners(case, cluster_of(1))
    assert finding.seen.endswith("1 on 127.0.0.1, a free port")
