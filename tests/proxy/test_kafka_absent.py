"""Brokers that the cluster names no more: the status marks them until they come back, and their listeners stay."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from mtlskit.config.values import KafkaDoors, TunnelKind
from mtlskit.proxy.status import Started, status
from tests.proxy.test_kafka_brokers import eventually, free_port
from tests.support.fake_kafka import FakeCluster, ask_metadata, fake_broker
from tests.support.fake_upstream import Papers
from tests.support.tunnels import running_proxy, tunnel


def named(running: Any) -> dict[int, bool]:
    (facts,) = status(running.proxy, Started())["tunnels"]
    return {broker["id"]: broker["named"] for broker in facts["brokers"]}


async def test_whoever_is_missing_in_what_a_client_is_told_is_marked_until_it_is_back(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        both = [(1, "127.0.0.1", one.endpoint.port), (2, "127.0.0.1", one.endpoint.port)]
        cluster.brokers = list(both)
        config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, kafka=KafkaDoors())
        async with running_proxy(config) as running, running.connect() as client:
            before = await ask_metadata(client)
            assert named(running) == {1: True, 2: True}
            cluster.brokers = both[:1]
            await ask_metadata(client)
            assert named(running) == {1: True, 2: False}
            cluster.brokers = []  # says nothing: a broker that is only starting knows nobody
            await ask_metadata(client)
            assert named(running) == {1: True, 2: False}
            cluster.brokers = both
            assert await ask_metadata(client) == before
            assert named(running) == {1: True, 2: True}


async def test_one_response_that_names_it_is_enough_to_unmark_it(papers: Papers) -> None:
    """A coordinator, say: such a response names one broker, and says nothing of the others."""
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        cluster.brokers = [(node_id, "127.0.0.1", one.endpoint.port) for node_id in (1, 2, 3)]
        config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, kafka=KafkaDoors())
        async with running_proxy(config) as running, running.connect() as client:
            await ask_metadata(client)
            del cluster.brokers[1:]
            await ask_metadata(client)
            assert named(running) == {1: True, 2: False, 3: False}
            brokers = running.proxy.tunnels[0].brokers
            assert brokers is not None
            brokers.resolve("127.0.0.1", 3, "127.0.0.1", one.endpoint.port)
            assert named(running) == {1: True, 2: False, 3: True}


async def test_a_look_of_our_own_marks_and_unmarks_too(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlskit.proxy.kafka.look._AGAIN", 0.0)
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port), (2, "127.0.0.1", one.endpoint.port)]
        config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, kafka=KafkaDoors())
        async with running_proxy(config) as running:
            await eventually(lambda: named(running) == {1: True, 2: True})
            for gone, left in (({1: True, 2: False}, cluster.brokers[:1]), ({1: True, 2: True}, cluster.brokers[:])):
                cluster.brokers = left
                brokers = running.proxy.tunnels[0].brokers
                assert brokers is not None
                brokers.ask_again()
                await eventually(lambda gone=gone: named(running) == gone)


async def test_a_node_without_a_listener_is_marked_as_well(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        taken = trio.socket.socket()
        with taken:
            await taken.bind(("127.0.0.1", 0))
            taken.listen()
            doors = KafkaDoors(ports=((1, free_port()), (2, taken.getsockname()[1])))
            cluster.brokers = [(1, "127.0.0.1", one.endpoint.port), (2, "127.0.0.1", one.endpoint.port)]
            config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, kafka=doors)
            async with running_proxy(config) as running, running.connect() as client:
                await ask_metadata(client)
                assert named(running) == {1: True, 2: True}
                del cluster.brokers[1]
                await ask_metadata(client)
                assert named(running) == {1: True, 2: False}
