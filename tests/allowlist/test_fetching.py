"""What a published list's server must not bring about: requests to this machine, answers by a proxy, keys told."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
import trustme

from mtlskit.allowlist.fetching import FetchFailed, fetch
from tests.support.echo_servers import answering
from tests.support.old_ca import old_ca

LIST = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n192.0.2.1"


def redirect(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@dataclass
class Far:
    """A server that is not on this machine, reached through a proxy that is."""

    proxy: str
    connects: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def far_away(answer: bytes, tls: ssl.SSLContext) -> AsyncIterator[Far]:
    async def head(stream: trio.abc.Stream) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            chunk = await stream.receive_some()
            assert chunk
            data += chunk
        return data

    async def serve(plain: trio.SocketStream) -> None:
        far.connects.append(await head(plain))
        await plain.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        async with trio.SSLStream(plain, tls, server_side=True, https_compatible=True) as stream:
            await head(stream)
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        far = Far(f"http://user:pass-word@127.0.0.1:{listener.socket.getsockname()[1]}")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield far
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("lists.example.com").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return context


async def test_a_list_comes_through_the_proxy_of_the_network(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with far_away(LIST, tls) as far:
        monkeypatch.setenv("HTTPS_PROXY", far.proxy)
        assert await fetch("https://lists.example.com/", most=100, deadline=10) == b"192.0.2.1"
    assert far.connects[0].startswith(b"CONNECT lists.example.com:443 ")


async def test_a_ca_that_only_a_strict_reader_refuses_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, tls = old_ca(tmp_path, "lists.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    async with far_away(LIST, tls) as far:
        monkeypatch.setenv("HTTPS_PROXY", far.proxy)
        assert await fetch("https://lists.example.com/", most=100, deadline=10) == b"192.0.2.1"


async def test_nobody_elsewhere_makes_us_ask_this_machine(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(LIST) as here:
        names = (here.url, here.url.replace("127.0.0.1", "localhost"), "https://[::1]/", "https://[::ffff:127.0.0.1]/")
        for location in names:
            async with far_away(redirect(location), tls) as far:
                monkeypatch.setenv("HTTPS_PROXY", far.proxy)
                with pytest.raises(FetchFailed, match="redirects to this machine"):
                    await fetch("https://lists.example.com/", most=100, deadline=10, follow=True)
        assert here.callers == []


async def test_no_proxy_answers_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering(LIST) as here, answering(LIST.replace(b"192.0.2.1", b"0.0.0.0/0")) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert await fetch(here.url, most=100, deadline=10) == b"192.0.2.1"
        assert proxy.callers == []


@pytest.mark.parametrize("proxy", ["ftp://user:pass-word@127.0.0.1", "http://user:pass-word@x:port", "nonsense://x"])
async def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(FetchFailed, match=r"^HTTPS_PROXY does not name a proxy that can be used$") as caught:
        await fetch("https://lists.example.com/", most=100, deadline=10)
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("host", ["xn--zzzzz---", "a..example.com", f"{'a' * 64}.example.com"])
async def test_a_redirect_to_a_host_that_is_none(host: str) -> None:
    async with answering(redirect(f"https://{host}/")) as here:
        with pytest.raises(FetchFailed, match=r"^it, or what it redirects to, is no host$"):
            await fetch(here.url, most=100, deadline=10, follow=True)
