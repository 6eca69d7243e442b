"""Every (api key, version) that names brokers: written by kio, rewritten by us, read by kio. Addresses change; nothing
else does, down to the last byte, and with tagged fields that neither of us knows."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kio.index import load_response_schema
from kio.schema.index import api_key_map, schema_name_map

from mtlskit.wire.kafka.advertised import NOWHERE
from mtlskit.wire.kafka.session import KafkaSession
from mtlskit.wire.kafka.tables import NEWEST, TABLES, WITHHELD
from tests.support import kafka_shapes as shapes

SEEDS = st.integers(0, 2**32)
THOROUGH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def ours(node_id: int, _host: str, _port: int) -> tuple[str, int]:
    """An address of ours: long ones too, whose length needs another byte than theirs."""
    return f"{'o' * (node_id % 300)}.ours", node_id % 60_000


def expected(node_id: int, host: str, port: int) -> tuple[str, int]:
    if not host:
        return host, port
    return ours(node_id, host, port) if node_id >= 0 else NOWHERE


def passed(api_key: int, version: int, payload: bytes, rng: shapes.Rng) -> bytes:
    """What the client gets, behind the frame's size."""
    session = KafkaSession(ours)
    session.receive_from_client(shapes.request(api_key, version))
    got = b"".join(
        bytes(piece)
        for part in shapes.cuts(shapes.frame(payload), rng)
        for piece in session.receive_from_server(part).to_client
    )
    assert session.quiet
    assert int.from_bytes(got[:4]) == len(got) - 4
    return got[4:]


@pytest.mark.parametrize(("api_key", "version"), shapes.ADDRESSED)
@THOROUGH
@given(seed=SEEDS)
def test_addresses_change_and_nothing_else(api_key: int, version: int, seed: int) -> None:
    rng = shapes.rng_of(seed)
    kind = shapes.of(api_key, version)
    entity = shapes.random_shape(kind, rng)
    wanted = shapes.moved(entity, expected)
    got = passed(api_key, version, shapes.body(entity), rng)
    assert shapes.read(kind, got) == shapes.read(kind, shapes.body(wanted))
    assert got == shapes.body(wanted)


@pytest.mark.parametrize(("api_key", "version"), shapes.ADDRESSED)
@THOROUGH
@given(seed=SEEDS)
def test_unknown_tagged_fields_are_kept(api_key: int, version: int, seed: int) -> None:
    rng = shapes.rng_of(seed)
    entity = shapes.random_shape(shapes.of(api_key, version), rng)
    wanted = shapes.written(shapes.moved(entity, expected), shapes.rng_of(seed))
    assert passed(api_key, version, shapes.written(entity, shapes.rng_of(seed)), rng) == wanted


@pytest.mark.parametrize(("api_key", "version"), shapes.ADDRESSED)
@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_our_second_writer_agrees_with_kio(api_key: int, version: int, seed: int) -> None:
    entity = shapes.random_shape(shapes.of(api_key, version), shapes.rng_of(seed))
    assert shapes.written(entity, None) == shapes.body(entity)


@pytest.mark.parametrize("version", range(10))
@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_produce_responses_without_addresses_pass(version: int, seed: int) -> None:
    rng = shapes.rng_of(seed)
    payload = (7).to_bytes(4) + (
        shapes.body(shapes.random_shape(shapes.of(0, version), rng))[4:] if version >= 3 else rng.randbytes(99)
    )
    assert passed(0, version, payload, rng) == payload


def _names_an_address(kind: Any) -> bool:
    module = sys.modules[kind.__module__]
    return any({"host", "port"} <= getattr(item, "__dataclass_fields__", {}).keys() for item in vars(module).values())


def test_no_other_response_that_a_client_may_get_names_an_address() -> None:
    """Of all schemas that kio has, up to the newest version that we let through."""
    named = {
        (api_key, version)
        for api_key, name in api_key_map.items()
        for version in schema_name_map[name]
        if version <= NEWEST.get(api_key, version) and api_key not in WITHHELD
        if _names_an_address(load_response_schema(api_key, version))
    }
    inside_the_quorum = {52, 53, 54, 55, 59, 82}  # Vote … UpdateRaftVoter: controllers among themselves, and tools
    applications = {88, 89}  # StreamsGroup…: where an application's own processes are, not brokers
    assert {pair for pair in named if pair[0] not in inside_the_quorum | applications} == set(shapes.ADDRESSED)


@pytest.mark.parametrize("api_key", sorted(TABLES))
def test_the_tables_know_all_versions_that_kio_knows(api_key: int) -> None:
    versions = schema_name_map[api_key_map[api_key]]
    assert max(versions) == NEWEST[api_key]
    flexible = [version for version in versions if load_response_schema(api_key, version).__flexible__]
    assert min(flexible) == TABLES[api_key].flexible


def test_produce_is_never_capped_below_what_transactions_need() -> None:
    assert NEWEST[0] >= 12


@pytest.mark.parametrize(("api_key", "version"), shapes.ADDRESSED)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=SEEDS)
def test_only_metadata_lists_the_brokers_and_the_owner_hears_of_it(api_key: int, version: int, seed: int) -> None:
    """Once, behind the last `resolve`. The others name whoever leads or coordinates, and leave the rest out."""
    rng = shapes.rng_of(seed)
    entity = shapes.random_shape(shapes.of(api_key, version), rng)
    heard: list[Any] = []

    def resolve(node_id: int, host: str, port: int) -> tuple[str, int]:
        heard.append(node_id)
        return ours(node_id, host, port)

    session = KafkaSession(resolve, listed=lambda nodes: heard.append(set(nodes)))
    session.receive_from_client(shapes.request(api_key, version))
    for part in shapes.cuts(shapes.frame(shapes.body(entity)), rng):
        session.receive_from_server(part)
    lists = [each for each in heard if isinstance(each, set)]
    if api_key == 3:
        assert heard[-1:] == lists == [{each.node_id for each in entity.brokers if each.host and each.node_id >= 0}]
    else:
        assert lists == []
