"""How sessions end: refused, reset, cut off, silent, or with a last message to somebody who is slow to read it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from mtlskit.net.relay import Ending, HandOver, Relay, RelayPolicy
from tests.services.pki import Pki
from tests.support.relay_peers import (
    Contexts,
    Session,
    Sessions,
    fill,
    noise,
    read_all,
    read_exactly,
    relayed,
    reset,
    shake_hands,
)
from tests.support.turns import Watch

FINAL = RelayPolicy(upstream_end_is_final=True)
RESETS = RelayPolicy(ragged_end_resets=True)
SHORT = 0.05  # seconds of linger where a test waits for it


def _end_of(client: socket.socket) -> str:
    """What the client sees at the end."""
    try:
        return "FIN" if read_all(client) == b"" else "bytes"
    except ConnectionResetError:
        return "RST"


def _send_for_ever(sock: socket.socket) -> None:
    while True:
        sock.sendall(bytes(4096))


# The upstream refuses us after a handshake that seemed to succeed.


def _refused(sessions: Sessions, contexts: Contexts, *, written: bool) -> Session[Any]:
    """A TLS 1.3 server that refuses our certificate; `written`: we write before we read."""
    client, far_client = sessions.pair()
    upstream, far_upstream = sessions.pair()
    engine = contexts.engine()

    def serve() -> None:
        try:
            contexts.server.wrap_socket(far_upstream, server_side=True)
        except ssl.SSLError:
            far_upstream.close()

    shake_hands(upstream, engine, serve)
    if written:
        engine.write(b"a startup message that meets a closed socket")
        engine.unsent = engine.take()
    return Session(far_client, far_upstream, HandOver(client, upstream, engine))


@pytest.mark.parametrize("written", [False, True], ids=["read first", "written first"])
@pytest.mark.parametrize("repetition", range(20))
async def test_a_refused_client_certificate_is_told_as_the_alert(
    relay: Relay, sessions: Sessions, pki: Pki, written: bool, repetition: int
) -> None:
    session = _refused(sessions, Contexts.make(pki, client_ca=False), written=written)
    session.client.sendall(b"select 1")
    outcome, end = await relayed(relay, session, lambda: _then_close(session.client, _end_of))
    assert outcome.ending is Ending.UPSTREAM_ALERT
    assert isinstance(outcome.error, ssl.SSLError)
    assert outcome.error.reason == "TLSV1_ALERT_UNKNOWN_CA"
    assert not outcome.clean
    assert end == "FIN"


def _then_close(client: socket.socket, look: Callable[[socket.socket], str]) -> str:
    seen = look(client)
    client.close()
    return seen


async def test_bytes_before_an_alert_arrive_and_the_alert_needs_no_end_to_be_seen(
    relay: Relay, sessions: Sessions
) -> None:
    session = sessions.wire()
    record = session.upstream.records(b"half of it")
    damaged = bytearray(session.upstream.records(b"the other half"))
    damaged[-1] ^= 1
    session.upstream.sock.sendall(record + damaged)  # and the socket stays open

    def client() -> bytes:
        data = read_all(session.client)
        session.client.close()
        return data

    outcome, data = await relayed(relay, session, client)
    assert data == b"half of it"
    assert outcome.ending is Ending.UPSTREAM_ALERT
    assert "MAC" in str(outcome.error)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
        session.upstream.read(1)  # we have told the upstream


async def test_an_alert_after_the_client_has_ended_is_still_the_reason(relay: Relay, sessions: Sessions) -> None:
    session = sessions.wire()
    damaged = bytearray(session.upstream.records(b"no answer"))
    damaged[-1] ^= 1

    def both() -> None:
        session.client.shutdown(socket.SHUT_WR)
        assert session.upstream.read_to_end() == b""
        session.upstream.sock.sendall(damaged)
        assert session.client.recv(1) == b""

    outcome, _ = await relayed(relay, session, both)
    assert outcome.ending is Ending.UPSTREAM_ALERT
    assert isinstance(outcome.error, ssl.SSLError)


# Resets and ragged ends.


async def test_a_client_that_resets_ends_the_session_and_the_server_sees_a_ragged_end(
    relay: Relay, sessions: Sessions, watch: Watch
) -> None:
    session = sessions.tls()

    def both() -> None:
        session.client.sendall(b"half a requ")
        assert read_exactly(session.upstream, 11) == b"half a requ"
        reset(session.client)
        with suppress(ssl.SSLEOFError):
            assert session.upstream.recv(1) == b""  # how the first releases of Python 3.11 tell a ragged end

    outcome, _ = await relayed(relay, session, both)
    assert outcome.ending is Ending.CLIENT_LOST
    assert isinstance(outcome.error, ConnectionResetError)


async def test_a_client_that_has_gone_is_noticed_by_the_write(relay: Relay, sessions: Sessions) -> None:
    session = sessions.tls()

    def both() -> None:
        session.client.shutdown(socket.SHUT_WR)
        assert session.upstream.recv(1) == b""
        session.client.close()
        with pytest.raises(OSError, match=r"reset|pipe|EOF"):
            _send_for_ever(session.upstream)

    outcome, _ = await relayed(relay, session, both)
    assert outcome.ending is Ending.CLIENT_CLOSED
    assert isinstance(outcome.error, OSError)


@pytest.mark.parametrize("policy", [RESETS, RelayPolicy(), FINAL], ids=["resets", "usual", "final"])
@pytest.mark.parametrize("how", ["FIN without close_notify", "RST"])
async def test_an_upstream_that_is_cut_off(relay: Relay, sessions: Sessions, how: str, policy: RelayPolicy) -> None:
    session = sessions.wire(policy)

    def both() -> str:
        session.upstream.send(b"the first half")
        assert read_exactly(session.client, 14) == b"the first half"
        if how == "RST":
            reset(session.upstream.sock)
        else:
            session.upstream.close()
        return _then_close(session.client, _end_of)

    outcome, end = await relayed(relay, session, both)
    assert end == ("RST" if policy.ragged_end_resets else "FIN")
    assert outcome.ending is (Ending.UPSTREAM_LOST if how == "RST" else Ending.UPSTREAM_CLOSED)
    assert not outcome.clean


async def test_a_clean_end_is_a_fin_also_where_ragged_ones_reset(relay: Relay, sessions: Sessions) -> None:
    session = sessions.wire(RESETS)

    def both() -> str:
        session.upstream.close_write(fin=True)
        return _then_close(session.client, _end_of)

    outcome, end = await relayed(relay, session, both)
    assert end == "FIN"
    assert outcome.clean


# The server's last message.


@pytest.mark.parametrize("policy", [FINAL, RelayPolicy()], ids=["final", "half-closable"])
async def test_the_last_message_reaches_a_client_that_is_slow_to_read_and_still_sends(
    relay: Relay, sessions: Sessions, watch: Watch, policy: RelayPolicy
) -> None:
    session = sessions.wire(policy, client_buffers=4096)
    last = noise(50_000)  # so that the relay reads it and the end at once
    session.upstream.send(last)
    session.upstream.close_write()
    session.upstream.close()

    def both() -> bytes:
        watch.settle(relay)
        assert next(iter(relay._pairs)).client.held, "the client has taken everything: it was not slow"
        for _ in range(20):
            fill(session.client, 8192)  # the far kernel answers with RST, and a write of the relay's fails
            watch.settle(relay)
        data = read_exactly(session.client, len(last))
        session.client.sendall(b"still there?")
        watch.settle(relay)
        assert session.client.recv(1) == b""
        session.client.close()
        return data

    outcome, data = await relayed(relay, session, both)
    assert data == last
    assert outcome.ending is Ending.UPSTREAM_CLOSED
    assert outcome.bytes_down == len(last)
    if policy is FINAL:
        assert outcome.bytes_up == 0, "what was dropped counts as moved"


async def test_a_final_end_does_not_wait_for_the_client_to_end(relay: Relay, sessions: Sessions) -> None:
    session = sessions.wire(RelayPolicy(linger=SHORT, upstream_end_is_final=True))

    def both() -> bytes:
        session.upstream.send(b"FATAL: good night")
        session.upstream.close_write(fin=True)
        return read_all(session.client)

    outcome, data = await relayed(relay, session, both)  # the client never closes
    assert data == b"FATAL: good night"
    assert outcome.ending is Ending.UPSTREAM_CLOSED


async def test_a_client_that_never_stops_sending_after_a_final_end_is_cut_off(
    relay: Relay, sessions: Sessions, watch: Watch
) -> None:
    session = sessions.wire(RelayPolicy(linger=SHORT, upstream_end_is_final=True))

    def both() -> None:
        session.client.sendall(b"heard")
        assert session.upstream.read(5) == b"heard"
        session.upstream.close_write(fin=True)
        assert session.client.recv(1) == b""
        with pytest.raises(OSError, match=r"reset|pipe"):
            _send_for_ever(session.client)

    outcome, _ = await relayed(relay, session, both)
    assert outcome.ending is Ending.UPSTREAM_CLOSED
    assert outcome.bytes_up == 5, "what was dropped counts as moved"


async def test_a_client_that_sends_and_never_reads_its_last_message_is_cut_off(
    relay: Relay, sessions: Sessions
) -> None:
    session = sessions.wire(RelayPolicy(linger=SHORT, upstream_end_is_final=True), client_buffers=4096)
    session.upstream.send(bytes(50_000))
    session.upstream.close_write(fin=True)

    def both() -> None:
        with pytest.raises(OSError, match=r"reset|pipe"):
            _send_for_ever(session.client)

    outcome, _ = await relayed(relay, session, both)
    assert outcome.ending is Ending.SILENT


# Silence after one side has ended.


@pytest.mark.parametrize("who", ["client", "upstream"])
async def test_the_side_that_stays_silent_after_the_other_has_ended(relay: Relay, sessions: Sessions, who: str) -> None:
    session = sessions.wire(RelayPolicy(linger=SHORT))
    if who == "client":
        session.client.shutdown(socket.SHUT_WR)
    else:
        session.upstream.close_write()
    outcome, *_ = await relayed(relay, session)
    assert outcome.ending is Ending.SILENT


async def test_a_server_that_takes_nothing_after_the_client_has_ended(relay: Relay, sessions: Sessions) -> None:
    session = sessions.plain(RelayPolicy(linger=SHORT), buffers=4096)
    fill(session.client, 1 << 20)
    session.client.shutdown(socket.SHUT_WR)
    outcome, *_ = await relayed(relay, session)
    assert outcome.ending is Ending.SILENT


async def test_bytes_that_move_put_off_the_end(relay: Relay, sessions: Sessions, monkeypatch: Any) -> None:
    clock = [1000.0]
    monkeypatch.setattr("mtlskit.net.relay.thread.time.monotonic", lambda: clock[0])
    session = sessions.wire(RelayPolicy(linger=10.0))

    def both() -> None:
        session.client.shutdown(socket.SHUT_WR)
        assert session.upstream.read_to_end() == b""
        for _ in range(5):
            clock[0] += 8.0
            session.upstream.send(b"tick")
            assert read_exactly(session.client, 4) == b"tick"
        clock[0] += 11.0
        relay._submit(lambda: None)  # wakes the thread, which looks at the clock
        assert session.client.recv(1) == b""

    outcome, _ = await relayed(relay, session, both)
    assert outcome.ending is Ending.SILENT
    assert outcome.bytes_down == 20
