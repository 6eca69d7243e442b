"""SQLSTATEs for every error, and a last answer that arrives."""

from __future__ import annotations

import inspect

import pytest
import trio
import trio.testing

from mtlskit import errors
from mtlskit.errors import (
    ClientError,
    ClientLimitReached,
    ClientNotAllowed,
    ClientProtocolError,
    ClientTooSlow,
    Code,
    MtlskitError,
    UpstreamError,
    UpstreamLost,
    UpstreamProtocolError,
    UpstreamRefusedUs,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from mtlskit.proxy.answers import as_error_response, part_with, sqlstate_of
from mtlskit.wire.postgres.messages import parse_error_fields


@pytest.mark.parametrize(
    ("error", "sqlstate"),
    [
        (UpstreamUnreachable(Code.DNS_FAILED, "s"), "08001"),
        (UpstreamTimeout(Code.TCP_TIMEOUT, "s"), "08001"),
        (UpstreamTimeout(Code.PG_LOGIN_TIMEOUT, "s"), "08006"),
        (UpstreamUntrusted(Code.TLS_CHAIN_NOT_TRUSTED, "s"), "08001"),
        (UpstreamRefusedUs(Code.TLS_CLIENT_CA_UNKNOWN, "s"), "08004"),
        (UpstreamLost(Code.UPSTREAM_CLOSED, "s"), "08006"),
        (UpstreamUnreachable(Code.TCP_RESET, "s"), "08006"),
        (UpstreamProtocolError(Code.PG_SERVER_RUBBISH, "s"), "08P01"),
        (ClientProtocolError(Code.PG_CLIENT_RUBBISH, "s"), "08P01"),
        (ClientProtocolError(Code.PG_CLIENT_VERSION, "s"), "0A000"),
        (ClientTooSlow(Code.PG_CLIENT_TOO_SLOW, "s"), "08006"),
        (ClientNotAllowed(Code.DOOR_USER, "s"), "28000"),
        (ClientLimitReached(Code.DOOR_FULL, "s"), "53300"),
        (ClientLimitReached(Code.DOOR_DRAINING, "s"), "57P01"),
        (ClientLimitReached(Code.DOOR_CERTIFICATE_ENDS, "s"), "57P01"),
        (MtlskitError(Code.USAGE, "s"), "XX000"),
    ],
)
def test_each_error_has_its_sqlstate(error: MtlskitError, sqlstate: str) -> None:
    assert sqlstate_of(error) == sqlstate


def test_every_class_that_can_end_a_session_has_an_sqlstate_of_its_own() -> None:
    classes = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    leaves = [kind for kind in classes if issubclass(kind, UpstreamError | ClientError) and not kind.__subclasses__()]
    assert len(leaves) >= 10
    assert all(sqlstate_of(kind(Code.USAGE, "s")) != "XX000" for kind in leaves)


def test_a_client_that_speaks_something_else_gets_no_postgres_message() -> None:
    assert as_error_response(ClientProtocolError(Code.PG_CLIENT_SPEAKS_TLS, "s")) == b""
    assert as_error_response(ClientProtocolError(Code.PG_CLIENT_SPEAKS_HTTP, "s")) == b""


def test_the_answer_has_sentence_code_and_hint() -> None:
    fields = parse_error_fields(as_error_response(UpstreamTimeout(Code.TCP_TIMEOUT, "too late", "hurry"))[5:])
    assert (fields.message, fields.hint) == ("mtlskit: too late [MTLS-NET-003]", "hurry")


async def test_an_answer_survives_what_the_client_still_sends() -> None:
    """Closing with unread bytes would reset the connection, and the answer with it."""
    ours, theirs = await _connection()
    with ours, theirs:
        await theirs.send(b"x" * 100_000)

        async def answer_and_close() -> None:
            await part_with(ours, b"answer")
            ours.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer_and_close)
            await trio.testing.wait_all_tasks_blocked()
            assert await theirs.recv(100) == b"answer"
            assert await theirs.recv(100) == b""
            for _ in range(2):  # to a connection that was reset, the first or the second of these would fail
                await theirs.send(b"x")
            theirs.close()


async def test_a_client_that_neither_reads_nor_leaves_is_left(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = await _connection()
    with ours, theirs:
        await part_with(ours, b"x" * 100_000_000)
    assert trio.current_time() == pytest.approx(2.0)


async def _connection() -> tuple[trio.socket.SocketType, trio.socket.SocketType]:
    with trio.socket.socket() as listening:
        await listening.bind(("127.0.0.1", 0))
        listening.listen()
        theirs = trio.socket.socket()
        await theirs.connect(listening.getsockname())
        ours, _ = await listening.accept()
    return ours, theirs
