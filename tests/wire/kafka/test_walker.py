"""What the walker says of responses that are damaged, or that name something else than brokers, or one broker twice."""

from __future__ import annotations

import struct

import pytest

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.kafka.advertised import NOWHERE, Address, AddressWithheld, Advertised, unheard
from mtlskit.wire.kafka.walker import rewrite
from tests.support import kafka_shapes as shapes


def endpoint(node_id: int, host: str, port: int) -> bytes:
    return struct.pack("!ih", node_id, len(host)) + host.encode() + struct.pack("!i", port)


def metadata(*endpoints: tuple[int, str, int]) -> bytes:
    """A Metadata response in version 0, without topics."""
    return struct.pack("!ii", 7, len(endpoints)) + b"".join(endpoint(*item) for item in endpoints) + bytes(4)


class Owner:
    """Gives each node a port, except those that it has none for, and keeps what it was told."""

    def __init__(self, *without: int) -> None:
        self.asked: list[tuple[int, str, int]] = []
        self.heard: list[AddressWithheld] = []
        self.without = without

    def resolve(self, node_id: int, host: str, port: int) -> Address | None:
        self.asked.append((node_id, host, port))
        return None if node_id in self.without else ("localhost", 9000 + node_id)

    def walk(self, payload: bytes, api_key: int = 3, version: int = 0) -> bytes:
        pieces = rewrite(
            memoryview(payload), 0, len(payload), api_key, version, Advertised(self.resolve, self.heard.append)
        )
        return b"".join(pieces) if pieces else payload


def test_a_node_is_asked_for_with_its_present_address() -> None:
    owner = Owner()
    assert owner.walk(metadata((1, "a", 1), (2, "b", 2))) == metadata((1, "localhost", 9001), (2, "localhost", 9002))
    assert owner.asked == [(1, "a", 1), (2, "b", 2)]
    assert owner.heard == []


def test_nobody_is_left_alone() -> None:
    """No coordinator, as FindCoordinator says it."""
    owner = Owner()
    assert owner.walk(metadata((-1, "", -1))) == metadata((-1, "", -1))
    assert (owner.asked, owner.heard) == ([], [])


def test_a_node_without_a_host_is_left_alone_and_told() -> None:
    owner = Owner()
    assert owner.walk(metadata((4, "", 9092))) == metadata((4, "", 9092))
    assert (owner.asked, owner.heard) == ([], [AddressWithheld(4, "", 9092, "the broker advertises no host")])


def test_an_address_without_a_node_id_is_withheld() -> None:
    owner = Owner()
    assert owner.walk(metadata((-1, "leak", 9092))) == metadata((-1, *NOWHERE))
    assert owner.heard == [AddressWithheld(-1, "leak", 9092, "a broker's node id is not negative")]


def test_a_node_that_gets_no_listener_is_withheld_and_the_others_work() -> None:
    owner = Owner(2)
    assert owner.walk(metadata((1, "a", 1), (2, "b", 2), (2, "b", 2), (3, "c", 3))) == metadata(
        (1, "localhost", 9001), (2, *NOWHERE), (2, *NOWHERE), (3, "localhost", 9003)
    )
    assert owner.heard == [AddressWithheld(2, "b", 2, "there is no listener for it")]


def test_a_node_that_is_named_twice_gets_one_address() -> None:
    owner = Owner()
    assert owner.walk(metadata((1, "a", 1), (1, "b", 2))) == metadata((1, "localhost", 9001), (1, "localhost", 9001))
    assert owner.asked == [(1, "a", 1)]
    assert owner.heard == [AddressWithheld(1, "b", 2, "the node was named before, at a:1")]


def test_nobody_has_to_listen() -> None:
    assert unheard(AddressWithheld(1, "a", 2, "so")) is None  # type: ignore[func-returns-value] # it returns nothing


def test_controllers_are_refused() -> None:
    """DescribeCluster with EndpointType 2 (KIP-919): their node ids may be those of brokers elsewhere."""
    head = struct.pack("!ibih", 7, 0, 0, 0) + b"\0\2\2c\0\0\0\1"
    named = head + b"\2" + struct.pack("!i", 1) + b"\5ctrl" + struct.pack("!i", 9093) + b"\0\0" + bytes(5)
    with pytest.raises(UpstreamProtocolError, match="controllers, such as ctrl:9093") as caught:
        Owner().walk(named, 60, 1)
    assert caught.value.code is Code.KAFKA_CONTROLLERS
    none = head + b"\1" + bytes(5)
    assert Owner().walk(none, 60, 1) == none


@pytest.mark.parametrize(("api_key", "version"), shapes.ADDRESSED)
def test_a_response_that_is_cut_short_is_an_error_or_was_not_needed(api_key: int, version: int) -> None:
    """At each byte: nothing that was not read is taken for granted."""
    rng = shapes.rng_of(api_key * 100 + version)
    shape = shapes.random_shape(shapes.of(api_key, version), rng)
    whole = shapes.written(shape, rng)[:1500]
    rewritten = 0
    for size in range(len(whole)):
        try:
            Owner().walk(whole[:size], api_key, version)
        except UpstreamProtocolError as error:
            assert f"(api key {api_key}, version {version}) cannot be read at byte " in error.sentence  # noqa: PT017 - either is right
            assert rewritten == 0
        else:
            rewritten += 1


def test_a_tagged_field_that_is_longer_than_the_response() -> None:
    payload = struct.pack("!ibbib", 7, 0, 1, 0, 1) + b"\0\x7f"
    with pytest.raises(UpstreamProtocolError, match="at byte 13: 127 bytes should follow, and 0 are there"):
        Owner().walk(payload, 0, 10)


def test_endpoints_that_are_longer_than_their_tagged_field() -> None:
    payload = struct.pack("!ibbib", 7, 0, 1, 0, 1) + b"\0\x05\2\0\0\0\1" + b"\2h" + bytes(9)
    with pytest.raises(UpstreamProtocolError, match="at byte 18: a varint is cut off"):
        Owner().walk(payload, 0, 10)
