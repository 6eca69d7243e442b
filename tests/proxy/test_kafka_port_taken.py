"""A broker's port that is taken: by a listener of this very proxy, which is named, or by somebody else's program."""

from __future__ import annotations

import socket

import pytest

from mtlskit.config.values import Endpoint, KafkaDoors, TcpAddress, TunnelConfig, TunnelKind, UnixAddress
from mtlskit.proxy.events import BrokerNotListening
from mtlskit.proxy.kafka.doors import collides
from tests.proxy.test_kafka_brokers import free_port
from tests.support.fake_kafka import FakeCluster, ask_metadata, fake_broker
from tests.support.fake_upstream import Papers
from tests.support.tunnels import running_proxy, tunnel


def kafka(papers: Papers, upstream: Endpoint, port: int, *, name: str = "events") -> TunnelConfig:
    """Broker 1 is to be found on `port`."""
    doors = KafkaDoors(ports=((1, port),))
    return tunnel(papers, upstream, kind=TunnelKind.KAFKA, kafka=doors, name=name)


async def test_another_tunnel_that_has_it_is_named(papers: Papers) -> None:
    cluster = FakeCluster()
    port = free_port()
    async with fake_broker(papers, cluster, 1) as one:
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port)]
        other = tunnel(papers, one.endpoint, name="sales", listen=TcpAddress("127.0.0.1", port))
        async with running_proxy(other, kafka(papers, one.endpoint, port)) as running:
            told = await running.events.wait_for(BrokerNotListening)
    assert (told.tunnel, told.broker, told.code) == ("events", 1, "MTLS-LSN-001")
    assert told.reason == f"127.0.0.1:{port} is already in use by tunnel sales of this very proxy"
    assert told.hint.startswith("give the broker another port: brokers = { 1 = PORT } in [tunnel.events]")


async def test_a_broker_of_another_tunnel_that_has_it_is_named(papers: Papers) -> None:
    cluster = FakeCluster()
    port = free_port()
    async with fake_broker(papers, cluster, 1) as one:
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port)]
        both = kafka(papers, one.endpoint, port, name="a"), kafka(papers, one.endpoint, port, name="b")
        async with running_proxy(*both) as running:
            told = await running.events.wait_for(BrokerNotListening)
            holder = "b" if told.tunnel == "a" else "a"
            assert told.reason.endswith(f" in use by broker 1 of tunnel {holder} of this very proxy")


async def test_somebody_elses_program_is_to_be_looked_for(papers: Papers) -> None:
    cluster = FakeCluster()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with fake_broker(papers, cluster, 1) as one:
            cluster.brokers = [(1, "127.0.0.1", one.endpoint.port)]
            async with running_proxy(kafka(papers, one.endpoint, port)) as running, running.connect() as client:
                await ask_metadata(client)
                told = await running.events.wait_for(BrokerNotListening)
    assert told.reason == f"127.0.0.1:{port} is already in use"
    assert f"see who has it with `ss -ltnp 'sport = :{port}'`" in told.hint


@pytest.mark.parametrize(
    ("wanted", "there", "taken"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.1", "0.0.0.0", True),
        ("0.0.0.0", "127.0.0.2", True),
        ("localhost", "::1", True),
        ("localhost", "127.0.0.2", False),
    ],
)
def test_who_stands_in_whose_way(wanted: str, there: str, *, taken: bool) -> None:
    assert collides(TcpAddress(wanted, 9), [TcpAddress(there, 9)]) is taken
    assert not collides(TcpAddress(wanted, 9), [TcpAddress(there, 10)])


def test_a_unix_socket_stands_in_nobodys_way(papers: Papers) -> None:
    assert not collides(TcpAddress("127.0.0.1", 9), [UnixAddress(papers.identity.cert)])
