"""Handing over is a move: what was read before, on either side of the TLS engine, arrives first and in order."""

from __future__ import annotations

import socket
import ssl

import pytest

from mtlskit.net.relay import Ending, HandOver, Relay
from tests.services.pki import Pki
from tests.support.relay_peers import (
    Contexts,
    Session,
    Sessions,
    WirePeer,
    digest,
    noise,
    read_all,
    relayed,
    shake_hands,
)


def _clean_end(session: Session[WirePeer]) -> bytes:
    """The upstream ends, then the client; what the upstream had been sent."""
    session.upstream.close_write(fin=True)
    session.client.shutdown(socket.SHUT_WR)
    return session.upstream.read_to_end()


async def test_bytes_for_the_client_arrive_in_order_from_every_place_where_they_can_be(
    relay: Relay, sessions: Sessions
) -> None:
    session = sessions.wire(to_client=b"1 read and decrypted, ")
    engine = session.handover.engine
    assert engine is not None
    first = session.upstream.records(b"2 fed and not decrypted, ")
    second = session.upstream.records(b"3 half fed, ")
    engine.feed(first + second[:7])
    session.upstream.sock.sendall(second[7:])
    session.upstream.send(b"4 in the kernel")

    outcome, at_client, _ = await relayed(relay, session, lambda: read_all(session.client), lambda: _clean_end(session))

    assert at_client == b"1 read and decrypted, 2 fed and not decrypted, 3 half fed, 4 in the kernel"
    assert outcome.bytes_down == len(at_client)


async def test_what_the_engine_holds_is_forwarded_without_a_word_from_the_selector(
    relay: Relay, sessions: Sessions
) -> None:
    session = sessions.wire()
    engine = session.handover.engine
    assert engine is not None
    engine.feed(session.upstream.records(b"ready for query"))

    def ends() -> bytes:
        data = session.client.recv(100)  # before anything else makes the upstream's socket readable
        _clean_end(session)
        return data

    _, data = await relayed(relay, session, ends)
    assert data == b"ready for query"


@pytest.mark.parametrize("size", [64, 300_000, 1_500_000])
async def test_more_than_a_buffer_in_the_engine(relay: Relay, sessions: Sessions, size: int) -> None:
    session = sessions.wire()
    engine = session.handover.engine
    assert engine is not None
    engine.feed(session.upstream.records(noise(size)))
    _, at_client, _ = await relayed(relay, session, lambda: read_all(session.client), lambda: _clean_end(session))
    assert digest(at_client) == digest(noise(size))


async def test_a_slow_client_gets_what_was_read_before_what_the_engine_holds(relay: Relay, sessions: Sessions) -> None:
    session = sessions.wire(to_client=noise(50_000), client_buffers=4096)
    engine = session.handover.engine
    assert engine is not None
    engine.feed(session.upstream.records(b"the end"))
    _, at_client, _ = await relayed(relay, session, lambda: read_all(session.client), lambda: _clean_end(session))
    assert digest(at_client) == digest(noise(50_000) + b"the end")


async def test_ciphertext_that_was_not_sent_goes_before_what_the_client_sends(relay: Relay, sessions: Sessions) -> None:
    session = sessions.wire()
    engine = session.handover.engine
    assert engine is not None
    engine.write(b"1 unsent, ")
    engine.unsent = engine.take()
    engine.write(b"2 made, ")
    session.client.sendall(b"3 from the client")
    # `2 made` lies in the engine, as the answer to a key update does, and goes with the first that is written.
    outcome, at_upstream = await relayed(relay, session, lambda: _clean_end(session))
    assert at_upstream == b"1 unsent, 2 made, 3 from the client"
    assert outcome.bytes_up == len(b"3 from the client")


async def test_an_end_that_the_engine_knows_of_already(relay: Relay, sessions: Sessions) -> None:
    session = sessions.wire(to_client=b"good ")
    engine = session.handover.engine
    assert engine is not None
    session.upstream.engine.write(b"bye")
    session.upstream.engine.close_write()
    engine.feed(session.upstream.engine.take())
    outcome, at_client, _ = await relayed(
        relay, session, lambda: read_all(session.client), lambda: session.client.shutdown(socket.SHUT_WR)
    )
    assert at_client == b"good bye"
    assert (outcome.ending, outcome.clean) == (Ending.UPSTREAM_CLOSED, True)


async def test_an_alert_that_the_engine_knows_of_already(relay: Relay, sessions: Sessions, pki: Pki) -> None:
    refusing = Contexts.make(pki, client_ca=False)
    client, far_client = sessions.pair()
    upstream, far_upstream = sessions.pair()
    engine = refusing.engine()
    peer = WirePeer(far_upstream, refusing.server)
    failure = shake_hands(upstream, engine, peer.handshake)
    assert isinstance(failure, ssl.SSLError)
    engine.feed(peer.engine.take())
    session = Session(far_client, peer, HandOver(client, upstream, engine, b"words"))
    outcome, at_client, _ = await relayed(
        relay, session, lambda: read_all(far_client), lambda: far_client.shutdown(socket.SHUT_WR)
    )
    assert at_client == b"words"
    assert outcome.ending is Ending.UPSTREAM_ALERT
    assert isinstance(outcome.error, ssl.SSLError)
    assert "UNKNOWN_CA" in (outcome.error.reason or "")
