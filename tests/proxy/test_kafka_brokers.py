"""The listeners of brokers: open before anybody hears of them, kept, and leading to the broker that they stand for."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest
import trio

from mtlskit.config.values import Endpoint, KafkaDoors, TcpAddress, TunnelConfig, TunnelKind
from mtlskit.proxy.events import (
    BrokerFailed,
    BrokerListening,
    BrokerMoved,
    BrokerNotListening,
    BrokerRecovered,
    BrokerWithheld,
    ClientRefused,
    ClusterUnseen,
    SessionBroken,
    SessionClosed,
    TunnelListening,
)
from mtlskit.proxy.kafka import brokers as brokers_module
from mtlskit.proxy.status import Started, status
from mtlskit.wire.kafka.advertised import NOWHERE
from tests.support.fake_kafka import FakeCluster, ask_metadata, fake_broker, framed, who_is_there
from tests.support.fake_upstream import PATIENCE, FakeUpstream, Papers, ServerSide, fake_upstream, nobody_listens
from tests.support.tunnels import RawClient, connected, running_proxy, tunnel

FREE = KafkaDoors()


def kafka(papers: Papers, *upstream: Endpoint, doors: KafkaDoors = FREE, **settings: Any) -> TunnelConfig:
    return tunnel(papers, *upstream, kind=TunnelKind.KAFKA, kafka=doors, **settings)


def free_port(host: str = "127.0.0.1") -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def one_broker(papers: Papers, node_id: int = 1001) -> AsyncIterator[tuple[FakeCluster, FakeUpstream]]:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, node_id) as upstream:
        cluster.brokers.append((node_id, upstream.endpoint.host, upstream.endpoint.port))
        yield cluster, upstream


@asynccontextmanager
async def broker_client(named: tuple[int, str, int]) -> AsyncIterator[RawClient]:
    """A client that goes where it was told."""
    async with connected(TcpAddress(named[1], named[2])) as client:
        yield client


async def eventually(look: Any) -> None:
    with trio.fail_after(PATIENCE):
        while not look():  # noqa: ASYNC110 - what is looked at tells nobody when it changes
            await trio.sleep(0.005)


async def test_each_broker_has_a_listener_of_its_own_and_clients_hear_of_no_other_address(papers: Papers) -> None:
    cluster = FakeCluster()
    async with (
        fake_broker(papers, cluster, 1) as one,
        fake_broker(papers, cluster, 2) as two,
        running_proxy(kafka(papers, one.endpoint)) as running,
    ):
        cluster.brokers = [(1, "localhost", one.endpoint.port), (2, "127.0.0.1", two.endpoint.port)]
        async with running.connect() as client:
            told = await ask_metadata(client)
        assert [node_id for node_id, _, _ in told] == [1, 2]
        ours = {one.endpoint.port, two.endpoint.port}
        assert all(host == "127.0.0.1" and port not in ours for _, host, port in told)
        for named in told:
            async with broker_client(named) as client:
                assert await who_is_there(client) == named[0]
                # Whoever asks there is told the same.
                assert await ask_metadata(client) == told


async def test_the_listeners_are_there_before_anybody_asks(papers: Papers) -> None:
    """After a restart, for clients that know where their brokers are and ask nobody."""
    async with one_broker(papers) as (_, upstream), running_proxy(kafka(papers, upstream.endpoint)) as running:
        listening = await running.events.wait_for(BrokerListening)
        assert (listening.broker, listening.upstream) == (1001, str(upstream.endpoint))
        host, _, port = listening.addresses[0].rpartition(":")
        async with connected(TcpAddress(host, int(port))) as client:
            assert await who_is_there(client) == 1001


async def test_the_ports_are_the_same_after_a_restart(papers: Papers) -> None:
    first = free_port() - 1001
    doors = KafkaDoors(first_port=first)
    async with one_broker(papers) as (_, upstream):
        seen = []
        for _ in range(2):
            async with running_proxy(kafka(papers, upstream.endpoint, doors=doors)) as running:
                assert running.events.of(TunnelListening)[0].brokers == f"broker N on port {first} + N"
                async with running.connect() as client:
                    seen += await ask_metadata(client)
        assert seen == [(1001, "127.0.0.1", first + 1001)] * 2


async def test_clients_are_told_the_name_that_is_configured(papers: Papers) -> None:
    async with (
        one_broker(papers) as (_, upstream),
        running_proxy(kafka(papers, upstream.endpoint, doors=KafkaDoors(advertised="kafka.example.com"))) as running,
        running.connect() as client,
    ):
        (told,) = await ask_metadata(client)
        assert told[:2] == (1001, "kafka.example.com")


async def test_clients_are_told_the_address_that_they_came_to(papers: Papers) -> None:
    async with one_broker(papers) as (_, upstream):
        config = kafka(papers, upstream.endpoint, listen=TcpAddress("localhost", 0))
        async with running_proxy(config) as running:
            told = []
            for address in running.proxy.tunnels[0].addresses:
                async with connected(address) as client:
                    told += await ask_metadata(client)
            assert [host for _, host, _ in told] == ["127.0.0.1", "::1"]
            for named in told:
                async with broker_client(named) as client:
                    assert await who_is_there(client) == 1001


async def test_a_broker_may_have_an_address_of_its_own_on_the_same_port(papers: Papers) -> None:
    doors = KafkaDoors(first_address=IPv4Address("127.0.3.0"))
    async with (
        one_broker(papers, 7) as (_, upstream),
        running_proxy(kafka(papers, upstream.endpoint, doors=doors)) as it,
    ):
        address = it.address()
        assert isinstance(address, TcpAddress)
        async with it.connect() as client:
            (told,) = await ask_metadata(client)
        assert told == (7, "127.0.3.7", address.port)
        async with broker_client(told) as client:
            assert await who_is_there(client) == 7


async def test_a_broker_that_moves_keeps_its_listener(papers: Papers) -> None:
    cluster = FakeCluster()
    async with (
        fake_broker(papers, cluster, 5) as before,
        fake_broker(papers, cluster, 5) as after,
        running_proxy(kafka(papers, before.endpoint)) as running,
    ):
        cluster.brokers = [(5, "127.0.0.1", before.endpoint.port)]
        async with running.connect() as client:
            first = await ask_metadata(client)
            cluster.brokers = [(5, "127.0.0.1", after.endpoint.port)]
            assert await ask_metadata(client) == first
        came = after.connections
        async with broker_client(first[0]) as client:
            assert await who_is_there(client) == 5
        assert after.connections == came + 1
        moved = await running.events.wait_for(BrokerMoved)
        assert (moved.before, moved.upstream) == (str(before.endpoint), str(after.endpoint))


async def test_a_broker_that_is_away_is_told_of_once_and_its_listener_stays(papers: Papers) -> None:
    cluster = FakeCluster()
    async with (
        fake_broker(papers, cluster, 1) as one,
        nobody_listens() as gone,
        running_proxy(kafka(papers, one.endpoint)) as running,
    ):
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port), (2, gone.host, gone.port)]
        async with running.connect() as client:
            _, away = await ask_metadata(client)
        for _ in range(5):
            async with broker_client(away) as client:
                assert await client.read_to_end() == b""
        await running.idle()
        assert [(event.broker, event.code) for event in running.events.of(BrokerFailed)] == [("2", "MTLS-NET-002")]
        (told,) = status(running.proxy, Started())["tunnels"]
        assert [broker["id"] for broker in told["brokers"]] == [1, 2]
        assert told["brokers"][0]["error"] is None
        assert told["brokers"][1]["error"]["code"] == "MTLS-NET-002"
        assert told["upstream_error"] is None
        cluster.brokers[1] = (2, "127.0.0.1", one.endpoint.port)
        async with running.connect() as client:
            assert (await ask_metadata(client))[1] == away
        async with broker_client(away) as client:
            await who_is_there(client)
        assert (await running.events.wait_for(BrokerRecovered)).broker == "2"


async def test_a_port_that_is_taken_costs_one_broker_until_it_is_free(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers_module, "_OPEN_AGAIN", 0.0)
    cluster = FakeCluster()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        doors = KafkaDoors(ports=((2, taken.getsockname()[1]),))
        async with (
            fake_broker(papers, cluster, 1) as one,
            running_proxy(kafka(papers, one.endpoint, doors=doors)) as running,
        ):
            cluster.brokers = [(1, "127.0.0.1", one.endpoint.port), (2, "127.0.0.1", one.endpoint.port)]
            async with running.connect() as client:
                for _ in range(3):
                    works, withheld = await ask_metadata(client)
                    assert withheld == (2, *NOWHERE)
                async with broker_client(works) as other:
                    assert await who_is_there(other) == 1
                told = await running.events.wait_for(BrokerNotListening)
                assert (told.broker, told.code) == (2, "MTLS-LSN-001")
                (tunnel_facts,) = status(running.proxy, Started())["tunnels"]
                assert tunnel_facts["brokers"][1]["addresses"] == []
                taken.close()
                assert (await ask_metadata(client))[1] == (2, "127.0.0.1", doors.ports[0][1])
        assert len(running.events.of(BrokerNotListening)) == 1


async def test_hundreds_of_brokers_and_a_small_range_of_ports(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 0) as one:
        cluster.brokers = [(node_id, "127.0.0.1", one.endpoint.port) for node_id in range(300)]
        first = _room_for(4)
        doors = KafkaDoors(first_port=first, last_port=first + 3)
        async with running_proxy(kafka(papers, one.endpoint, doors=doors)) as running:
            async with running.connect() as client:
                told = await ask_metadata(client)
                assert told[:4] == [(node_id, "127.0.0.1", first + node_id) for node_id in range(4)]
                assert {named[1:] for named in told[4:]} == {NOWHERE}
            async with broker_client(told[3]) as client:
                await who_is_there(client)
            await eventually(lambda: len(running.events.of(BrokerNotListening)) == 296)
            assert {event.code for event in running.events.of(BrokerNotListening)} == {"MTLS-KFK-011"}
            assert not running.events.of(BrokerWithheld)


def _room_for(count: int) -> int:
    """The first of some free ports in a row."""
    while True:
        first = free_port()
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first


async def test_no_more_listeners_than_we_can_bear(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers_module, "MOST_BROKERS", 3)
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 0) as one:
        cluster.brokers = [(node_id, "127.0.0.1", one.endpoint.port) for node_id in range(5)]
        async with running_proxy(kafka(papers, one.endpoint)) as running, running.connect() as client:
            told = await ask_metadata(client)
            assert [named[1:] == NOWHERE for named in told] == [False, False, False, True, True]


async def test_what_cannot_be_an_address_is_withheld_and_told_once(papers: Papers) -> None:
    cluster = FakeCluster()
    async with (
        fake_broker(papers, cluster, 1) as one,
        running_proxy(kafka(papers, one.endpoint)) as running,
        running.connect() as client,
    ):
        cluster.brokers = [
            (1, "127.0.0.1", one.endpoint.port),
            (1, "elsewhere.example.com", 9093),
            (2, "", 9093),
            (-1, "minus.example.com", 9093),
            (3, "with space", 9093),
            (4, "ünï", 9093),
            (5, "port.example.com", 0),
            (6, "\x1b[31m", 9093),
        ]
        for _ in range(2):
            told = await ask_metadata(client)
            assert told[0] == told[1]
            # A broker without a host stays without one; `brokers_of` leaves it out.
            assert [named[0] for named in told[2:]] == [3, 4, 5, 6]
            assert {named[1:] for named in told[2:]} == {NOWHERE}
        assert sorted(event.broker for event in running.events.of(BrokerWithheld)) == [-1, 1, 2]
        assert sorted(event.broker for event in running.events.of(BrokerNotListening)) == [3, 4, 5, 6]
        assert all(event.sentence().isprintable() for event in running.events.seen)


async def test_a_cluster_that_advertises_our_own_listener(papers: Papers) -> None:
    """A broker on this host whose advertised.listeners says the port that the tunnel has taken."""
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one, running_proxy(kafka(papers, one.endpoint)) as running:
        address = running.address()
        assert isinstance(address, TcpAddress)
        cluster.brokers = [(1, "localhost", address.port)]
        async with running.connect() as client:
            assert await ask_metadata(client) == [(1, *NOWHERE)]
        told = await running.events.wait_for(BrokerNotListening)
        assert "this tunnel's own listener" in told.reason


async def test_who_speaks_something_else_to_the_port_is_named(papers: Papers) -> None:
    async with one_broker(papers) as (_, upstream), running_proxy(kafka(papers, upstream.endpoint)) as running:
        for number, (said, code) in enumerate(
            [
                (b"GET / HTTP/1.1\r\n\r\n", "MTLS-KFK-002"),
                (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "MTLS-KFK-001"),
                (b"\xff" * 12, "MTLS-KFK-003"),
            ]
        ):
            async with running.connect() as client:
                await client.send(said)
                assert await client.read_to_end() == b""
            assert (await running.events.wait_for(ClientRefused, number + 1)).code == code
            assert (await running.events.wait_for(SessionClosed, number + 1)).ending == "refused"


async def test_an_upstream_that_is_no_broker_is_named(papers: Papers) -> None:
    async def web_server(server: ServerSide) -> None:
        await server.shake_hands()
        await server.read_exactly(1)
        await server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await server.until_closed()

    async with (
        fake_upstream(papers, web_server) as upstream,
        running_proxy(kafka(papers, upstream.endpoint)) as running,
    ):
        assert (await running.events.wait_for(ClusterUnseen)).code == "MTLS-KFK-008"
        async with running.connect() as client:
            await client.send(framed(b"\0\x12\0\0\0\0\0\1\xff\xff"))
            assert await client.read_to_end() == b""
        assert (await running.events.wait_for(SessionBroken)).code == "MTLS-KFK-008"


async def test_a_cluster_that_cannot_be_asked_is_told_once_and_asked_again(papers: Papers) -> None:
    async with nobody_listens() as nowhere, running_proxy(kafka(papers, nowhere)) as running:
        told = await running.events.wait_for(ClusterUnseen)
        assert told.code == "MTLS-NET-002"
        async with running.connect() as client:
            assert await client.read_to_end() == b""
        failed = await running.events.wait_for(BrokerFailed)
        assert (failed.broker, failed.code) == ("bootstrap", "MTLS-NET-002")
        (facts,) = status(running.proxy, Started())["tunnels"]
        assert (facts["brokers"], facts["upstream_error"]["code"]) == ([], "MTLS-NET-002")


async def test_a_stop_closes_every_listener_and_lets_the_sessions_finish(papers: Papers) -> None:
    async with one_broker(papers) as (_, upstream), running_proxy(kafka(papers, upstream.endpoint)) as running:
        async with running.connect() as client:
            (told,) = await ask_metadata(client)
        async with broker_client(told) as client:
            assert await who_is_there(client) == 1001
            running.proxy.stop()
            with pytest.raises(OSError, match=r"Connection refused|all attempts to connect"):
                await trio.open_tcp_stream(told[1], told[2])
            assert await who_is_there(client) == 1001
            # What is new now has no listener, and what is known keeps its address.
            assert await ask_metadata(client) == [told]


async def test_a_reload_asks_the_cluster_again(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtlskit.proxy.kafka.look._AGAIN", 0.0)
    async with one_broker(papers) as (cluster, upstream), running_proxy(kafka(papers, upstream.endpoint)) as running:
        await running.events.wait_for(BrokerListening)
        cluster.brokers.append((1002, "127.0.0.1", upstream.endpoint.port))
        asked = cluster.asked
        await running.proxy.reload()
        assert (await running.events.wait_for(BrokerListening, 2)).broker == 1002
        assert cluster.asked == asked + 1
