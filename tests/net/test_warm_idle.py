"""The look at a connection that nobody reads, and the polite end of one that nobody wants."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import pytest

from mtlskit.net.warm.idle import is_quiet, part
from tests.support.warm_peers import DEATHS, Peers


@pytest.fixture
async def peers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Peers]:
    """Connections whose other end the test holds."""
    made = Peers(tmp_path_factory.mktemp("papers"))
    yield made
    made.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=["1.3", "1.2"])
async def test_tickets_are_no_sign_of_death_and_the_connection_works_after_the_look(
    peers: Peers, version: ssl.TLSVersion
) -> None:
    peers.limit_to(version)
    peer = peers.make()
    assert is_quiet(peer.upstream.tls)
    assert is_quiet(peer.upstream.tls)
    peer.say(b"hello")
    assert await peer.upstream.tls.receive_some() == b"hello"
    part(peer.upstream.tls)
    assert peer.parted


async def test_parting_from_the_dead_is_quiet(peers: Peers) -> None:
    for death in DEATHS.values():
        peer = peers.make()
        death(peer)
        part(peer.upstream.tls)
        assert peer.closed
