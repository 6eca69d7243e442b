"""The write test, at brokers that refuse it in every way that a cluster has."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.kafka import writing
from mtlskit.errors import Code
from mtlskit.wire.kafka.records import batch_of
from tests.services.pki import Pki
from tests.support.kafka_liar import API_VERSIONS, HANG_UP, METADATA, Body, answer_to, metadata, text
from tests.support.kafka_looks import looked, named

PRODUCE, FETCH = 0, 1
NO_GROUPS = answer_to(16, struct.pack("!hi", 0, 0))
ONE = struct.pack("!i", 1)


def orders(leader: int = 1, error: int = 0, name: str = "orders") -> bytes:
    """The array of topics: one with one partition, or an error."""
    part = struct.pack("!ihiiii", 1, 0, 0, leader, 0, 0) if not error else bytes(4)
    return ONE + struct.pack("!h", error) + text(name) + b"\0" + part


def cluster(topics: bytes, *, leader_port: Callable[[int], int] = int) -> Callable[[list[int]], Body]:
    """Of the broker itself, or of one at another port."""
    return lambda ports: metadata(lambda: [(1, "127.0.0.1", leader_port(ports[0]))], topics=topics)


def produced(*errors: int, offset: int = 7) -> Body:
    """The first error to the first request; the last one to all that follow."""
    left = list(errors)

    def body(key: int, _request: bytes) -> bytes | None:
        if key != PRODUCE:
            return None
        error = left.pop(0) if len(left) > 1 else left[0]
        return ONE + text("orders") + ONE + struct.pack("!ihqq", 0, error, offset, -1) + bytes(4)

    return body


def fetched(error: int = 0, records: bytes = b"") -> Body:
    head = bytes(4) + ONE + text("orders") + ONE + struct.pack("!ihqqi", 0, error, 8, 8, 0)
    return answer_to(FETCH, head + struct.pack("!i", len(records)) + records)


def stored(offset: int = 7) -> bytes:
    return struct.pack("!q", offset) + batch_of(b"k", b"v", 1)[8:]


def tried(
    pki: Pki, *bodies: Body, own: Callable[[list[int]], Body] | None = None, topic: str = "orders", prefix: str = ""
) -> Finding:
    """The finding of the write test."""
    found = looked(pki, NO_GROUPS, *bodies, own=own or cluster(orders()), prefix=prefix, write_test=topic)
    [finding] = named(found, "kafka.write-test")
    return finding


def test_there_and_back(pki: Pki) -> None:
    finding = tried(pki, produced(0), fetched(records=stored()))
    assert finding.verdict is Verdict.PASS
    assert (finding.facts["partition"], finding.facts["offset"], finding.facts["leader"]) == (0, 7, 1)


@pytest.mark.parametrize("error", [3, 5, 6])
def test_a_leader_that_moves_is_asked_again(pki: Pki, error: int) -> None:
    assert tried(pki, produced(error, 0), fetched(records=stored())).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (6, Code.KAFKA_WRITE_FAILED, "NOT_LEADER_OR_FOLLOWER"),
        (19, Code.KAFKA_WRITE_FAILED, "NOT_ENOUGH_REPLICAS"),
        (87, Code.KAFKA_WRITE_FAILED, "INVALID_RECORD"),
        (29, Code.KAFKA_NOT_AUTHORIZED, "does not let this identity write to the topic orders"),
        (999, Code.KAFKA_WRITE_FAILED, "the broker's error 999"),
    ],
)
def test_a_record_that_is_refused(pki: Pki, error: int, code: Code, said: str) -> None:
    finding = tried(pki, produced(error))
    assert (finding.verdict, finding.code) == (Verdict.FAIL, code)
    assert said in finding.seen
    assert finding.hint


def test_a_record_that_may_not_be_read(pki: Pki) -> None:
    finding = tried(pki, produced(0), fetched(29))
    assert finding.code is Code.KAFKA_NOT_AUTHORIZED
    assert "does not let this identity read the topic" in finding.seen
    assert "CN=client" in finding.hint


@pytest.mark.parametrize("records", [b"", stored(3), b"\0" * 100])
def test_a_record_that_is_not_found_again(pki: Pki, records: bytes) -> None:
    finding = tried(pki, produced(0), fetched(records=records))
    assert finding.code is Code.KAFKA_WRITE_FAILED
    assert "offset 7, and is not found there" in finding.seen


def test_a_topic_without_any_leader(pki: Pki) -> None:
    assert tried(pki, own=cluster(orders(leader=-1))).code is Code.KAFKA_NO_LEADER


def test_a_leader_that_cannot_be_reached_is_told_of_the_broker(pki: Pki) -> None:
    finding = tried(pki, own=cluster(orders(), leader_port=lambda _: 1))
    assert (finding.verdict, finding.because) == (Verdict.SKIPPED, "kafka.broker")


@pytest.mark.parametrize("leader", [2, 1])
def test_a_leader_that_nobody_knows(pki: Pki, leader: int) -> None:
    own = cluster(orders(leader), leader_port=lambda port: port if leader == 2 else 0)
    assert tried(pki, own=own).because == "kafka.broker"


@pytest.mark.parametrize(
    ("topics", "code"),
    [
        (orders(error=3), Code.KAFKA_WRITE_FAILED),
        (orders(name="another"), Code.KAFKA_WRITE_FAILED),
        (orders(error=29), Code.KAFKA_NOT_AUTHORIZED),
    ],
)
def test_a_prefix_that_was_forgotten(pki: Pki, topics: bytes, code: Code) -> None:
    finding = tried(pki, own=cluster(topics), prefix="columbia-1.")
    assert finding.code is code
    assert finding.hint.startswith("names of topics begin with columbia-1. on this plan (KAFKA_PREFIX)")
    [command] = finding.commands
    assert command.startswith("mtlskit doctor --kind kafka --upstream 127.0.0.1:")
    assert command.endswith(" --write-test columbia-1.orders")


def test_a_prefix_that_was_not_forgotten(pki: Pki) -> None:
    finding = tried(pki, own=cluster(orders(error=29)), prefix="ord")
    assert "have an ACL" in finding.hint
    assert not finding.commands


@pytest.mark.parametrize("offers", [[(3, 0, 3), (18, 0, 0)], [(0, 0, 2), (1, 0, 3), (3, 0, 4), (18, 0, 0)]])
def test_brokers_of_another_time(pki: Pki, offers: list[tuple[int, int, int]]) -> None:
    speaks = answer_to(
        API_VERSIONS, struct.pack("!hi", 0, len(offers)) + b"".join(struct.pack("!hhh", *offer) for offer in offers)
    )
    finding = tried(pki, speaks)
    assert finding.verdict is Verdict.SKIPPED
    assert "0.11" in finding.because


@pytest.mark.parametrize("key", [PRODUCE, FETCH])
def test_a_broker_that_hangs_up(pki: Pki, key: int) -> None:
    finding = tried(pki, answer_to(key, HANG_UP), produced(0))
    assert finding.code is Code.UPSTREAM_CLOSED


def test_it_has_its_time_and_no_more(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_STEPS", 0)
    finding = tried(pki, produced(0), fetched(records=stored()))
    assert (finding.verdict, finding.code) == (Verdict.FAIL, Code.TCP_TIMEOUT)
    assert "did not answer the write test of orders" in finding.seen


def test_a_leader_that_is_silent(pki: Pki) -> None:
    finding = tried(pki)
    assert (finding.verdict, finding.code) == (Verdict.FAIL, Code.TCP_TIMEOUT)
    assert "did not answer a Produce request within 2 s" in finding.seen


@pytest.mark.parametrize("name", ["", "a b", "x" * 250, "a\x1b[2J", "caf\u00e9", "\ud800"])
def test_names_that_no_topic_has(pki: Pki, name: str) -> None:
    finding = tried(pki, topic=name)
    assert finding.code is Code.KAFKA_WRITE_FAILED
    assert finding.seen.isprintable()


def test_metadata_is_asked_for_without_making_the_topic(pki: Pki) -> None:
    seen: list[bytes] = []

    def watch(key: int, request: bytes) -> bytes | None:
        if key == METADATA:
            seen.append(request)
        return None

    tried(pki, watch, produced(0), fetched(records=stored()))
    [by_name] = [request for request in seen if b"orders" in request]
    assert request_version(by_name) == 4
    assert by_name.endswith(b"orders\0")


def request_version(request: bytes) -> int:
    return int.from_bytes(request[2:4], "big")
