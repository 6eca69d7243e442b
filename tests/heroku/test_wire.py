"""The client against real sockets: connections that break, hang and lie at every point."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trustme
from trio.testing import MockClock

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.client import Heroku, Settings, open_heroku
from mtlskit.heroku.token import Token
from mtlskit.heroku.token_forms import AuthForm
from mtlskit.heroku.transport import Lost, Transport
from tests.support.api_client import CANARY, DATA, PLATFORM, TOKEN, assert_tells_no_secret, patience
from tests.support.old_ca import old_ca
from tests.support.tcp_api import Manner, TcpApi, answering, read_request, tcp_api


def http(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", *headers]
    if not any(line.startswith((b"Content-Length", b"Transfer-Encoding")) for line in headers):
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


FINE = http(b'{"id": "c1", "status": "pending"}')


@asynccontextmanager
async def client(url: str, **changes: Any) -> AsyncIterator[Heroku]:
    settings = Settings(url, url, Token(TOKEN, "x"))
    async with open_heroku(settings, patience=patience(base=0.0, **changes), environ={}) as heroku:
        yield heroku


async def get(heroku: Heroku) -> object:
    return await heroku.data.certificate("postgresql-x", "c1")


async def create(heroku: Heroku) -> object:
    return await heroku.data.create_certificate("postgresql-x")


def cut_unread(api: TcpApi) -> Manner:
    """Close without having read anything."""

    async def manner(stream: trio.abc.Stream) -> None:
        pass

    return manner


def reset_unread(api: TcpApi) -> Manner:
    """Reset the connection once bytes of a request have come."""

    async def manner(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        await stream.socket.recv(1)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")

    return manner


BROKEN = {
    "cut before the request is read": cut_unread,
    "reset before the request is read": reset_unread,
    "cut after the request is read": answering(),
    "cut within the head": answering(FINE[:30]),
    "cut within the body": answering(FINE[:-10]),
    "cut within a chunk": answering(http(b"20\r\n" + CANARY.encode(), b"Transfer-Encoding: chunked")),
    "not HTTP": answering(b"SSH-2.0-OpenSSH_9.9 " + CANARY.encode() + b"\r\n\r\n"),
    "a head without end": answering(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000),
}


@pytest.mark.parametrize("manner", BROKEN.values(), ids=BROKEN)
async def test_a_get_over_a_broken_connection_is_made_again(manner: Callable[[TcpApi], Manner]) -> None:
    async with tcp_api(manner, manner, answering(FINE)) as api, client(api.url) as heroku:
        assert await get(heroku) is not None
        assert api.connections == 3


@pytest.mark.parametrize("manner", BROKEN.values(), ids=BROKEN)
async def test_a_post_over_a_broken_connection_is_uncertain(manner: Callable[[TcpApi], Manner]) -> None:
    async with tcp_api(manner, answering(FINE)) as api, client(api.url) as heroku:
        with pytest.raises(HerokuError) as caught:
            await create(heroku)
        assert caught.value.code is Code.API_UNCERTAIN
        assert api.connections == 1
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize("manner", BROKEN.values(), ids=BROKEN)
async def test_a_server_that_never_answers_well_is_unreachable(manner: Callable[[TcpApi], Manner]) -> None:
    async with tcp_api(manner) as api, client(api.url, tries=3) as heroku:
        with pytest.raises(HerokuError, match="given up after 3 tries") as caught:
            await get(heroku)
        assert caught.value.code is Code.API_UNREACHABLE
    assert_tells_no_secret(caught.value)


@pytest.mark.parametrize("ask", [get, create], ids=lambda ask: ask.__name__)
async def test_a_port_where_nobody_listens(ask: Callable[[Heroku], Awaitable[object]]) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        async with client(f"http://127.0.0.1:{silent.getsockname()[1]}", tries=2) as heroku:
            with pytest.raises(HerokuError, match="no connection: ") as caught:
                await ask(heroku)
    assert caught.value.code is Code.API_UNREACHABLE
    assert_tells_no_secret(caught.value)


def silent_after(*parts: bytes) -> tuple[Callable[[TcpApi], Manner], trio.Event]:
    """Read a request, send these bytes, and then nothing. The event is set when they are sent."""
    reached = trio.Event()

    def make(api: TcpApi) -> Manner:
        async def manner(stream: trio.abc.Stream) -> None:
            await read_request(api, stream)
            for part in parts:
                await stream.send_all(part)
            reached.set()
            await stream.receive_some()

        return manner

    return make, reached


HANGS: Mapping[str, tuple[bytes, ...]] = {"at once": (), "in the head": (FINE[:30],), "in the body": (FINE[:-10],)}


@pytest.mark.parametrize("parts", HANGS.values(), ids=HANGS)
@pytest.mark.parametrize("ask", [get, create], ids=lambda ask: ask.__name__)
async def test_a_server_that_hangs(
    ask: Callable[[Heroku], Awaitable[object]], parts: tuple[bytes, ...], mock_clock: MockClock
) -> None:
    manner, reached = silent_after(*parts)
    errors: list[HerokuError] = []

    async def asking(heroku: Heroku) -> None:
        with pytest.raises(HerokuError, match="no answer within 35 s") as caught:
            await ask(heroku)
        errors.append(caught.value)

    async with tcp_api(manner) as api, client(api.url, total=0.0) as heroku, trio.open_nursery() as nursery:
        nursery.start_soon(asking, heroku)
        await reached.wait()
        mock_clock.jump(36.0)
    assert [error.code for error in errors] == [Code.API_UNREACHABLE if ask is get else Code.API_UNCERTAIN]
    assert_tells_no_secret(errors[0])


async def test_a_slow_drip_ends_with_the_deadline_too(mock_clock: MockClock) -> None:
    ended = trio.Event()

    def drip(api: TcpApi) -> Manner:
        async def manner(stream: trio.abc.Stream) -> None:
            await read_request(api, stream)
            await stream.send_all(http(b"", b"Content-Length: 1000000"))
            while not ended.is_set():  # a byte every 20 s: each is in time, the answer never is
                await stream.send_all(b" ")
                mock_clock.jump(20.0)
                await trio.testing.wait_all_tasks_blocked()

        return manner

    async with tcp_api(drip) as api, client(api.url, total=0.0) as heroku:
        with pytest.raises(HerokuError, match="no answer within 35 s"):
            await get(heroku)
        ended.set()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_huge_body_is_not_read_to_its_end(chunked: bool) -> None:
    piece = CANARY.encode() * 4096

    def huge(api: TcpApi) -> Manner:
        async def manner(stream: trio.abc.Stream) -> None:
            await read_request(api, stream)
            head = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 99999999999"
            await stream.send_all(http(b"", head))
            while True:
                await stream.send_all(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)

        return manner

    async with tcp_api(huge) as api, client(api.url) as heroku:
        with pytest.raises(HerokuError, match="the answer is larger than 10 MiB") as caught:
            await get(heroku)
        assert caught.value.code is Code.API_RUBBISH
        assert api.connections == 1
    assert_tells_no_secret(caught.value)


async def test_a_packed_body_is_not_unpacked() -> None:
    async with tcp_api(answering(http(b"\x1f\x8b" * 20, b"Content-Encoding: gzip"))) as api, client(api.url) as heroku:
        with pytest.raises(HerokuError, match=r"the answer is packed \('gzip'\)") as caught:
            await get(heroku)
    assert caught.value.code is Code.API_RUBBISH


async def test_html_from_a_real_server() -> None:
    page = http(f"<html>{CANARY}".encode()).replace(b"application/json", b"text/html")
    async with tcp_api(answering(page)) as api, client(api.url) as heroku:
        with pytest.raises(HerokuError, match="expected a JSON object; got 24 bytes of text/html") as caught:
            await get(heroku)
    assert caught.value.code is Code.API_RUBBISH
    assert_tells_no_secret(caught.value)


async def test_a_redirect_goes_nowhere() -> None:
    async with tcp_api(answering(FINE)) as other:
        there = http(b"", b"Location: " + other.url.encode(), status=b"302 Found")
        async with tcp_api(answering(there)) as api, client(api.url) as heroku:
            with pytest.raises(
                HerokuError, match=r"it sends us to http://127\.0\.0\.1, and a token is not taken along"
            ):
                await get(heroku)
        assert other.connections == 0


async def test_a_connection_that_was_closed_in_between_is_not_used_for_a_post() -> None:
    closed = trio.Event()

    def closes(api: TcpApi) -> Manner:
        async def manner(stream: trio.abc.Stream) -> None:
            await read_request(api, stream)
            await stream.send_all(FINE)
            await stream.aclose()
            closed.set()

        return manner

    async with tcp_api(closes, answering(FINE)) as api, client(api.url) as heroku:
        await get(heroku)
        await closed.wait()
        await create(heroku)
        assert api.connections == 2


async def test_what_is_sent() -> None:
    async with tcp_api(answering(FINE, keep=True)) as api, client(api.url) as heroku:
        await get(heroku)
        await create(heroku)
        assert api.connections == 1
    head, _, body = api.requests[1].partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert lines[0] == "POST /postgres/v0/databases/postgresql-x/tls-endpoint/certificates HTTP/1.1"
    headers = {name.casefold(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    assert headers == {
        "host": f"127.0.0.1:{api.port}",
        "accept": "application/vnd.heroku+json; version=3",
        "accept-encoding": "identity",
        "user-agent": "mtlskit",
        "content-type": "application/json",
        "content-length": "2",
        "authorization": f"Bearer {TOKEN}",
    }
    assert body == b"{}"


async def test_cookies_are_not_kept() -> None:
    sets = http(b'{"id": "c1", "status": "ready"}', b"Set-Cookie: a=b")
    async with tcp_api(answering(sets, keep=True)) as api, client(api.url) as heroku:
        await get(heroku)
        await get(heroku)
    assert b"ookie" not in api.requests[1]


async def test_a_call_that_is_cancelled_leaves_nothing_open() -> None:
    manner, reached = silent_after(FINE[:-10])
    async with tcp_api(manner) as api, client(api.url) as heroku, trio.open_nursery() as nursery:
        nursery.start_soon(get, heroku)
        await reached.wait()
        nursery.cancel_scope.cancel()


async def test_a_certificate_that_nobody_trusts() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    connections = 0

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        nonlocal connections
        connections += 1
        async with stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.do_handshake()

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        inner = listener.transport_listener
        assert isinstance(inner, trio.SocketListener)
        port = inner.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with client(f"https://localhost:{port}") as heroku:
            with pytest.raises(HerokuError, match="its certificate is not trusted: ") as caught:
                await create(heroku)
        nursery.cancel_scope.cancel()
    assert caught.value.code is Code.API_UNREACHABLE
    assert "SSL_CERT_FILE" in caught.value.hint
    assert connections == 1
    assert_tells_no_secret(caught.value)


async def test_a_ca_that_only_a_strict_reader_refuses_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, context = old_ca(tmp_path, "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(FINE)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
        inner = listener.transport_listener
        assert isinstance(inner, trio.SocketListener)
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        async with client(f"https://localhost:{inner.socket.getsockname()[1]}") as heroku:
            await get(heroku)
        nursery.cancel_scope.cancel()


PROXIES = {
    "refuses": answering(http(b"", status=b"403 Forbidden")),
    "hangs up": answering(),
    "opens the tunnel and hangs up": answering(b"HTTP/1.1 200 OK\r\n\r\n"),
}


@pytest.mark.parametrize("manner", PROXIES.values(), ids=PROXIES)
async def test_a_proxy_sees_where_to_and_no_token(manner: Callable[[TcpApi], Manner]) -> None:
    async with tcp_api(manner) as proxy:
        settings = Settings(PLATFORM, DATA, Token(TOKEN, "x"))
        environ = {"HTTPS_PROXY": proxy.url}
        async with open_heroku(settings, patience=patience(base=0.0, tries=2), environ=environ) as heroku:
            with pytest.raises(HerokuError) as caught:
                await create(heroku)
    assert caught.value.code is Code.API_UNREACHABLE
    assert len(proxy.requests) == 2
    assert proxy.requests[0].startswith(b"CONNECT api.data.heroku.com:443 HTTP/1.1\r\n")
    assert TOKEN.encode() not in b"".join(proxy.requests)
    assert_tells_no_secret(caught.value)


class Hanging(httpx.AsyncBaseTransport):
    """Gets as far as these steps, and then hangs."""

    def __init__(self, *steps: tuple[str, str]) -> None:
        self.steps = steps

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        for name, method in self.steps:
            await request.extensions["trace"](name, {"request": httpx.Request(method, DATA)})
        await trio.sleep_forever()
        raise AssertionError


CONNECTING = ("connection.connect_tcp.started", "GET")


@pytest.mark.parametrize(
    ("steps", "sent"),
    [
        ([], True),
        ([CONNECTING], False),
        ([CONNECTING, ("connection.start_tls.started", "POST")], False),
        ([CONNECTING, ("http11.send_request_headers.started", "POST")], True),
        ([("http11.send_request_headers.started", "POST")], True),
    ],
)
async def test_how_far_a_request_came_that_ran_out_of_time(
    steps: list[tuple[str, str]], sent: bool, autojump_clock: MockClock
) -> None:
    transport = Transport(Hanging(*steps), Token(TOKEN, "x"), limit=1, attempt=35.0)
    with pytest.raises(Lost, match="no answer within 35 s") as caught:
        await transport.send("POST", DATA, form=AuthForm.BEARER, headers={}, content=b"{}")
    assert caught.value.sent is sent
