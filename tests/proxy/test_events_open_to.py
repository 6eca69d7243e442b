"""What a tunnel says of who may use it."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from mtlskit.config.values import Endpoint
from mtlskit.proxy.events import TunnelListening
from tests.support.fake_upstream import Papers
from tests.support.tunnels import running_proxy, tunnel


@pytest.mark.parametrize(
    ("networks", "users", "told"),
    [
        ([], (), "every user of this host"),
        (["127.0.0.0/8"], (), "every user of 127.0.0.0/8"),
        (["10.255.255.0/24"], (), "clients of 10.255.255.0/24"),
        (["10.0.0.0/8", "::1/128", "fd00::/8"], (), "every user of ::1/128 and clients of 10.0.0.0/8, fd00::/8"),
        ([], ("0",), "0 of this host"),
    ],
)
async def test_a_tunnel_says_whom_it_is_open_to(
    papers: Papers, networks: list[str], users: tuple[str, ...], told: str
) -> None:
    admitted = tuple(ip_network(network) for network in networks)
    config = tunnel(papers, Endpoint("127.0.0.1", 1), allow_clients=admitted, allow_users=users)
    async with running_proxy(config) as running:
        assert running.events.of(TunnelListening)[0].open_to == told
