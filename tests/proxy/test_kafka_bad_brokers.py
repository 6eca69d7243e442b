"""A cluster that is broken or means harm: floods of nodes, addresses that lead back to us, refusals for ever."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.config.values import Endpoint, KafkaDoors, TcpAddress, TunnelConfig, TunnelKind, Verify, VerifyMode
from mtlskit.errors import Code, ListenError, UpstreamLost
from mtlskit.heroku.values import KafkaBrokers
from mtlskit.proxy.door_words import door_notes, door_warnings
from mtlskit.proxy.events import (
    BrokerFailed,
    BrokerListening,
    BrokerMoved,
    BrokerNotListening,
    ClientRefused,
    ClusterDenied,
    ClusterUnseen,
    SessionBroken,
    SessionClosed,
    TunnelNoted,
    TunnelWarned,
)
from mtlskit.proxy.kafka import brokers as brokers_module
from mtlskit.proxy.kafka.denied import Denials
from mtlskit.proxy.kafka.loops import leads_to
from mtlskit.proxy.kafka.outage import Outage
from mtlskit.proxy.kafka.refusals import Refusals
from mtlskit.telemetry import Level
from mtlskit.wire.kafka.advertised import NOWHERE
from mtlskit.wire.kafka.asking import metadata_request
from mtlskit.wire.kafka.denials import Denied
from tests.support.addons import FakeLookup, credential_at
from tests.support.fake_kafka import FakeCluster, ask_metadata, fake_broker, who_is_there
from tests.support.fake_upstream import PATIENCE, Papers, ServerSide, fake_upstream, nobody_listens
from tests.support.tunnels import LOOPBACK, RawClient, connected, running_proxy, tunnel


def kafka(papers: Papers, upstream: Endpoint, listen: TcpAddress = LOOPBACK, **doors: Any) -> TunnelConfig:
    return tunnel(papers, upstream, kind=TunnelKind.KAFKA, listen=listen, kafka=KafkaDoors(**doors))


async def eventually(look: Callable[[], bool]) -> None:
    with trio.fail_after(PATIENCE):
        while not look():  # noqa: ASYNC110 - what is looked at tells nobody when it changes
            await trio.sleep(0.005)


async def test_a_flood_of_nodes_is_neither_kept_nor_told_in_full(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brokers_module, "MOST_BROKERS", 10)
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 0) as one, running_proxy(kafka(papers, one.endpoint)) as running:
        for begin in (0, 5000):
            cluster.brokers = [(node_id, "127.0.0.1", one.endpoint.port) for node_id in range(begin, begin + 3000)]
            async with running.connect() as client:
                told = await ask_metadata(client)
            assert sum(named[1:] != NOWHERE for named in told) == (10 if begin == 0 else 0)
        (facts,) = running.proxy.tunnels
        assert facts.brokers is not None
        assert (len(facts.brokers.known), len(facts.brokers.refused)) == (10, 10)
        assert len(running.events.of(BrokerNotListening)) == 10
        (warned,) = running.events.of(TunnelWarned)
        assert "more than 10 brokers that have no listener" in warned.warning


async def test_an_address_that_flaps_is_told_now_and_then(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    async with (
        fake_broker(papers, cluster, 5) as one,
        running_proxy(kafka(papers, one.endpoint)) as running,
        running.connect() as client,
    ):
        for turn in range(50):
            cluster.brokers = [(5, f"host{turn % 2}.invalid", 9093)]
            await ask_metadata(client)
        monkeypatch.setattr(brokers_module, "TOLD_EVERY", 0.0)
        cluster.brokers = [(5, "127.0.0.1", one.endpoint.port)]
        await ask_metadata(client)
        last = await running.events.wait_for(BrokerMoved, 2)
        first = running.events.of(BrokerMoved)[0]
        assert len(running.events.of(BrokerMoved)) == 2
        assert (first.times, last.times, last.upstream) == (1, 49, str(one.endpoint))
        assert "moved 49 times" in last.sentence()
        assert "moved" not in first.sentence()


async def test_a_broker_is_not_looked_for_where_its_own_listener_would_be(papers: Papers) -> None:
    """A broker elsewhere that advertises localhost: each connection would make the next."""
    cluster = FakeCluster()
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    async with (
        fake_broker(papers, cluster, 1) as one,
        running_proxy(kafka(papers, one.endpoint, ports=((1, port),))) as running,
        running.connect() as client,
    ):
        cluster.brokers = [(1, "localhost", port)]
        assert await ask_metadata(client) == [(1, *NOWHERE)]
        told = await running.events.wait_for(BrokerNotListening)
        assert told.code == "MTLS-KFK-011"
        assert "first_broker_port of [tunnel.reporting]" in told.hint


async def test_a_broker_that_moves_to_our_own_listener_makes_no_loop(papers: Papers) -> None:
    cluster = FakeCluster()
    async with (
        fake_broker(papers, cluster, 1) as one,
        running_proxy(kafka(papers, one.endpoint)) as running,
        running.connect() as client,
    ):
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port), (2, "127.0.0.1", one.endpoint.port)]
        first, second = await ask_metadata(client)
        # Each is said to be where the other one's listener is; the second also at its own.
        for where in (second, first):
            cluster.brokers = [(1, "localhost", second[2]), (2, *where[1:])]
            assert await ask_metadata(client) == [first, second]
            before = running.proxy.tunnels[0].sessions
            for named in (first, second):
                async with connected(TcpAddress(named[1], named[2])) as looped:
                    assert await looped.read_to_end() == b""
            await eventually(lambda: running.proxy.tunnels[0].sessions == before)  # noqa: B023 - called at once
        assert {(event.broker, event.code) for event in running.events.of(BrokerFailed)} == {
            ("1", "MTLS-KFK-011"),
            ("2", "MTLS-KFK-011"),
        }


@pytest.mark.parametrize(
    ("theirs", "ours", "back"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("127.0.0.1", "0.0.0.0", True),
        ("::1", "::", True),
        ("10.1.2.3", "0.0.0.0", False),
        ("kafka.example.com", "0.0.0.0", False),
        ("127.0.0.2", "127.0.0.1", False),
    ],
)
def test_which_addresses_are_ours(theirs: str, ours: str, back: bool) -> None:
    assert leads_to(Endpoint(theirs, 9093), TcpAddress(ours, 9093)) is back
    assert not leads_to(Endpoint(theirs, 9094), TcpAddress(ours, 9093))


def test_a_port_in_use_is_tried_less_and_less() -> None:
    refusals, taken = Refusals(), ListenError(Code.LISTEN_PORT_IN_USE, "taken")
    assert refusals.add(1, taken, now=0.0, pause=1.0)
    tried = [0.0]
    for tenth in range(1, 2000):
        if not refusals.waits(1, tenth / 10):
            tried.append(tenth / 10)
            assert not refusals.add(1, taken, now=tried[-1], pause=1.0)
    assert tried == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0, 121.0, 151.0, 181.0]
    assert refusals.add(1, ListenError(Code.LISTEN_DENIED, "denied"), now=999.0, pause=1.0)
    refusals.forget(1)
    assert (1 in refusals, len(refusals), refusals.errors) == (False, 0, {})


async def test_certificates_that_are_refused_after_the_handshake_do_not_flood_the_log(papers: Papers) -> None:
    """TLS 1.3: our handshake is over when the server looks at the certificate. Kafka's clients try for ever."""

    async def strict(server: ServerSide) -> None:
        await server.refuse_in_handshake()
        await server.until_closed()

    async with (
        fake_upstream(papers, strict, context=papers.strict_context()) as upstream,
        running_proxy(kafka(papers, upstream.endpoint)) as running,
    ):
        assert (await running.events.wait_for(ClusterUnseen)).code == "MTLS-TLS-010"
        for _ in range(20):
            async with running.connect() as client:
                await read_away(client)
        await running.idle()
        (told,) = running.events.of(BrokerFailed)
        assert (told.broker, told.code, told.clients) == ("bootstrap", "MTLS-TLS-010", 1)
        assert not running.events.of(SessionBroken)
        assert not running.events.of(SessionClosed)


async def read_away(client: RawClient) -> None:
    """Until the end, however it comes."""
    with suppress(trio.BrokenResourceError):
        await client.read_to_end()


async def test_the_cluster_cannot_be_asked_for_another_reason_now(
    papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_AGAIN", "_FIRST_PAUSE"):
        monkeypatch.setattr(f"mtlskit.proxy.kafka.look.{name}", 0.0)

    async def wants_a_login(server: ServerSide) -> None:
        await server.shake_hands()
        await server.read_exactly(1)
        await server.close_notify()

    async with nobody_listens() as nowhere:
        async with running_proxy(kafka(papers, nowhere)) as running:
            assert (await running.events.wait_for(ClusterUnseen)).code == "MTLS-NET-002"
            async with fake_upstream(papers, wants_a_login) as upstream:
                (one,) = running.proxy.tunnels
                assert one._parts is not None
                one._parts.dialler = replace(one._parts.dialler, endpoints=(upstream.endpoint,))
                told = await running.events.wait_for(ClusterUnseen, 2)
                came = upstream.connections
                await eventually(lambda: upstream.connections > came + 5)
        assert "SASL" in told.hint
        assert len(running.events.of(ClusterUnseen)) == 2


async def test_a_certificate_that_is_refused_after_the_handshake_is_there_for_status(papers: Papers) -> None:
    """Dialling succeeds: under TLS 1.3 the refusal comes when the handshake is done for us."""

    async def refuses(server: ServerSide) -> None:
        await server.refuse_in_handshake()

    strict = papers.strict_context()
    async with (
        fake_upstream(papers, refuses, context=strict) as upstream,
        running_proxy(kafka(papers, upstream.endpoint)) as running,
    ):
        (one,) = running.proxy.tunnels
        await running.events.wait_for(ClusterUnseen)
        assert one.upstream_failure is not None
        assert one.upstream_failure[0].code is Code.TLS_CLIENT_CA_UNKNOWN
        async with running.connect() as client:
            await client.send(metadata_request(1))
            assert await client.read_to_end() == b""
        await eventually(lambda: one.upstream_failure is not None)


def test_resets_and_closes_of_one_broker_are_told_as_one_trouble() -> None:
    told: list[Code] = []
    outage = Outage(lambda error, _: told.append(error.code), lambda: told.clear())
    for code in (Code.TCP_RESET, Code.UPSTREAM_CLOSED, Code.TCP_RESET, Code.TCP_REFUSED):
        outage.failed(UpstreamLost(code, "b1 is away"), 1.0)
    assert told == [Code.TCP_RESET, Code.TCP_REFUSED]


async def test_a_tunnel_that_closes_asks_the_cluster_no_more(papers: Papers, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_AGAIN", "_FIRST_PAUSE"):
        monkeypatch.setattr(f"mtlskit.proxy.kafka.look.{name}", 0.0)
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one, running_proxy(kafka(papers, one.endpoint)) as running:
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port)]
        async with running.connect() as client:
            await ask_metadata(client)  # keeps the drain waiting
            await who_is_there(client)
            running.proxy.stop()
            await trio.testing.wait_all_tasks_blocked()
            asked = cluster.asked
            (tunnel_,) = running.proxy.tunnels
            assert tunnel_.brokers is not None
            tunnel_.brokers.ask_again()
            await trio.testing.wait_all_tasks_blocked()
            assert cluster.asked == asked


async def test_whoever_may_not_come_in_may_not_at_a_broker_either(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port)]
        config = tunnel(
            papers, one.endpoint, kind=TunnelKind.KAFKA, allow_clients=(ip_network("10.0.0.0/8"),), kafka=KafkaDoors()
        )
        async with running_proxy(config) as running:
            listening = await running.events.wait_for(BrokerListening)
            host, _, port = listening.addresses[0].rpartition(":")
            async with connected(TcpAddress(host, int(port))) as client:
                assert await client.read_to_end() == b""
            assert (await running.events.wait_for(ClientRefused)).code == "MTLS-DOOR-001"


async def test_all_listeners_share_the_tunnels_places(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        cluster.brokers = [(1, "127.0.0.1", one.endpoint.port)]
        config = tunnel(papers, one.endpoint, kind=TunnelKind.KAFKA, max_connections=1, kafka=KafkaDoors())
        async with running_proxy(config) as running, running.connect() as client:
            (named,) = await ask_metadata(client)
            async with connected(TcpAddress(named[1], named[2])) as other:
                assert await other.read_to_end() == b""
            assert (await running.events.wait_for(ClientRefused)).code == "MTLS-DOOR-004"
            assert await who_is_there(client) == 1


def hear(prefix: str, *denied: Denied) -> list[str]:
    told: list[Any] = []
    denials = Denials("orders", lambda: prefix, told.append)
    for one in denied:
        denials.hear(one)
    assert all(isinstance(event, ClusterDenied) for event in told)
    return [event.sentence() for event in told]


def test_a_name_without_the_prefix_is_told_with_it() -> None:
    (topic, group, unknown) = hear(
        "bern-4711.",
        Denied("topic", "orders", 29),
        Denied("topic", "orders", 29),
        Denied("group", "billing", 30),
        Denied("topic", "paymentz", 3),
        Denied("topic", "bern-4711.not-yet", 3),
    )
    assert topic == (
        "orders: the cluster refuses a client the topic orders [error 29]: names on this plan begin with"
        ' "bern-4711." (config var KAFKA_PREFIX): bern-4711.orders'
    )
    assert "the group billing [error 30]" in group
    assert "does not know the topic paymentz" in unknown
    assert unknown.endswith("bern-4711.paymentz")


def test_a_name_that_is_refused_for_another_reason() -> None:
    (told,) = hear("bern-4711.", Denied("topic", "bern-4711.orders", 29))
    assert "an ACL of the cluster" in told
    assert "KAFKA_PREFIX" not in told
    (told, nameless, odd) = hear(
        "",
        Denied("topic", "orders", 29),
        Denied("topic", "unknown", 3),
        Denied("transactional id", "", 53),
        Denied("group", "\x1b[31m", 30),
    )
    assert "what KAFKA_PREFIX holds" in told
    assert "the transactional id (unnamed)" in nameless
    assert odd.isprintable()


def test_names_without_end_are_not_told_without_end() -> None:
    assert len(hear("", *(Denied("group", f"g{number}", 30) for number in range(5000)))) == 256


async def test_the_prefix_is_the_add_ons(papers: Papers) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        lookup = FakeLookup(
            credential_at(one.endpoint, user="nobody", password="none"), KafkaBrokers((one.endpoint,), "bern-4711.")
        )
        config = tunnel(papers, kind=TunnelKind.KAFKA, addon="kafka-rigid-4711", kafka=KafkaDoors())
        async with running_proxy(config, lookup=lookup) as running:
            (tunnel_,) = running.proxy.tunnels
            assert tunnel_.brokers is not None
            await trio.to_thread.run_sync(tunnel_.brokers.denials.hear, Denied("topic", "orders", 29))
            assert (await running.events.wait_for(ClusterDenied)).prefix == "bern-4711."


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"listen": TcpAddress("0.0.0.0", 0)}, 'write advertised = "HOST"'),
        ({"listen": TcpAddress("::", 0)}, 'write advertised = "HOST"'),
        ({"listen": TcpAddress("0.0.0.0", 0), "kafka": KafkaDoors(advertised="kafka.example.com")}, ""),
        ({"verify": Verify(VerifyMode.CA)}, "the chain alone is checked"),
        ({"verify": Verify(VerifyMode.CA), "verify_by_default": True}, ""),
        ({"verify": Verify(VerifyMode.CA), "kind": TunnelKind.POSTGRES}, ""),
        ({}, ""),
    ],
)
def test_what_an_operator_should_know_of_the_door(papers: Papers, settings: dict[str, Any], words: str) -> None:
    config = tunnel(papers, Endpoint("kafka.example.com", 9096), **({"kind": TunnelKind.KAFKA} | settings))
    told = door_warnings(config)
    assert len(told) == bool(words)
    assert all(words in warning for warning in told)


@pytest.mark.parametrize("by_default", [True, False])
async def test_a_check_of_the_chain_alone_is_a_warning_where_somebody_chose_it(
    papers: Papers, *, by_default: bool
) -> None:
    cluster = FakeCluster()
    async with fake_broker(papers, cluster, 1) as one:
        config = tunnel(
            papers,
            one.endpoint,
            kind=TunnelKind.KAFKA,
            kafka=KafkaDoors(),
            verify=Verify(VerifyMode.CA),
            verify_by_default=by_default,
        )
        async with running_proxy(config) as running:
            notes = [event.note for event in running.events.of(TunnelNoted)]
            warnings = [event.warning for event in running.events.of(TunnelWarned)]
        assert ['verify = "ca", the default for Heroku' in told for told in notes] == [True] * by_default
        assert ["the chain alone is checked" in told for told in warnings] == [True] * (not by_default)
        assert TunnelNoted.level is Level.INFO


def test_nothing_is_noted_where_the_name_is_checked(papers: Papers) -> None:
    upstream = Endpoint("kafka.example.com", 9096)
    for kind in TunnelKind:
        assert door_notes(tunnel(papers, upstream, kind=kind, verify_by_default=True)) == ()
        chain_alone = tunnel(papers, upstream, kind=kind, verify_by_default=True, verify=Verify(VerifyMode.CA))
        assert len(door_notes(chain_alone)) == (kind is TunnelKind.KAFKA)
