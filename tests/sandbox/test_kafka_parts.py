"""The parts of the sandbox's Kafka, each by itself: options, the library, the mock's process, the first question."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import struct
import threading
from functools import partial
from pathlib import Path

import pytest
import trio

from mtlskit.cli.sandbox_values import kafka_options
from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, ConfigError, SandboxError
from mtlskit.sandbox import kafka_options as options_module
from mtlskit.sandbox import space as space_module
from mtlskit.sandbox.events import KafkaAbsent, KafkaLost
from mtlskit.sandbox.kafka_cluster import Cluster, run_cluster
from mtlskit.sandbox.kafka_mock import MockCluster, MockError, _knock, main
from mtlskit.sandbox.kafka_opening import Opening
from mtlskit.sandbox.kafka_options import KafkaOptions, Topic, find_library, library_for
from mtlskit.sandbox.space import Space, SpaceOptions, run_space
from mtlskit.telemetry import Event
from tests.support.space import running_space


def library() -> Path:
    found = find_library()
    assert found is not None
    return found


# --- options ---


def test_flags_are_read() -> None:
    assert kafka_options(None, (), "", None) == KafkaOptions()
    read = kafka_options("2", ("orders:6", "payments"), "p-1.", "127.0.0.1:9100")
    assert read == KafkaOptions(
        brokers=2,
        asked=True,
        topics=(Topic("orders", 6), Topic("payments", 3)),
        prefix="p-1.",
        listen=TcpAddress("127.0.0.1", 9100),
    )
    assert [address.port for address in read.addresses()] == [9100, 9101]
    assert [address.port for address in KafkaOptions().addresses()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("51", (), "", None), "--kafka-brokers 51 cannot be"),
        (("-1", (), "", None), "--kafka-brokers -1 cannot be"),
        (("many", (), "", None), "--kafka-brokers many: must be a whole number"),
        (("0", ("orders",), "", None), "--kafka-topic: there are no brokers to have topics"),
        ((None, ("orders", "orders:4"), "", None), "--kafka-topic orders stands there twice"),
        ((None, tuple(f"t{n}" for n in range(101)), "", None), "--kafka-topic: 101 topics are too many"),
        ((None, ("or ders",), "", None), "--kafka-topic: 'or ders' cannot be the name of a topic"),
        ((None, ("..",), "", None), "--kafka-topic: '..' cannot be the name of a topic"),
        ((None, ("orders:0",), "", None), "--kafka-topic orders: 0 partitions cannot be"),
        ((None, ("orders:x",), "", None), "--kafka-topic orders: x: must be a whole number"),
        ((None, (), "a b", None), "--kafka-prefix 'a b' cannot begin a topic's name"),
        ((None, (), "", "127.0.0.1:65534"), "--kafka-listen 127.0.0.1:65534: 3 brokers need as many ports"),
        ((None, (), "", "unix:/tmp/s"), "--kafka-listen unix:/tmp/s: the sandbox listens on TCP only"),
    ],
)
def test_flags_that_cannot_be_are_told(
    flags: tuple[str | None, tuple[str, ...], str, str | None], sentence: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        kafka_options(*flags)
    assert caught.value.sentence == sentence


# --- a machine without confluent-kafka ---


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "_PACKAGE", "no_such_package")


@pytest.mark.usefixtures("nothing_installed")
def test_brokers_that_were_asked_for_need_the_library() -> None:
    assert library_for(KafkaOptions()) is None
    assert library_for(KafkaOptions(brokers=0, asked=True)) is None
    with pytest.raises(SandboxError) as caught:
        library_for(KafkaOptions(asked=True))
    assert (caught.value.code, caught.value.hint) == (Code.SANDBOX_EXTRA_MISSING, "pip install 'mtlskit[sandbox]'")


@pytest.mark.usefixtures("nothing_installed")
def test_a_space_without_brokers_starts_all_the_same(tmp_path: Path) -> None:
    with running_space(SpaceOptions(tmp_path / "space", keep_data=False)) as live:
        assert "pip install 'mtlskit[sandbox]'" in live.events.wait_for(KafkaAbsent).sentence()
        assert live.space.kafka is None
        assert json.loads(live.space.file.read_text())["kafka"] == {"addon": live.space.kafka_addon}
        assert "KAFKA_URL" not in live.space.env_file.read_text().replace("# KAFKA_URL", "")
        live.call("GET", "/sandbox/kafka", status=404)
        found = live.call("GET", "/apps/sandbox/config-vars", status=200)
        assert found["KAFKA_URL"] == "kafka+ssl://127.0.0.1:9096"
        assert "KAFKA_PREFIX" not in found


@pytest.mark.parametrize("layout", ["pkg.libs/librdkafka-1.so.1", "pkg/.dylibs/librdkafka.dylib", "pkg/cimpl.x.so"])
def test_the_library_is_found_where_wheels_put_it(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in ("pkg/__init__.py", layout):
        (tmp_path / file).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / file).touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(options_module, "_PACKAGE", "pkg")
    assert find_library() == tmp_path / layout
    (tmp_path / layout).unlink()
    assert find_library() is None


# --- the mock ---


def test_the_program_answers_line_by_line() -> None:
    calls = [
        ["create_topic", "orders", 2, 3],
        ["create_topic", "orders", 2, 3],
        ["set_leader", "orders", 0, 2],
        ["set_leader", "orders", 9, 2],
        ["advertise", 1, "127.0.0.9", 9092],
        ["push_errors", 0, [19]],
        ["stop_broker", 3],
        ["start_broker", 3],
    ]
    answers = io.StringIO()
    status = main([str(library()), "3"], io.StringIO("".join(json.dumps(call) + "\n" for call in calls)), answers)
    first, *rest = map(json.loads, answers.getvalue().splitlines())
    assert (status, len(set(first["ports"]))) == (0, 3)
    assert ["error" in answer for answer in rest] == [False, True, False, True, False, False, False, False]


def test_a_library_that_is_none_is_told(tmp_path: Path) -> None:
    answers = io.StringIO()
    assert main([str(tmp_path / "none.so"), "1"], io.StringIO(), answers) == 1
    assert "none.so" in json.loads(answers.getvalue())["error"]
    with pytest.raises(MockError, match="rd_kafka"):
        MockCluster("libc.so.6", 1)


def test_a_call_that_is_not_done_at_once_knocks_at_the_brokers_that_are_up() -> None:
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as up, socket.socket() as down:
        down.bind(("127.0.0.1", 0))  # and nobody listens
        ports = [each.getsockname()[1] for each in (down, up)]
        knocking = threading.Thread(target=_knock, args=(ports, done))
        knocking.start()
        up.settimeout(60)
        try:
            for _ in range(2):
                up.accept()[0].close()
        finally:
            done.set()
            knocking.join()


# --- its process ---


async def test_a_library_that_cannot_be_used_matters_where_brokers_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space_module, "library_for", lambda options: tmp_path / "none.so")
    events: list[Event] = []
    async with trio.open_nursery() as nursery:
        space: Space = await nursery.start(
            partial(run_space, SpaceOptions(tmp_path / "space", keep_data=False), emit=events.append)
        )
        assert space.kafka is None
        nursery.cancel_scope.cancel()
    [absent] = [event for event in events if isinstance(event, KafkaAbsent)]
    assert "mock cluster cannot be used" in absent.sentence()
    with pytest.raises(SandboxError, match="mock cluster cannot be used"):
        await run_space(SpaceOptions(tmp_path / "space", kafka=KafkaOptions(asked=True), keep_data=False))


async def test_a_program_that_cannot_be_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(SandboxError, match=r"python: No such file"):
        await run_cluster(library(), 3, tmp_path / "kafka.log")


async def test_a_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match=r"mock cluster cannot be used"):
        await run_cluster(tmp_path / "none.so", 3, tmp_path / "kafka.log")


async def test_a_cluster_that_ends_by_itself_is_an_event(tmp_path: Path) -> None:
    events: list[Event] = []
    log = tmp_path / "kafka.log"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            cluster: Cluster = await nursery.start(partial(run_cluster, library(), 1, log, emit=events.append))
            os.kill(cluster._process.pid, signal.SIGKILL)
    assert events == [KafkaLost(status=-signal.SIGKILL, log=str(log))]
    with pytest.raises(SandboxError, match="its process has ended"):
        await cluster.start_broker(1)


async def test_a_cluster_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            cluster: Cluster = await nursery.start(run_cluster, library(), 2, tmp_path / "kafka.log")
            assert len(cluster.ports) == 2
            nursery.cancel_scope.cancel()
    assert cluster._process.returncode == 0


async def test_a_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    from mtlskit.errors import ListenError
    from mtlskit.net.listen import open_listeners

    with open_listeners(TcpAddress("127.0.0.1", 0)) as taken:
        [address] = taken.addresses
        assert isinstance(address, TcpAddress)
        kafka = KafkaOptions(listen=address, asked=True)
        with pytest.raises(ListenError):
            await run_space(SpaceOptions(tmp_path / "space", kafka=kafka))
    assert not (tmp_path / "space").exists()


# --- the first question ---

API_VERSIONS = 18


def request(version: int, *, key: int = API_VERSIONS, correlation: int = 7, body: bytes = b"\0\4kcat\0") -> bytes:
    head = struct.pack("!hhi", key, version, correlation)
    return struct.pack("!i", len(head + body)) + head + body


UNSUPPORTED = struct.pack("!iihihhh", 16, 7, 35, 1, API_VERSIONS, 0, 2)


@pytest.mark.parametrize("step", [1, 5, 1000])
def test_a_question_that_is_too_new_is_answered_and_the_next_one_passes(step: int) -> None:
    opening, answered, data = Opening(), b"", request(4) + request(3) + request(2) + b"more"
    for at in range(0, len(data), step):
        answered += opening.receive(data[at : at + step])
    assert answered == UNSUPPORTED * 2
    assert (opening.finished, opening.rest) == (True, request(2) + b"more")


@pytest.mark.parametrize(
    "first",
    [
        request(9, key=3),
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!ihhi", 2**31 - 1, API_VERSIONS, 4, 1),
        struct.pack("!ihhi", -1, API_VERSIONS, 4, 1),
    ],
)
def test_anything_else_passes_at_once(first: bytes) -> None:
    opening = Opening()
    assert opening.receive(first) == b""
    assert (opening.finished, opening.rest) == (True, first)
