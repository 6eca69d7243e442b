"""Who gets a session: the front door in the protocol, and the places of a tunnel."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest
import trio

from mtlskit.config.values import Endpoint, TcpAddress, TunnelKind, UnixAddress
from mtlskit.proxy.events import ClientRefused, SessionOpened, TunnelListening, TunnelWarned
from mtlskit.proxy.seats import STANDING_ROOM, Seats
from tests.support.fake_upstream import Papers, fake_upstream
from tests.support.tunnels import STARTUP, connected, running_proxy, tunnel

ELSEWHERE = (ip_network("192.0.2.0/24"),)


async def test_who_may_not_come_in_is_told_in_the_protocol(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, allow_clients=ELSEWHERE)) as running,
        running.connect() as client,
    ):
        await client.send(STARTUP)
        error = await client.error()
        assert (error.sqlstate, "[MTLS-DOOR-001]" in error.message) == ("28000", True)
        assert "allow_clients" in error.hint
        assert (await running.events.wait_for(ClientRefused)).code == "MTLS-DOOR-001"
        assert upstream.connections == 0


async def test_a_full_tunnel_says_so_and_serves_again_when_somebody_leaves(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, max_connections=1)) as running,
    ):
        async with running.connect() as first:
            await first.login()
            async with running.connect() as second:
                await second.send(STARTUP)
                error = await second.error()
                assert (error.sqlstate, "[MTLS-DOOR-004]" in error.message) == ("53300", True)
        await running.idle()
        async with running.connect() as third:
            await third.login()


async def test_beyond_the_standing_room_a_client_is_closed_without_a_word(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, max_connections=1)) as running,
        running.connect() as first,
        trio.open_nursery() as nursery,
    ):
        await first.login()
        waiting = []
        for _ in range(STANDING_ROOM):
            manager = running.connect()
            waiting.append((manager, await manager.__aenter__()))
        async with running.connect() as late:
            assert await late.read_to_end() == b""
        for _, client in waiting:
            nursery.start_soon(client.send, STARTUP)
        errors = [await client.error() for _, client in waiting]
        assert {error.sqlstate for error in errors} == {"53300"}
        for manager, _ in waiting:
            await manager.__aexit__(None, None, None)
        await first.send(b"Q\0\0\0\x05\0")
        await first.until_ready()


async def test_whoever_may_not_come_in_holds_no_seat(papers: Papers) -> None:
    """Strangers who connect and say nothing must not keep out the clients that are allowed."""
    only = (ip_network("127.0.0.1/32"),)
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, allow_clients=only, max_connections=1)) as running,
    ):
        address = running.address()
        strangers = []
        for _ in range(3):
            stranger = trio.socket.socket()
            await stranger.bind(("127.0.0.2", 0))
            await stranger.connect((address.host, address.port))  # type: ignore[union-attr]  # a TCP address
            strangers.append(stranger)
        async with running.connect() as client:
            await client.login()
            assert running.proxy.sessions == 4
        for stranger in strangers:
            stranger.close()


async def test_a_tcp_client_that_may_not_come_in_is_closed(papers: Papers) -> None:
    config = tunnel(papers, kind=TunnelKind.TCP, allow_clients=ELSEWHERE)
    async with running_proxy(config) as running, running.connect() as client:
        assert await client.read_to_end() == b""
        assert (await running.events.wait_for(ClientRefused)).code == "MTLS-DOOR-001"


@pytest.mark.parametrize(
    ("listen", "networks", "warned"),
    [
        ("127.0.0.1", ["10.0.0.0/8"], True),
        ("localhost", ["10.0.0.0/8", "fd00::/8"], True),
        ("127.0.0.1", ["10.0.0.0/8", "127.0.0.0/8"], False),
        ("127.0.0.1", ["127.0.0.1/32"], False),
        ("127.0.0.1", ["0.0.0.0/0"], False),
        ("localhost", ["::1/128"], False),
        ("127.0.0.1", ["::ffff:127.0.0.1/128"], False),
        ("127.0.0.1", [], False),
        ("0.0.0.0", ["10.0.0.0/8"], False),
    ],
)
async def test_a_door_that_admits_nobody_is_told_of(
    papers: Papers, listen: str, networks: list[str], warned: bool
) -> None:
    admitted = tuple(ip_network(network) for network in networks)
    config = tunnel(papers, Endpoint("127.0.0.1", 1), listen=TcpAddress(listen, 0), allow_clients=admitted)
    async with running_proxy(config) as running:
        told = [event.warning for event in running.events.of(TunnelWarned)]
    assert [f"allow_clients admits nobody: {', '.join(networks)} cannot" in warning for warning in told] == [
        True
    ] * warned


async def test_a_unix_socket_serves_its_owner(papers: Papers, tmp_path: Path) -> None:
    path = tmp_path / ".s.PGSQL.6432"
    async with fake_upstream(papers) as upstream:
        async with running_proxy(tunnel(papers, upstream.endpoint, listen=UnixAddress(path))) as running:
            async with connected(UnixAddress(path)) as client:
                await client.login()
            assert running.events.of(SessionOpened)[0].client == "a unix socket"
            listening = running.events.of(TunnelListening)[0]
            assert (listening.addresses, listening.open_to) == ((f"unix:{path}",), "its owner")
        assert not path.exists()


@pytest.mark.parametrize(("seats", "room"), [(0, 0), (2, 1)])
def test_seats_and_standing_room_are_counted_apart(seats: int, room: int) -> None:
    places = Seats(seats, room)
    for _ in range(seats):
        assert places.free
        places.take()
    assert not places.free
    standing = [places.stand() for _ in range(room)]
    assert [stand.__enter__() for stand in standing] == [True] * room
    assert places.crowded
    with places.stand() as heard:
        assert not heard
    for stand in standing:
        stand.__exit__(None, None, None)
    for _ in range(seats):
        places.give_back()
    assert (places.seated, places.standing, places.free) == (0, 0, seats > 0)
