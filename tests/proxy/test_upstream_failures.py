"""Whatever the upstream does wrong before a session stands: the client hears why, in its own protocol."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import trio

from mtlskit.config.values import Endpoint, Negotiation, Timeouts, TunnelKind, Verify, VerifyMode
from mtlskit.proxy.events import SessionFailed, SessionOpened, TunnelListening, UpstreamSkipped
from mtlskit.wire.postgres.messages import SSL_REQUEST, ErrorFields, authentication_sasl
from tests.support.fake_upstream import Papers, Script, ServerSide, fake_upstream, nobody_listens, refusing, welcoming
from tests.support.tunnels import STARTUP, Running, running_proxy, tunnel


async def _told(running: Running) -> ErrorFields:
    """What a client gets, after a look at the event that tells the operator the same."""
    async with running.connect() as client:
        await client.send(STARTUP)
        error: ErrorFields = await client.error()
    failed = await running.events.wait_for(SessionFailed)
    assert error.message == f"mtlskit: {failed.reason} [{failed.code}]"
    assert error.hint == failed.hint != ""
    assert error.severity == "FATAL"
    return error


def _answering(answer: bytes) -> Script:
    async def script(server: ServerSide) -> None:
        assert await server.read_exactly(8) == SSL_REQUEST
        await server.raw.send_all(answer)
        await server.until_closed()

    return script


def _after_start_up(step: Callable[[ServerSide], Awaitable[None]]) -> Script:
    async def script(server: ServerSide) -> None:
        await server.open()
        await step(server)

    return script


async def _silence(server: ServerSide) -> None:
    await server.until_closed()


async def _close(server: ServerSide) -> None:
    """Nothing: the connection is closed behind the script."""


async def _close_notify(server: ServerSide) -> None:
    await server.close_notify()


async def _reset(server: ServerSide) -> None:
    server.reset()


async def _rubbish(server: ServerSide) -> None:
    await server.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await server.until_closed()


async def _only_plus(server: ServerSide) -> None:
    await server.send(authentication_sasl(["SCRAM-SHA-256-PLUS"]))
    await server.until_closed()


async def _half_a_message(server: ServerSide) -> None:
    await server.send(b"R\0\0")


async def _plain_text_after_tls(server: ServerSide) -> None:
    await server.raw.send_all(b"this is no TLS record, and never was one")
    await server.until_closed()


async def _close_before_tls(server: ServerSide) -> None:
    assert await server.read_exactly(8) == SSL_REQUEST


async def _close_in_handshake(server: ServerSide) -> None:
    assert await server.read_exactly(8) == SSL_REQUEST
    await server.raw.send_all(b"S")
    await server.read_exactly(5)


@pytest.mark.parametrize(
    ("script", "sqlstate", "code"),
    [
        pytest.param(_answering(b"N"), "08004", "MTLS-TLS-001", id="no-tls"),
        pytest.param(_answering(b"Sinjected"), "08P01", "MTLS-TLS-002", id="bytes-after-S"),
        pytest.param(_answering(b"E\0\0\0\x0asorry\0"), "08004", "MTLS-TLS-003", id="error-to-SSLRequest"),
        pytest.param(_answering(b"HTTP/1.1"), "08P01", "MTLS-TLS-003", id="not-postgres"),
        pytest.param(_close_before_tls, "08006", "MTLS-NET-006", id="close-before-tls"),
        pytest.param(_close_in_handshake, "08006", "MTLS-NET-006", id="close-in-handshake"),
        pytest.param(_silence, "08001", "MTLS-TLS-015", id="silence"),
        pytest.param(_after_start_up(_silence), "08006", "MTLS-PG-010", id="silence-after-handshake"),
        pytest.param(_after_start_up(_close), "08006", "MTLS-NET-006", id="close-after-handshake"),
        pytest.param(_after_start_up(_close_notify), "08006", "MTLS-NET-006", id="close-notify-after-handshake"),
        pytest.param(_after_start_up(_reset), "08006", "MTLS-NET-006", id="reset-after-handshake"),
        pytest.param(_after_start_up(_half_a_message), "08006", "MTLS-NET-006", id="half-a-message"),
        pytest.param(_after_start_up(_rubbish), "08P01", "MTLS-PG-008", id="rubbish"),
        pytest.param(_after_start_up(_only_plus), "08P01", "MTLS-PG-009", id="only-plus"),
        pytest.param(_after_start_up(_plain_text_after_tls), "08004", "MTLS-TLS-014", id="no-tls-record"),
    ],
)
async def test_what_the_server_does_is_told(papers: Papers, script: Script, sqlstate: str, code: str) -> None:
    # Short where it has to run out, and never where something has to happen first.
    timeouts = {"MTLS-TLS-015": Timeouts(dial=1.5), "MTLS-PG-010": Timeouts(login=1.0)}.get(code, Timeouts())
    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, timeouts=timeouts)) as running,
    ):
        error = await _told(running)
        assert (error.sqlstate, f"[{code}]" in error.message) == (sqlstate, True), error
        await upstream.all_closed()
        await running.idle()


async def test_nobody_listens(papers: Papers) -> None:
    async with nobody_listens() as endpoint, running_proxy(tunnel(papers, endpoint)) as running:
        error = await _told(running)
        assert (error.sqlstate, "[MTLS-NET-002]" in error.message, str(endpoint) in error.message) == (
            "08001",
            True,
            True,
        )


class _NoSuchHost(trio.abc.HostnameResolver):
    async def getaddrinfo(self, host: bytes | None, port: object, *rest: object) -> list[object]:  # type: ignore[override]  # narrower is enough here
        raise trio.socket.gaierror(trio.socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise AssertionError


async def test_a_name_that_does_not_resolve(papers: Papers) -> None:
    trio.socket.set_custom_hostname_resolver(_NoSuchHost())
    async with running_proxy(tunnel(papers, Endpoint("db.invalid", 5432))) as running:
        error = await _told(running)
        assert (error.sqlstate, "[MTLS-NET-001]" in error.message) == ("08001", True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_our_certificate_is_refused_even_after_the_handshake(papers: Papers, version: ssl.TLSVersion) -> None:
    """Under TLS 1.3 the alert comes with the first read, when the handshake has succeeded for us."""
    context = papers.strict_context()
    context.maximum_version = version
    async with (
        fake_upstream(papers, refusing, context=context) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        error = await _told(running)
        assert (error.sqlstate, "[MTLS-TLS-010]" in error.message) == ("08004", True), error


async def test_the_server_is_not_trusted(papers: Papers, own_papers: Papers) -> None:
    """The alert that we send it leaves it with an error of its own, which is no fault of the test."""
    async with (
        fake_upstream(own_papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint)) as running,
    ):
        error = await _told(running)
        assert (error.sqlstate, "[MTLS-TLS-004]" in error.message) == ("08001", True)


async def test_the_server_has_another_name(papers: Papers) -> None:
    config = tunnel(papers, Endpoint("127.0.0.1", 1), verify=Verify(VerifyMode.NAME, "db.example.com"))
    async with fake_upstream(papers) as upstream:
        config = replace(config, upstream=(upstream.endpoint,))
        async with running_proxy(config) as running:
            error = await _told(running)
            assert (error.sqlstate, "[MTLS-TLS-005]" in error.message) == ("08001", True)


async def test_the_server_has_another_key_than_the_pinned_one(papers: Papers) -> None:
    async with (
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, pins=(bytes(32),))) as running,
    ):
        error = await _told(running)
        assert (error.sqlstate, "[MTLS-TLS-007]" in error.message) == ("08001", True)


async def test_direct_tls_without_alpn(papers: Papers) -> None:
    async def script(server: ServerSide) -> None:
        await server.shake_hands()
        await server.until_closed()

    async with (
        fake_upstream(papers, script) as upstream,
        running_proxy(tunnel(papers, upstream.endpoint, negotiation=Negotiation.DIRECT)) as running,
    ):
        error = await _told(running)
        assert (error.sqlstate, "[MTLS-TLS-016]" in error.message) == ("08P01", True)


async def test_the_next_upstream_is_tried(papers: Papers) -> None:
    async with (
        nobody_listens() as refused,
        fake_upstream(papers) as upstream,
        running_proxy(tunnel(papers, refused, upstream.endpoint)) as running,
        running.connect() as client,
    ):
        await client.login()
        assert not running.events.of(SessionFailed)
        [told] = running.events.of(UpstreamSkipped)
        assert told.sentence() == (
            f"reporting: {refused} failed ({refused} refused the connection) [MTLS-NET-002]; "
            f"went on to {upstream.endpoint}"
        )


@pytest.mark.parametrize("kind", [TunnelKind.POSTGRES, TunnelKind.TCP])
async def test_an_upstream_that_is_passed_over_is_told_of_until_it_works_again(
    papers: Papers, kind: TunnelKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads nowhere, somewhere, and nowhere again."""
    monkeypatch.setattr("mtlskit.net.names.FRESH", 0.0)  # as if seconds went by between the clients
    names = {"first.invalid": False}
    trio.socket.set_custom_hostname_resolver(_Fickle(names))

    async def come_and_go() -> None:
        before = len(running.events.of(SessionOpened))
        async with running.connect() as client:
            if kind is TunnelKind.POSTGRES:
                await client.login()
            await running.events.wait_for(SessionOpened, before + 1)

    async with fake_upstream(papers, _take_anything if kind is TunnelKind.TCP else welcoming) as upstream:
        first = Endpoint("first.invalid", upstream.endpoint.port)
        config = tunnel(papers, first, upstream.endpoint, kind=kind, verify=Verify(VerifyMode.CA))
        async with running_proxy(config) as running:
            told = []
            for works in (False, False, True, False):
                names["first.invalid"] = works
                await come_and_go()
                told.append(len(running.events.of(UpstreamSkipped)))
            assert told == [1, 1, 1, 2]
            assert {event.endpoint for event in running.events.of(UpstreamSkipped)} == {str(first)}


class _Fickle(trio.abc.HostnameResolver):
    def __init__(self, names: dict[str, bool]) -> None:
        self._names = names

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        if not self._names.get(host.decode(), True):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def _take_anything(server: ServerSide) -> None:
    await server.shake_hands()
    await server.until_closed()


@pytest.mark.parametrize("with_ca", [True, False])
async def test_the_systems_roots_are_named_where_no_ca_is_set(papers: Papers, with_ca: bool) -> None:
    identity = papers.identity if with_ca else replace(papers.identity, ca=None)
    async with running_proxy(tunnel(papers, Endpoint("127.0.0.1", 1), identity=identity)) as running:
        listening = running.events.of(TunnelListening)[0]
    assert ("(verify full with the system's roots)" in listening.sentence()) is not with_ca


async def test_no_secret_of_the_identity_reaches_an_error(own_papers: Papers) -> None:
    key = own_papers.identity.key.read_text()
    async with nobody_listens() as endpoint, running_proxy(tunnel(own_papers, endpoint)) as running:
        error = await _told(running)
        shown = f"{error}{running.events.seen}"
        assert not any(line in shown for line in key.splitlines())
