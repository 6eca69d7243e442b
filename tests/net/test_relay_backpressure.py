"""A slow reader slows its writer down: memory is bounded, and the bytes are those that were sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from mtlskit.net.relay import Relay
from mtlskit.net.relay.pair import BUFFER_SIZE, Pair
from mtlskit.net.relay.watcher import READ
from tests.support.relay_peers import Session, Sessions, digest, noise, read_exactly, relayed
from tests.support.turns import Watch

PAYLOAD = noise(3 << 20, seed=3)
_OVERHEAD = 64 * 1024
"""What TLS adds to one buffer, and then some."""


def _only_pair(relay: Relay) -> Pair:
    (pair,) = relay._pairs
    return pair


@dataclass(frozen=True)
class _Way:
    """One direction: what is put on its wire, and how it is taken off."""

    writer: socket.socket
    wire: bytes
    read: Callable[[int], bytes]

    @classmethod
    def of(cls, session: Session[Any], kind: str, way: str) -> _Way:
        tls = kind == "tls"
        upstream: socket.socket = session.upstream.sock if tls else session.upstream
        if way == "down":
            wire = session.upstream.records(PAYLOAD) if tls else PAYLOAD
            return cls(upstream, wire, lambda size: read_exactly(session.client, size))
        read = session.upstream.read if tls else lambda size: read_exactly(upstream, size)
        return cls(session.client, PAYLOAD, read)


def _send_what_is_taken(way: _Way, settle: Callable[[], int]) -> int:
    """Send until the other side takes no more, however long it is waited for; how many bytes went."""
    sent = 0
    way.writer.setblocking(False)
    try:
        while True:
            sent += way.writer.send(way.wire[sent:])
    except BlockingIOError:
        settle()
        with suppress(BlockingIOError):
            while True:
                sent += way.writer.send(way.wire[sent:])
                settle()
    way.writer.settimeout(30)
    return sent


@pytest.mark.parametrize("way", ["up", "down"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_what_a_slow_reader_does_not_take_is_not_read_from_the_writer(
    relay: Relay, sessions: Sessions, watch: Watch, kind: str, way: str
) -> None:
    session: Session[Any] = sessions.plain(buffers=8192) if kind == "plain" else sessions.wire(buffers=8192)
    direction = _Way.of(session, kind, way)

    def stop_and_go() -> None:
        sent = _send_what_is_taken(direction, lambda: watch.settle(relay))
        assert sent < len(direction.wire), "the writer was never stopped"
        watch.settle(relay)
        pair = _only_pair(relay)
        source, sink = (pair.client, pair.upstream) if way == "up" else (pair.upstream, pair.client)
        assert 0 < len(sink.held) <= BUFFER_SIZE + _OVERHEAD
        assert not source.held
        assert not source.mask & READ, "the writer is read though the reader has bytes to take"
        rest = threading.Thread(target=direction.writer.sendall, args=(direction.wire[sent:],))
        rest.start()
        received = direction.read(len(PAYLOAD))
        rest.join()
        assert digest(received) == digest(PAYLOAD)
        session.client.close()
        session.upstream.close()

    outcome, _ = await relayed(relay, session, stop_and_go)
    assert (outcome.bytes_up if way == "up" else outcome.bytes_down) == len(PAYLOAD)


@pytest.mark.parametrize("buffers", [2048, 16384, None], ids=["tiny", "small", "usual"])
@pytest.mark.parametrize("kind", ["plain", "tls"])
async def test_both_ways_at_once(relay: Relay, sessions: Sessions, kind: str, buffers: int | None) -> None:
    # Little through tiny buffers: the kernel may fall back to a window probe every 200 ms for each kilobyte.
    payload = PAYLOAD if buffers is None else PAYLOAD[: 10 * buffers]
    session: Session[Any] = sessions.plain(buffers=buffers) if kind == "plain" else sessions.wire(buffers=buffers)
    upstream = session.upstream if kind == "plain" else session.upstream.sock
    # Made before the threads start: one OpenSSL object must not be used by two of them at once.
    wire = payload if kind == "plain" else session.upstream.records(payload)

    def send_down() -> None:
        upstream.sendall(wire)

    def read_up() -> bytes:
        return read_exactly(upstream, len(payload)) if kind == "plain" else session.upstream.read(len(payload))

    def read_down() -> bytes:
        return read_exactly(session.client, len(payload))

    results: list[Any] = []

    def close_when_all_is_there(read: Any) -> bytes:
        data: bytes = read()
        results.append(data)
        if len(results) == 2:
            session.client.close()
            session.upstream.close()
        return data

    outcome, _, _, up, down = await relayed(
        relay,
        session,
        lambda: session.client.sendall(payload),
        send_down,
        lambda: close_when_all_is_there(read_up),
        lambda: close_when_all_is_there(read_down),
    )
    assert digest(up) == digest(down) == digest(payload)
    assert outcome.bytes_up == outcome.bytes_down == len(payload)
