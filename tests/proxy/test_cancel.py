"""Cancel requests: to the owner of the key, or to everybody within reason; and the client is held until it is done."""

from __future__ import annotations

import trio
import trio.testing

from mtlskit.config.values import Endpoint, Timeouts
from mtlskit.net.dial import Route
from mtlskit.proxy.cancel import CancelKeys, TokenBucket
from mtlskit.proxy.events import CancelFailed, CancelForwarded, ClientLeft, SessionClosed
from mtlskit.wire.postgres.messages import cancel_request, frame
from tests.support.fake_upstream import (
    PARAMETER,
    READY,
    Papers,
    ServerSide,
    backend_key,
    echo,
    fake_upstream,
    nobody_listens,
    refusing,
)
from tests.support.tunnels import STARTUP, running_proxy, tunnel

SECRET = bytes(range(32))


class Server:
    """A server that gives out one key and notes the cancel requests that reach it."""

    def __init__(self, process_id: int) -> None:
        self.process_id = process_id
        self.cancels: list[bytes] = []
        self.may_close = trio.Event()
        self.may_close.set()

    async def script(self, server: ServerSide) -> None:
        packet = await server.open()
        if packet == STARTUP:
            key = backend_key(self.process_id, SECRET)
            await server.send(frame(b"R", b"\0\0\0\0") + PARAMETER + key + READY)
            await echo(server)
        else:
            self.cancels.append(packet)
            await self.may_close.wait()


async def test_a_known_key_goes_to_its_owner_alone(papers: Papers) -> None:
    """The first upstream refuses at first, so the session is with the second; a cancel must not begin at the front."""
    first, second = Server(1), Server(2)
    refusing = True

    async def first_script(server: ServerSide) -> None:
        if not refusing:
            await first.script(server)

    async with (
        fake_upstream(papers, first_script) as one,
        fake_upstream(papers, second.script) as two,
        running_proxy(tunnel(papers, one.endpoint, two.endpoint)) as running,
        running.connect() as client,
    ):
        await client.login()
        refusing = False
        async with running.connect() as canceller:
            await canceller.send(cancel_request(2, SECRET))
            assert await canceller.read_to_end() == b""
        assert (first.cancels, second.cancels) == ([], [cancel_request(2, SECRET)])
        told = await running.events.wait_for(CancelForwarded)
        assert (told.known, told.upstream) == (True, (str(two.endpoint),))


async def test_the_client_is_held_until_the_server_has_closed(papers: Papers) -> None:
    server = Server(1)
    server.may_close = trio.Event()
    async with (
        fake_upstream(papers, server.script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
        running.connect() as client,
        running.connect() as canceller,
    ):
        await client.login()
        await canceller.send(cancel_request(1, SECRET))
        closed = trio.Event()

        async def wait_for_the_end() -> None:
            assert await canceller.read_to_end() == b""
            closed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_end)
            while not server.cancels:
                await trio.testing.wait_all_tasks_blocked(0.01)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not closed.is_set()
            (only,) = running.proxy.tunnels
            assert only.identity is not None
            # It is under way with a certificate that may not be revoked under it.
            assert (only.sessions_by_serial, only.undecided) == ({only.identity.serial: 2}, 0)
            server.may_close.set()


async def test_an_unknown_key_goes_to_every_address_and_is_limited(papers: Papers) -> None:
    servers = [Server(1), Server(2)]
    async with (
        fake_upstream(papers, servers[0].script) as one,
        fake_upstream(papers, servers[1].script) as two,
        running_proxy(tunnel(papers, one.endpoint, two.endpoint)) as running,
    ):
        parts = running.proxy.tunnels[0]._parts
        assert parts is not None
        parts.stray_cancels = TokenBucket(rate=1e-9, burst=2)
        for _ in range(4):
            async with running.connect() as canceller:
                await canceller.send(cancel_request(99, b"none"))
                assert await canceller.read_to_end() == b""
        assert [server.cancels for server in servers] == [[cancel_request(99, b"none")] * 2] * 2
        forwarded = running.events.of(CancelForwarded)
        assert [event.known for event in forwarded] == [False, False]
        assert set(forwarded[0].upstream) == {str(one.endpoint), str(two.endpoint)}
        assert [event.code for event in running.events.of(CancelFailed)] == ["MTLS-PG-011"] * 2


async def test_a_key_is_forgotten_with_its_session(papers: Papers) -> None:
    server = Server(1)
    async with (
        fake_upstream(papers, server.script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        parts = running.proxy.tunnels[0]._parts
        assert parts is not None
        async with running.connect() as client:
            await client.login()
            assert len(parts.cancel_keys) == 1
        await running.events.wait_for(SessionClosed)
        await running.idle()
        assert len(parts.cancel_keys) == 0
        async with running.connect() as canceller:
            await canceller.send(cancel_request(1, SECRET))
            assert await canceller.read_to_end() == b""
        assert (await running.events.wait_for(CancelForwarded)).known is False


async def test_a_cancel_that_cannot_be_delivered_is_told_and_closes_the_client(papers: Papers) -> None:
    async with nobody_listens() as endpoint, running_proxy(tunnel(papers, endpoint)) as running:
        async with running.connect() as canceller:
            await canceller.send(cancel_request(1, SECRET))
            assert await canceller.read_to_end() == b""
        assert (await running.events.wait_for(CancelFailed)).code == "MTLS-NET-002"
        assert not running.events.of(CancelForwarded)


async def test_a_cancel_whose_certificate_is_refused_is_told(papers: Papers) -> None:
    """Under TLS 1.3 our side of the handshake has succeeded, and the request is written, when the alert is read."""
    async with (
        fake_upstream(papers, refusing, context=papers.strict_context()) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        async with running.connect() as canceller:
            await canceller.send(cancel_request(1, SECRET))
            assert await canceller.read_to_end() == b""
        assert (await running.events.wait_for(CancelFailed)).code == "MTLS-TLS-010"
        assert not running.events.of(CancelForwarded)


async def test_a_stray_cancel_without_any_address_is_told(papers: Papers) -> None:
    trio.socket.set_custom_hostname_resolver(_NoSuchHost())
    async with running_proxy(tunnel(papers, Endpoint("db.invalid", 5432))) as running:
        async with running.connect() as canceller:
            await canceller.send(cancel_request(1, SECRET))
            assert await canceller.read_to_end() == b""
        assert (await running.events.wait_for(CancelFailed)).code == "MTLS-NET-001"


async def test_a_server_that_never_closes_holds_the_client_only_so_long(papers: Papers) -> None:
    server = Server(1)
    server.may_close = trio.Event()
    async with (
        fake_upstream(papers, server.script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, timeouts=Timeouts(dial=1.5))) as running,
    ):
        async with running.connect() as canceller:
            await canceller.send(cancel_request(1, SECRET))
            assert await canceller.read_to_end() == b""
        await running.events.wait_for(CancelForwarded)
        await running.idle()
        server.may_close.set()


async def test_a_full_tunnel_still_cancels(papers: Papers) -> None:
    server = Server(1)
    async with (
        fake_upstream(papers, server.script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, max_connections=1)) as running,
        running.connect() as client,
    ):
        await client.login()
        async with running.connect() as canceller:
            await canceller.send(cancel_request(1, SECRET))
            assert await canceller.read_to_end() == b""
        assert server.cancels == [cancel_request(1, SECRET)]


class _NoSuchHost(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_: object) -> list[object]:  # type: ignore[override]  # narrower is enough here
        raise trio.socket.gaierror(trio.socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise AssertionError


class _DeafResolver(trio.abc.HostnameResolver):
    async def getaddrinfo(self, *_: object) -> list[object]:  # type: ignore[override]  # never returns
        await trio.sleep_forever()
        raise AssertionError

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise AssertionError


async def test_a_resolver_that_hangs_does_not_hold_a_stray_cancel(papers: Papers) -> None:
    """Sessions that live know their addresses; those get the request when the names do not resolve in time."""
    server = Server(1)
    async with (
        fake_upstream(papers, server.script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, timeouts=Timeouts(dial=1.5))) as running,
        running.connect() as client,
    ):
        await client.login()
        parts = running.proxy.tunnels[0]._parts
        assert parts is not None
        names = tuple(Endpoint(f"db{number}.example.com", 5432) for number in range(64))
        parts.dialler = type(parts.dialler)(
            parts.config.kind, names, parts.config.negotiation, (), parts.config.timeouts.dial
        )
        trio.socket.set_custom_hostname_resolver(_DeafResolver())
        async with running.connect() as canceller:
            await canceller.send(cancel_request(99, b"none"))
            assert await canceller.read_to_end() == b""
        assert server.cancels == [cancel_request(99, b"none")]
        assert not running.events.of(ClientLeft)


def test_keys_belong_to_the_newest_route() -> None:
    keys = CancelKeys()
    endpoint = Endpoint("db", 5432)
    old, new = Route(endpoint, "192.0.2.1", 5432), Route(endpoint, "192.0.2.2", 5432)
    key = (1, b"abcd")
    keys.note(key, new)
    keys.note(key, old)
    assert keys.route_of(1, b"abcd") is old
    keys.forget(key, old)
    assert keys.route_of(1, b"abcd") is None
    keys.forget(key, new)
    keys.note(key, old)
    keys.note(key, new)
    keys.forget(key, old)
    assert keys.route_of(1, b"abcd") is new
    assert keys.routes() == {new}
    assert keys.route_of(1, b"abcX") is None
    keys.forget(key, new)
    assert len(keys) == 0


def test_the_bucket_refills_with_time_and_never_above_its_burst() -> None:
    bucket = TokenBucket(rate=1.0, burst=2)
    assert [bucket.take(100.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(101.0) for _ in range(2)] == [True, False]
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]
