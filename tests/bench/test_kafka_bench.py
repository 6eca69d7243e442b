"""The bench of Kafka works, at its smallest. How fast anything was is not looked at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.book import Figure
from tests.bench.contenders import DIRECT, MTLSKIT, Place, Upstream
from tests.bench.errors import BenchError
from tests.bench.kafka import fetches, latency, metadata, throughput
from tests.bench.kafka.__main__ import LOADS, main
from tests.bench.kafka.client import Job
from tests.bench.kafka.clients import transfer
from tests.bench.kafka.contenders import KafkaProxy
from tests.bench.kafka.jobs import shares
from tests.bench.kafka.lab import KafkaRoute
from tests.bench.kafka.picture import PANELS
from tests.bench.kafka.size import FULL, MIB, TINY, named
from tests.services.kafka_doors import Door
from tests.services.pki import Pki
from tests.services.places import free_port

_CLIENTS = TINY.clients[0]
_FIGURES: dict[str, list[Figure]] = {
    "metadata": [metadata.figure(TINY.brokers, TINY.partitions)],
    "produce": [throughput.speed("produce", record, _CLIENTS) for record in TINY.records],
    "consume": [throughput.speed("consume", record, _CLIENTS) for record in TINY.records],
    "latency": [
        make(record, _CLIENTS, percent)
        for record in TINY.records
        for percent in (50, 99)
        for make in (latency.acknowledged, latency.arrived)
    ],
    "fetches": [fetches.SPEED],
}
"""Those that every contender has, or mtlskit alone."""


@pytest.mark.usefixtures("services")
def test_every_figure_is_measured_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "figures.json"
    main(["--contenders", f"{DIRECT},{MTLSKIT}", "--json", str(written)], size=TINY)
    told = json.loads(written.read_text())
    assert not [note for note in told["notes"] if "failed" in note]
    found = {Figure(each["load"], each["case"], each["unit"], each["more_is_better"]): each for each in told["figures"]}
    printed = capsys.readouterr().out
    for load, figures in _FIGURES.items():
        for figure in figures:
            whose = found[figure]["contenders"]
            assert whose.keys() == ({MTLSKIT} if load == "metadata" else {DIRECT, MTLSKIT}), figure
            assert all(each["min"] > 0 for each in whose.values()), figure
            assert str(figure) in printed
    for figure in (fetches.COST, fetches.BEFORE, fetches.PEAK, fetches.AFTER):
        assert found[figure]["contenders"].keys() == {MTLSKIT}
    assert LOADS.keys() == _FIGURES.keys()


def test_a_client_that_cannot_do_its_job_says_why(tmp_path: Path) -> None:
    door = Door(f"127.0.0.1:{free_port()}", tmp_path)  # nobody is there
    job = Job("produce", {**door.librdkafka(), "message.timeout.ms": 200, "linger.ms": 0}, "topic", [0], 100, 1)
    with pytest.raises(BenchError, match=r"produce: .*timed out"):
        transfer(KafkaRoute(DIRECT, door), [job])


@pytest.mark.parametrize("clients", [1, 2, 4])
def test_clients_share_all_partitions(clients: int) -> None:
    assert sorted(partition for share in shares(clients) for partition in share) == [0, 1, 2, 3]
    assert len(shares(clients)) == clients


def test_sizes_have_names_for_people() -> None:
    assert [named(record) for record in (100, 10_240, MIB)] == ["100 B", "10 KiB", "1 MiB"]


def test_what_is_drawn_is_measured_at_full_size() -> None:
    drawn = {figure.case for _, figure in PANELS if figure.load in ("produce", "consume")}
    cases = {throughput.speed("", record, clients).case for record in FULL.records for clients in FULL.clients}
    assert drawn <= cases


def test_kafka_proxy_is_told_to_stay_on_loopback(pki: Pki, tmp_path: Path) -> None:
    command = KafkaProxy().command(Place(tmp_path, 19092, Upstream.TLS, 9093, pki))
    assert command[command.index("--bootstrap-server-mapping") + 1] == "127.0.0.1:9093,127.0.0.1:19092"
    assert command[command.index("--default-listener-ip") + 1] == "127.0.0.1"
    assert "--http-disable" in command


@pytest.mark.parametrize("words", [["--only", "nothing"], ["--contenders", "nobody"], ["--rounds", "0"]])
def test_what_cannot_be_measured_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "error: argument" in capsys.readouterr().err
