"""The way to the server behind the gateway: every reason why there is none is told."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from mtlskit.config.values import Endpoint, UnixAddress
from mtlskit.errors import Code, SandboxError, UpstreamError
from mtlskit.sandbox.server_url import parse_server_url
from mtlskit.sandbox.upstream import Upstream, check_server, open_upstream
from mtlskit.wire.postgres.messages import authentication_ok, authentication_sasl, error_response, frame
from tests.services.places import free_port
from tests.support.space import RunningSpace

READY = frame(b"Z", b"I")
PLUS_ONLY = authentication_sasl(["SCRAM-SHA-256-PLUS"])


async def ask(upstream: Upstream, *, within: float = 30.0, database: str = "db") -> None:
    await check_server(upstream, user="ann", database=database, source="--postgres", within=within)


@asynccontextmanager
async def scripted(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[Endpoint]:
    """A server that reads one packet and does what the test says."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            assert b"user\0ann\0" in await stream.receive_some()
            await serve(stream)

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(trio.serve_tcp, handle, 0)
        yield Endpoint("127.0.0.1", listeners[0].socket.getsockname()[1])
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[Endpoint]:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(answer)

    async with scripted(serve) as endpoint:
        yield endpoint


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_closed_port(host: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        await open_upstream(Endpoint(host, free_port()), within=30.0)
    assert caught.value.code is Code.TCP_REFUSED
    assert "it refused the connection" in caught.value.sentence
    assert caught.value.hint


async def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    with pytest.raises(UpstreamError, match="Name or service not known") as caught:
        await open_upstream(Endpoint("db.invalid", 5432), within=30.0)
    assert caught.value.code is Code.DNS_FAILED


async def test_a_socket_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match="there is no such socket") as caught:
        await open_upstream(UnixAddress(tmp_path / ".s.PGSQL.5432"), within=30.0)
    assert caught.value.code is Code.TCP_UNREACHABLE


async def test_another_reason_in_the_systems_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UpstreamError, match="cannot be reached: Not a directory"):
        await open_upstream(UnixAddress(tmp_path / "file" / "socket"), within=30.0)


async def test_silence_while_connecting(monkeypatch: pytest.MonkeyPatch, autojump_clock: object) -> None:
    async def silence(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(trio, "open_tcp_stream", silence)
    with pytest.raises(UpstreamError, match="cannot be reached: no answer within 10 s") as caught:
        await open_upstream(Endpoint("192.0.2.1", 5432), within=10.0)
    assert caught.value.code is Code.TCP_TIMEOUT
    assert caught.value.hint


async def test_the_real_server(live: RunningSpace) -> None:
    await ask(parse_server_url(live.space.direct_url).upstream)


@pytest.mark.parametrize("answer", [PLUS_ONLY, authentication_ok() + READY, b"R\0\0\0\x08\0\0\0\x03"])
async def test_a_server_that_begins_a_login(answer: bytes) -> None:
    async with answering(answer) as endpoint:
        await ask(endpoint)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (error_response(sqlstate="3D000", message="no such database"), "refuses the login: no such database (3D000)"),
        (authentication_ok() + error_response(sqlstate="3D000", message="none"), "refuses the login: none (3D000)"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak the Postgres protocol"),
        (b"", "closed the connection without a word"),
    ],
)
async def test_a_server_of_no_use(answer: bytes, told: str) -> None:
    async with answering(answer) as endpoint:
        with pytest.raises(SandboxError) as caught:
            await ask(endpoint)
    assert caught.value.code is Code.SANDBOX_GATEWAY
    assert caught.value.sentence == f"--postgres: {endpoint} {told}"
    assert caught.value.hint


async def test_a_server_that_says_nothing() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with scripted(serve) as endpoint:
        with pytest.raises(SandboxError, match=r"did not answer within 0\.05 s"):
            await ask(endpoint, within=0.05)


async def test_a_server_that_breaks_off() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        # A close with this setting sends a reset instead of an end.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with scripted(serve) as endpoint:
        with pytest.raises(SandboxError, match="broke the connection off"):
            await ask(endpoint)


async def test_a_server_that_is_not_there_is_named_with_its_source() -> None:
    endpoint = Endpoint("127.0.0.1", free_port())
    with pytest.raises(SandboxError) as caught:
        await ask(endpoint)
    assert str(caught.value).startswith(f"--postgres: the server behind the gateway, {endpoint}, cannot be reached: it")
