"""What is news to somebody who watches."""

from __future__ import annotations

import pytest

from mtlskit.doctor.diagnosis import Diagnosis, Report
from mtlskit.doctor.finding import Finding, Layer, Verdict, failed, skipped, warned
from mtlskit.doctor.report import changes
from mtlskit.doctor.report.changes import Change, Memory
from mtlskit.errors import Code, ConfigError, UpstreamError
from tests.support.reports import behind, diagnosis, no_tcp, report, tcp


def one(*findings: Finding, complete: bool = True) -> Report:
    """A report of one tunnel."""
    return report(diagnosis("reporting", *findings, complete=complete))


def names() -> Finding:
    """TLS that fails."""
    return failed(Layer.TLS, "tls.names", UpstreamError(Code.TLS_NAME_MISMATCH, "other", "mend it"), about="db")


def told(changes: tuple[Change, ...]) -> list[tuple[str, str | None, str | None]]:
    """The changes in short."""
    return [
        (each.check, each.before and each.before.value, None if each.after is None else each.after.verdict.value)
        for each in changes
    ]


def test_nothing_new() -> None:
    memory = Memory(one(tcp(0.012)))
    assert memory.changes(one(tcp(0.250))) == ()
    memory = Memory(one(no_tcp()))
    assert memory.changes(one(no_tcp())) == ()


def test_a_check_fails_and_passes_again() -> None:
    memory = Memory(one(tcp()))
    assert told(memory.changes(one(no_tcp()))) == [("tcp.connect", "pass", "fail")]
    assert told(memory.changes(one(tcp()))) == [("tcp.connect", "fail", "pass")]


def test_another_reason_is_news() -> None:
    memory = Memory(one(no_tcp()))
    assert told(memory.changes(one(no_tcp(Code.TCP_TIMEOUT)))) == [("tcp.connect", "fail", "fail")]


def test_layers_behind_a_failure_go_and_come_in_silence() -> None:
    handshake = Finding(layer=Layer.TLS, check="tls.handshake", verdict=Verdict.PASS, seen="TLSv1.3", about="db")
    memory = Memory(one(tcp(), handshake))
    assert told(memory.changes(one(no_tcp(), *behind("tcp.connect", Layer.TLS)))) == [("tcp.connect", "pass", "fail")]
    assert told(memory.changes(one(tcp(), handshake))) == [("tcp.connect", "fail", "pass")]


def test_a_failure_that_was_out_of_sight_is_told_again() -> None:
    memory = Memory(one(tcp(), names()))
    away = one(no_tcp(), skipped(Layer.TLS, "tls.skipped", "tcp.connect", about="db"))
    assert told(memory.changes(away)) == [("tcp.connect", "pass", "fail")]
    assert told(memory.changes(one(tcp(), names()))) == [("tls.names", "fail", "fail"), ("tcp.connect", "fail", "pass")]


def test_a_failure_mended_while_out_of_sight() -> None:
    memory = Memory(one(tcp(), names()))
    memory.changes(one(no_tcp(), skipped(Layer.TLS, "tls.skipped", "tcp.connect", about="db")))
    assert told(memory.changes(one(tcp()))) == [("tcp.connect", "fail", "pass"), ("tls.names", "fail", None)]


def test_a_check_that_speaks_only_when_something_is_wrong() -> None:
    late = warned(Layer.CLOCK, "clock.offset", UpstreamError(Code.TLS_NAME_MISMATCH, "late", "set it"))
    memory = Memory(one(tcp()))
    assert told(memory.changes(one(tcp(), late))) == [("clock.offset", None, "warn")]
    assert told(memory.changes(one(tcp()))) == [("clock.offset", "warn", None)]
    assert memory.changes(one(tcp())) == ()


def test_what_was_not_looked_at_to_its_end_is_not_mended() -> None:
    memory = Memory(one(tcp(), names()))
    assert memory.changes(one(tcp(), complete=False)) == ()
    assert memory.changes(report()) == ()


def test_of_several_findings_about_one_thing_the_worst_counts() -> None:
    memory = Memory(one(tcp(), no_tcp()))
    assert told(memory.changes(one(tcp(), tcp()))) == [("tcp.connect", "fail", "pass")]


def test_a_new_tunnel_that_fails_is_news_and_one_that_passes_is_none() -> None:
    memory = Memory(report(diagnosis("a", tcp())))
    found = memory.changes(report(diagnosis("a", tcp()), diagnosis("b", no_tcp()), diagnosis("c", tcp())))
    assert [(each.tunnel, each.before) for each in found] == [("b", None)]


def test_a_file_that_is_mended() -> None:
    error = ConfigError(Code.CONFIG_SYNTAX, "mtlskit.toml:3: not TOML", "mend it")
    wrong = failed(Layer.CONFIGURATION, "configuration.read", error, about="mtlskit.toml")
    memory = Memory(one(no_tcp()))
    broken = report(Diagnosis("mtlskit.toml", "configuration", "", findings=(wrong,), seconds=0))
    assert told(memory.changes(broken)) == [("configuration.read", None, "fail")]
    found = memory.changes(one(no_tcp()))
    assert told(found) == [("tcp.connect", "fail", "fail"), ("configuration.read", "fail", None)]


def test_a_cluster_that_names_other_brokers_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is out of sight is remembered, the oldest is forgotten, and another tunnel loses nothing by it."""
    monkeypatch.setattr(changes, "_MOST_UNSEEN", 3)

    def brokers(*numbers: int) -> Diagnosis:
        error = UpstreamError(Code.KAFKA_BROKER_UNREACHABLE, "away", "look")
        found = [failed(Layer.KAFKA, "kafka.broker", error, about=f"broker {number}") for number in numbers]
        return diagnosis("events", *found, skipped(Layer.KAFKA, "kafka.cluster", "something"))

    away = no_tcp(), skipped(Layer.TLS, "tls.skipped", "tcp.connect", about="db")
    memory = Memory(report(brokers(), diagnosis("reporting", tcp(), names())))
    for number in range(0, 100, 2):
        memory.changes(report(brokers(number, number + 1), diagnosis("reporting", *away)))
    again = memory.changes(report(brokers(0, 97), diagnosis("reporting", tcp(), names())))
    known = {each.about: each.before for each in again if each.tunnel == "events"}
    assert known == {"broker 0": None, "broker 97": Verdict.FAIL}
    assert [each.before for each in again if each.check == "tls.names"] == [Verdict.FAIL]
