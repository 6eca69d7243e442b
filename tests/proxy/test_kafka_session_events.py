"""Whoever reads the log of a Kafka tunnel sees which broker each client was brought to, by the cluster's own names."""

from __future__ import annotations

import dataclasses

from mtlskit.config.values import KafkaDoors, TcpAddress, TunnelKind
from mtlskit.proxy.events import SessionClosed, SessionCut, SessionOpened
from tests.support.fake_kafka import FakeCluster, ask_metadata, fake_broker, who_is_there
from tests.support.fake_upstream import Papers, ServerSide, fake_upstream
from tests.support.tunnels import connected, running_proxy, tunnel


async def test_the_broker_is_named_where_a_session_begins_and_ends(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1001) as one:
        cluster.brokers = [(1001, "localhost", one.endpoint.port)]
        config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, kafka=KafkaDoors())
        async with running_proxy(config) as running:
            async with running.connect() as client:
                ((_, host, port),) = await ask_metadata(client)
            first = await running.events.wait_for(SessionClosed)
            async with connected(TcpAddress(host, port)) as client:
                await who_is_there(client)
            second = await running.events.wait_for(SessionClosed, 2)
        assert (first.broker, first.broker_address, first.upstream) == ("bootstrap", "", str(one.endpoint))
        assert f" to the bootstrap address at {one.endpoint} ended" in first.sentence()
        where = f"localhost:{one.endpoint.port}"
        assert (second.broker, second.broker_address) == ("1001", where)
        assert second.upstream.startswith(f"{where} (")
        assert f" to broker 1001 at {second.upstream} ended" in second.sentence()
        opened = running.events.of(SessionOpened)
        assert [(each.broker, each.broker_address) for each in opened] == [("bootstrap", ""), ("1001", where)]
        assert f"connected to broker 1001 at {second.upstream} over TLS" in opened[1].sentence()


async def test_a_broker_that_moves_is_named_as_it_was_when_the_session_began(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one, fake_broker(papers, cluster, 1) as other:
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port)]
        config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, kafka=KafkaDoors())
        async with running_proxy(config) as running, running.connect() as asking:
            ((_, host, port),) = await ask_metadata(asking)
            async with connected(TcpAddress(host, port)) as client:
                await who_is_there(client)
                cluster.brokers = [(1, "127.0.0.1", other.endpoint.port)]
                await ask_metadata(asking)
            assert (await running.events.wait_for(SessionClosed)).broker_address == str(one.endpoint)
            async with connected(TcpAddress(host, port)) as client:
                await who_is_there(client)
            assert (await running.events.wait_for(SessionClosed, 2)).broker_address == str(other.endpoint)


async def test_a_session_that_is_cut_off_names_its_broker_too(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 7) as one:
        cluster.brokers = [(7, "127.0.0.1", one.endpoint.port)]
        config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, kafka=KafkaDoors())
        config = dataclasses.replace(config, timeouts=dataclasses.replace(config.timeouts, drain=0.0))
        async with running_proxy(config) as running:
            async with running.connect() as client:
                ((_, host, port),) = await ask_metadata(client)
            await running.events.wait_for(SessionClosed)
            async with connected(TcpAddress(host, port)) as client:
                await who_is_there(client)
                running.proxy.stop()
                cut = await running.events.wait_for(SessionCut)
        assert (cut.broker, cut.broker_address) == ("7", str(one.endpoint))


async def test_where_there_are_no_brokers_none_is_named(papers: Papers) -> None:
    async def script(server: ServerSide) -> None:
        await server.shake_hands()
        await server.read_exactly(1)

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, kind=TunnelKind.TCP)) as running,
    ):
        async with running.connect() as client:
            await client.send(b"x")
        closed = await running.events.wait_for(SessionClosed)
        assert (closed.broker, closed.broker_address) == ("", "")
        assert f" to {upstream.endpoint} ended" in closed.sentence()
