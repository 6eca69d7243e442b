"""What the cluster refuses is told, of every version, whatever else the response says; and nothing else changes."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kio.schema.errors import ErrorCode

from mtlskit.wire.kafka import denials
from mtlskit.wire.kafka.denials import Denied, look
from mtlskit.wire.kafka.session import KafkaSession
from tests.support import kafka_shapes as shapes
from tests.support.mutation import mutated

SEEDS = st.integers(0, 2**32)
THOROUGH = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LOOKED_AT = [pair for pair in shapes.ADDRESSED if pair[0] in (3, 10)]
REFUSED_TOPICS = {29, 3}
REFUSED_KEYS = {30: "group", 53: "transactional id"}
ERRORS = [ErrorCode(code) for code in (0, 3, 5, 16, 29, 30, 53)]


def ours(node_id: int, _host: str, _port: int) -> tuple[str, int]:
    return "ours", node_id % 60_000


def with_errors(entity: Any, rng: shapes.Rng) -> Any:
    """The same with errors of which more than a few are denials."""
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(entity):
        value = getattr(entity, field.name)
        if field.name == "error_code":
            changes[field.name] = rng.choice(ERRORS)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            changes[field.name] = tuple(with_errors(item, rng) for item in value)
    return dataclasses.replace(entity, **changes)


def expected(api_key: int, version: int, entity: Any, key: str) -> list[Denied]:
    if api_key == 3:
        named = [("topic", topic.name or "", topic.error_code.value) for topic in entity.topics]
    else:
        asked = [(one.key, one.error_code.value) for one in (entity.coordinators if version >= 4 else ())]
        named = [
            (REFUSED_KEYS.get(error, ""), name, error)
            for name, error in asked or ([(key, entity.error_code.value)] if version < 4 else [])
        ]
    told = [item for item in named if item[2] in (REFUSED_TOPICS if api_key == 3 else REFUSED_KEYS)]
    return [Denied(kind, name[:249], error) for kind, name, error in told[:16]]  # type: ignore[arg-type] # a str to mypy


def asking(version: int, key: str, *, client_id: str | None = "me", correlation_id: int = 7) -> bytes:
    """A FindCoordinator request."""
    head = struct.pack("!hhi", 10, version, correlation_id)
    head += b"\xff\xff" if client_id is None else struct.pack("!h", len(client_id)) + client_id.encode()
    name = key.encode()
    if version < 3:
        return shapes.frame(head + struct.pack("!h", len(name)) + name + b"\0" * (version > 0))
    return shapes.frame(head + b"\1\x05\2ab" + bytes((len(name) + 1,)) + name + b"\0\0")


@pytest.fixture(autouse=True, scope="module")
def patience() -> Iterator[None]:
    """More is looked at than in use, so that every shape is, to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(denials, "MAX_LOOK", 4 * 1024 * 1024)  # a rare seed makes more than 256 KiB
        yield


def passed(session: KafkaSession, data: bytes, rng: shapes.Rng) -> bytes:
    return b"".join(
        bytes(piece) for part in shapes.cuts(data, rng) for piece in session.receive_from_server(part).to_client
    )


@pytest.mark.parametrize(("api_key", "version"), LOOKED_AT)
@pytest.mark.parametrize("tags", [False, True])
@THOROUGH
@given(seed=SEEDS)
def test_each_denial_is_told(api_key: int, version: int, tags: bool, seed: int) -> None:
    rng = shapes.rng_of(seed)
    entity = with_errors(shapes.random_shape(shapes.of(api_key, version), rng), rng)
    payload = shapes.written(entity, rng if tags else None)
    heard: list[Denied] = []
    look(payload, 0, len(payload), api_key, version, heard.append, "mine")
    assert len(payload) < denials.MAX_LOOK
    assert heard == expected(api_key, version, entity, "mine")


@pytest.mark.parametrize(("api_key", "version"), LOOKED_AT)
@THOROUGH
@given(seed=SEEDS)
def test_a_session_tells_and_passes_the_same(api_key: int, version: int, seed: int) -> None:
    rng = shapes.rng_of(seed)
    entity = with_errors(shapes.random_shape(shapes.of(api_key, version), rng), rng)
    request = asking(version, "mine") if api_key == 10 and version < 4 else shapes.request(api_key, version)
    heard: list[Denied] = []
    got = []
    for session in (KafkaSession(ours), KafkaSession(ours, denied=heard.append)):
        for part in shapes.cuts(request, rng):
            session.receive_from_client(part)
        got.append(passed(session, shapes.frame(shapes.body(entity)), rng))
        assert session.quiet
    assert got[0] == got[1]
    assert heard == expected(api_key, version, entity, "mine")


@pytest.mark.parametrize(("api_key", "version"), LOOKED_AT)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_nothing_that_stands_there_is_an_error(api_key: int, version: int, data: st.DataObject) -> None:
    rng = shapes.rng_of(data.draw(SEEDS))
    whole = shapes.written(with_errors(shapes.random_shape(shapes.of(api_key, version), rng), rng), rng)
    payload = data.draw(st.sampled_from([whole[: rng.randrange(len(whole))]]) | mutated([whole[:400]]) | st.binary())
    heard: list[Denied] = []
    look(payload, 0, len(payload), api_key, version, heard.append)
    assert len(heard) <= denials.MAX_DENIED
    assert all(len(one.name) <= denials.MAX_NAME for one in heard)


@pytest.mark.parametrize("version", [1, 9, 12])
def test_a_malformed_tail_ends_no_connection(version: int) -> None:
    """Topics that were not looked at before are not what a response is judged by."""
    kind = shapes.of(3, version)
    entity = shapes.random_shape(kind, shapes.rng_of(3))
    whole = shapes.body(dataclasses.replace(entity, topics=()))
    payload = whole[: -4 if version < 9 else -1] + b"\x7f" * 40
    got = []
    heard: list[Denied] = []
    for session in (KafkaSession(ours), KafkaSession(ours, denied=heard.append)):
        session.receive_from_client(shapes.request(3, version))
        got.append(passed(session, shapes.frame(payload), shapes.rng_of(0)))
    assert got[0] == got[1] != b""
    assert heard == []


def refused_topics(count: int, name: str) -> bytes:
    """Metadata version 1, without brokers."""
    topic = struct.pack("!hh", 29, len(name)) + name.encode() + bytes(5)
    return struct.pack("!iiii", 7, 0, -1, count) + topic * count


def test_names_are_cut_and_counted() -> None:
    heard: list[Denied] = []
    payload = refused_topics(20, "n" * 300)
    look(payload, 0, len(payload), 3, 1, heard.append)
    assert heard == [Denied("topic", "n" * 249, 29)] * 16


def test_no_more_is_looked_at_than_will_do() -> None:
    heard: list[Denied] = []
    allowed = b"\0\0" + refused_topics(1, "n" * 30_000)[18:]
    many = denials.MAX_LOOK // len(allowed) + 1
    payload = refused_topics(many + 2, "")[:16] + allowed * many + refused_topics(2, "n")[16:]
    assert len(payload) > denials.MAX_LOOK
    look(payload, 0, len(payload), 3, 1, heard.append)
    assert heard == []
    look(payload[: 16 + len(allowed)] + refused_topics(1, "n")[16:], 0, 16 + len(allowed) + 10, 3, 1, heard.append)
    assert heard == [Denied("topic", "n", 29)]


def unanswered(session: KafkaSession, version: int, correlation_id: int) -> None:
    """FindCoordinator says that the group is not for this client."""
    head = struct.pack("!i", correlation_id) + (b"\0" if version >= 3 else b"") + bytes(4 * (version > 0))
    message = b"" if version == 0 else b"\0" if version >= 3 else b"\xff\xff"
    nobody = struct.pack("!i", -1) + (b"\1" if version >= 3 else b"\0\0") + struct.pack("!i", -1)
    payload = head + struct.pack("!h", 30) + message + nobody + (b"\0" if version >= 3 else b"")
    session.receive_from_server(shapes.frame(payload))


@pytest.mark.parametrize("version", range(4))
@pytest.mark.parametrize("client_id", [None, "", "me", "c" * 200])
def test_a_group_is_read_from_the_request_a_byte_at_a_time(version: int, client_id: str | None) -> None:
    heard: list[Denied] = []
    session = KafkaSession(ours, denied=heard.append)
    request = asking(version, "my-group", client_id=client_id)
    sent = b"".join(
        bytes(piece)
        for at in range(len(request))
        for piece in session.receive_from_client(request[at : at + 1]).to_server
    )
    assert sent == request
    unanswered(session, version, 7)
    assert heard == [Denied("group", "my-group", 30)]


@pytest.mark.parametrize(
    "request_frame",
    [
        asking(1, "g", client_id="c" * 1100),  # too long to be held
        shapes.request(10, 1),  # no group in it
        shapes.frame(struct.pack("!hhih", 10, 1, 7, 0) + b"\0\2\xff\xff"),  # not UTF-8
    ],
)
def test_a_group_that_cannot_be_read_has_no_name(request_frame: bytes) -> None:
    heard: list[Denied] = []
    session = KafkaSession(ours, denied=heard.append)
    assert b"".join(session.receive_from_client(request_frame).to_server) == request_frame
    unanswered(session, 1, 7)
    assert heard == [Denied("group", "", 30)]


def test_names_are_kept_of_a_few_requests_only() -> None:
    heard: list[Denied] = []
    session = KafkaSession(ours, denied=heard.append)
    for at in range(denials.MAX_KEYS + 1):
        session.receive_from_client(asking(2, f"g{at}", correlation_id=at))
    for at in range(denials.MAX_KEYS + 1):
        unanswered(session, 2, at)
    assert [one.name for one in heard] == [*(f"g{at}" for at in range(denials.MAX_KEYS)), ""]
