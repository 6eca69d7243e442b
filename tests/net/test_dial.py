"""Dialling: every way in which an upstream can fail us has its error, its hint, and an end in time."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509

from mtlskit.config.values import Endpoint, IdentityConfig, Negotiation, TunnelKind, Verify, VerifyMode
from mtlskit.errors import (
    Code,
    UpstreamError,
    UpstreamLost,
    UpstreamProtocolError,
    UpstreamRefusedUs,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from mtlskit.net.dial import POSTGRES_ALPN, Dialler, Route
from mtlskit.net.faults import tls_fault
from mtlskit.net.identity import IdentitySnapshot, load_snapshot
from mtlskit.pki.certificates import spki_sha256
from tests.services.pki import Pair, Pki
from tests.support.relay_peers import read_all, reset
from tests.support.s_server import s_server
from tests.support.tls_servers import Handler, answering, closed_port, echoing, full_backlog, listening, waiting

TIMEOUT = 20.0
CA = Verify(VerifyMode.CA)
FULL = Verify()


def _snapshot(pki: Pki, *, verify: Verify = FULL, pair: Pair | None = None, direct: bool = False) -> IdentitySnapshot:
    pair = pair or pki.client
    alpn = (POSTGRES_ALPN,) if direct else ()
    return load_snapshot(IdentityConfig("test", pair.cert, pair.key, pki.server_ca), verify=verify, alpn=alpn)


def _dialler(
    *ports: int,
    host: str = "localhost",
    kind: TunnelKind = TunnelKind.POSTGRES,
    negotiation: Negotiation = Negotiation.SSLREQUEST,
    pins: tuple[bytes, ...] = (),
    timeout: float = TIMEOUT,
) -> Dialler:
    return Dialler(kind, tuple(Endpoint(host, port) for port in ports), negotiation, pins, timeout)


def _server(pki: Pki, pair: Pair | None = None, *, alpn: str | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pair = pair or pki.server
    context.load_cert_chain(pair.cert, pair.key)
    context.load_verify_locations(pki.client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


async def _refused(dialler: Dialler, identity: IdentitySnapshot) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await dialler.dial(identity)
    assert "\n" not in caught.value.sentence
    assert caught.value.hint
    assert dialler.endpoints[-1].host in caught.value.sentence
    return caught.value


async def _echoes(dialler: Dialler, identity: IdentitySnapshot) -> Route:
    upstream = await dialler.dial(identity)
    await upstream.tls.send_all(b"hello")
    assert await upstream.tls.receive_some() == b"hello"
    upstream.tls.close()
    assert upstream.identity is identity
    return upstream.route


@pytest.fixture
def identity(pki: Pki) -> IdentitySnapshot:
    """A good one, for a server whose name is checked."""
    return _snapshot(pki)


# It works.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_families(pki: Pki, identity: IdentitySnapshot, host: str) -> None:
    with listening(answering(b"S", echoing(_server(pki))), host) as port:
        route = await _echoes(_dialler(port, host=host), identity)
        assert route == Route(Endpoint(host, port), host, port)
        assert str(route) == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


async def test_a_name_and_the_address_that_it_led_to(pki: Pki, identity: IdentitySnapshot) -> None:
    with listening(answering(b"S", echoing(_server(pki)))) as port:
        dialler = _dialler(port)
        route = await _echoes(dialler, identity)
        assert str(route) == f"localhost:{port} (127.0.0.1)"
        upstream = await dialler.dial_route(route, identity)  # a cancel travels it again
        assert upstream.route == route
        upstream.tls.close()
        assert route in await dialler.resolve()


async def test_without_a_protocol_tls_begins_at_once(pki: Pki, identity: IdentitySnapshot) -> None:
    with listening(echoing(_server(pki))) as port:
        await _echoes(_dialler(port, kind=TunnelKind.TCP), identity)


async def test_direct_negotiation(pki: Pki) -> None:
    direct = _snapshot(pki, direct=True)
    with listening(echoing(_server(pki, alpn=POSTGRES_ALPN))) as port:
        await _echoes(_dialler(port, negotiation=Negotiation.DIRECT), direct)


# Nobody is there, or nobody speaks.


async def test_refused(identity: IdentitySnapshot) -> None:
    with closed_port() as port:
        error = await _refused(_dialler(port), identity)
    assert isinstance(error, UpstreamUnreachable)
    assert error.code is Code.TCP_REFUSED


async def test_a_black_hole(identity: IdentitySnapshot, autojump_clock: trio.testing.MockClock) -> None:
    with full_backlog() as port:
        began = trio.current_time()
        error = await _refused(_dialler(port, host="127.0.0.1"), identity)
        assert trio.current_time() - began == pytest.approx(TIMEOUT)
    assert isinstance(error, UpstreamTimeout)
    assert error.code is Code.TCP_TIMEOUT
    assert "allowlist" in error.hint


@pytest.mark.parametrize(
    ("handler", "stage"),
    [(waiting, "answer the SSLRequest"), (answering(b"S", waiting), "finish the TLS handshake")],
    ids=["SSLRequest", "TLS"],
)
async def test_a_server_that_never_answers(
    identity: IdentitySnapshot, mock_clock: trio.testing.MockClock, handler: Handler, stage: str
) -> None:
    mock_clock.autojump_threshold = 0.1  # the answers that do come take less
    with listening(handler) as port:
        error = await _refused(_dialler(port, host="127.0.0.1"), identity)
    assert isinstance(error, UpstreamTimeout)
    assert error.code is Code.TLS_TIMEOUT
    assert f"did not {stage} within 20 s" in error.sentence


@pytest.mark.parametrize("repetition", range(10))
async def test_a_reset_at_any_moment(identity: IdentitySnapshot, repetition: int) -> None:
    with listening(reset) as port:
        error = await _refused(_dialler(port, host="127.0.0.1"), identity)
    assert isinstance(error, UpstreamLost)
    assert error.code is Code.TCP_RESET


async def test_a_reset_before_we_have_looked_at_the_connection(
    identity: IdentitySnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trio.open_tcp_stream

    async def open_and_be_reset(*arguments: Any, **options: Any) -> trio.SocketStream:
        stream = await real(*arguments, **options)
        await trio.lowlevel.wait_readable(stream.socket)
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", open_and_be_reset)
    with listening(reset) as port:
        error = await _refused(_dialler(port, host="127.0.0.1"), identity)
    assert error.code is Code.TCP_RESET


# The answer to the SSLRequest.


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        (b"N", UpstreamRefusedUs, Code.TLS_NOT_OFFERED),
        (b"E\0\0\0\x1aSFATAL\0Cxxxxx\0Minjected\0\0", UpstreamRefusedUs, Code.TLS_UNKNOWN_ANSWER),
        (b"SR\0\0\0\x08\0\0\0\0", UpstreamProtocolError, Code.TLS_BYTES_AFTER_ANSWER),
        (b"HTTP/1.1 400 Bad Request\r\n", UpstreamProtocolError, Code.TLS_UNKNOWN_ANSWER),
        (b"\x15\x03\x03\0\x02\x02\x46", UpstreamProtocolError, Code.TLS_UNKNOWN_ANSWER),
        (b"", UpstreamLost, Code.UPSTREAM_CLOSED),
    ],
    ids=["N", "E", "S and more", "HTTP", "a TLS alert", "EOF"],
)
async def test_answers_that_are_no_yes(
    identity: IdentitySnapshot, answer: bytes, kind: type[UpstreamError], code: Code
) -> None:
    heard: list[bytes] = []

    def listen_on(client: socket.socket) -> None:
        if answer:
            heard.append(read_all(client))

    with listening(answering(answer, listen_on)) as port:
        error = await _refused(_dialler(port), identity)
    assert type(error) is kind
    assert error.code is code
    assert "injected" not in str(error) + error.hint
    assert heard in ([b""], []), "we went on after the answer"


# TLS.


@pytest.mark.parametrize(
    ("pair", "verify", "code"),
    [
        ("server_stranger", "full", Code.TLS_CHAIN_NOT_TRUSTED),
        ("server_stranger", "ca", Code.TLS_CHAIN_NOT_TRUSTED),
        ("server_stranger", "name:localhost", Code.TLS_CHAIN_NOT_TRUSTED),
        ("server_other_name", "full", Code.TLS_NAME_MISMATCH),
        ("server_other_name", "name:localhost", Code.TLS_NAME_MISMATCH),
        ("server_other_name", "ca", None),
        ("server_other_name", "name:other.example", None),
        ("server", "name:other.example", Code.TLS_NAME_MISMATCH),
        ("server", "full", None),
        ("server_expired", "full", Code.TLS_SERVER_EXPIRED),
        ("server_expired", "ca", Code.TLS_SERVER_EXPIRED),
    ],
)
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_what_the_server_presents(pki: Pki, host: str, pair: str, verify: str, code: Code | None) -> None:
    name = verify.removeprefix("name:")
    mode = Verify(VerifyMode.NAME, name) if name != verify else Verify(VerifyMode(verify))
    with listening(answering(b"S", echoing(_server(pki, getattr(pki, pair))))) as port:
        identity, dialler = _snapshot(pki, verify=mode), _dialler(port, host=host)
        if code is None:
            await _echoes(dialler, identity)
            return
        error = await _refused(dialler, identity)
    assert isinstance(error, UpstreamUntrusted)
    assert error.code is code


async def test_the_name_that_the_server_is_asked_for(pki: Pki) -> None:
    asked: list[str | None] = []
    context = _server(pki)
    context.sni_callback = lambda sock, name, context: asked.append(name)
    with listening(answering(b"S", echoing(context))) as port:
        await _echoes(_dialler(port), _snapshot(pki))
        await _echoes(_dialler(port, host="127.0.0.1"), _snapshot(pki, verify=CA))
        await _echoes(_dialler(port, host="127.0.0.1"), _snapshot(pki, verify=Verify(VerifyMode.NAME, "localhost")))
    assert asked == ["localhost", None, "localhost"]


async def test_pins_add_to_the_chain_check(pki: Pki) -> None:
    pin = spki_sha256(x509.load_pem_x509_certificate(pki.server.cert.read_bytes()))
    other = bytes(32)
    with listening(answering(b"S", echoing(_server(pki)))) as port:
        await _echoes(_dialler(port, pins=(other, pin)), _snapshot(pki))
        error = await _refused(_dialler(port, pins=(other,)), _snapshot(pki))
    assert isinstance(error, UpstreamUntrusted)
    assert error.code is Code.TLS_PIN_MISMATCH
    stranger = spki_sha256(x509.load_pem_x509_certificate(pki.server_stranger.cert.read_bytes()))
    with listening(answering(b"S", echoing(_server(pki, pki.server_stranger)))) as port:
        error = await _refused(_dialler(port, pins=(stranger,)), _snapshot(pki))
    assert error.code is Code.TLS_CHAIN_NOT_TRUSTED


async def test_a_server_of_yesterday(pki: Pki, identity: IdentitySnapshot) -> None:
    with s_server(pki, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0") as server:
        error = await _refused(_dialler(server.port, host="127.0.0.1", kind=TunnelKind.TCP), identity)
    assert isinstance(error, UpstreamRefusedUs)
    assert error.code is Code.TLS_VERSION


async def test_a_server_that_speaks_no_tls(identity: IdentitySnapshot) -> None:
    def greet(client: socket.socket) -> None:
        client.sendall(b"220 mail.example ESMTP\r\n")
        waiting(client)

    with listening(greet) as port:
        error = await _refused(_dialler(port, kind=TunnelKind.TCP), identity)
    assert error.code is Code.TLS_HANDSHAKE_FAILED
    assert "does not speak TLS" in error.sentence


@pytest.mark.parametrize("server_alpn", [None, "http/1.1"])
async def test_direct_negotiation_with_a_server_that_does_not_agree(pki: Pki, server_alpn: str | None) -> None:
    context = _server(pki, alpn=server_alpn)
    with listening(echoing(context)) as port:
        error = await _refused(_dialler(port, negotiation=Negotiation.DIRECT), _snapshot(pki, direct=True))
    assert error.code is Code.TLS_ALPN


async def test_direct_negotiation_with_a_server_that_hangs_up(pki: Pki) -> None:
    def hang_up(client: socket.socket) -> None:
        client.recv(4096)

    with listening(hang_up) as port:
        error = await _refused(_dialler(port, negotiation=Negotiation.DIRECT), _snapshot(pki, direct=True))
    assert error.code is Code.UPSTREAM_CLOSED
    assert "PostgreSQL 17" in error.hint


async def test_a_server_that_hangs_up_in_the_handshake(identity: IdentitySnapshot) -> None:
    def hang_up(client: socket.socket) -> None:
        client.recv(4096)

    with listening(answering(b"S", hang_up)) as port:
        error = await _refused(_dialler(port), identity)
    assert isinstance(error, UpstreamLost)
    assert error.code is Code.UPSTREAM_CLOSED


def _with_crl(context: ssl.SSLContext, pki: Pki) -> None:
    context.load_verify_locations(pki.client_crl)
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


@pytest.mark.parametrize(
    ("pair", "prepare", "codes"),
    [
        ("client_stranger", lambda context, pki: None, {Code.TLS_CLIENT_CA_UNKNOWN}),
        ("client_revoked", _with_crl, {Code.TLS_CLIENT_CERTIFICATE_REVOKED}),
    ],
    ids=["unknown CA", "revoked"],
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLS 1.2", "TLS 1.3"])
async def test_a_client_certificate_that_the_server_refuses(
    pki: Pki, pair: str, prepare: Callable[[ssl.SSLContext, Pki], None], codes: set[Code], version: ssl.TLSVersion
) -> None:
    context = _server(pki)
    context.minimum_version = context.maximum_version = version
    prepare(context, pki)
    identity = _snapshot(pki, pair=getattr(pki, pair))
    with listening(answering(b"S", echoing(context))) as port:
        if version is ssl.TLSVersion.TLSv1_2:
            error = await _refused(_dialler(port), identity)
        else:
            # The handshake is over for us before the server has seen our certificate: its alert is the first read.
            upstream = await _dialler(port).dial(identity)
            with pytest.raises(ssl.SSLError) as caught:
                await upstream.tls.receive_some()
            upstream.tls.close()
            error = tls_fault(str(upstream.route), caught.value, identity.verify)
    assert isinstance(error, UpstreamRefusedUs)
    assert error.code in codes


# Several endpoints.


async def test_the_next_endpoint_is_tried(pki: Pki, identity: IdentitySnapshot) -> None:
    with ExitStack() as stack:
        ports = [
            stack.enter_context(closed_port()),
            stack.enter_context(listening(answering(b"N"))),
            stack.enter_context(listening(answering(b"S", echoing(_server(pki))))),
        ]
        route = await _echoes(_dialler(*ports), identity)
    assert route.port == ports[-1]


async def test_the_error_that_came_furthest_names_them_all(identity: IdentitySnapshot) -> None:
    with closed_port() as first, listening(answering(b"N")) as second, closed_port() as third:
        error = await _refused(_dialler(first, second, third), identity)
    assert error.code is Code.TLS_NOT_OFFERED
    assert all(f"localhost:{port}" in error.sentence for port in (first, second, third))
    assert isinstance(error.__cause__, UpstreamRefusedUs)


async def test_a_black_hole_leaves_the_others_their_share(
    pki: Pki, identity: IdentitySnapshot, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0.1  # the answers that do come take less
    with full_backlog() as hole, listening(answering(b"S", echoing(_server(pki)))) as port:
        dialler = _dialler(hole, port, host="127.0.0.1")
        began = trio.current_time()
        assert (await _echoes(dialler, identity)).port == port
        assert trio.current_time() - began == pytest.approx(TIMEOUT / 2)


async def test_cancelling_leaves_no_connection_behind(identity: IdentitySnapshot) -> None:
    seen: list[bytes] = []
    with listening(answering(b"S", lambda client: seen.append(read_all(client)))) as port:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_dialler(port).dial, identity)
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
    assert len(seen) == 1


# Names.


class _Names(trio.abc.HostnameResolver):
    """A resolver that knows what the test tells it; None never answers."""

    def __init__(self, known: dict[str, list[str] | None]) -> None:
        self._known = known

    async def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> Any:
        addresses = self._known.get(host.decode(), [])
        if addresses is None:
            await trio.sleep_forever()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses or ()]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


async def test_a_name_that_does_not_resolve(identity: IdentitySnapshot) -> None:
    trio.socket.set_custom_hostname_resolver(_Names({}))
    dialler = _dialler(5432, host="db.invalid")
    assert (await _refused(dialler, identity)).code is Code.DNS_FAILED
    with pytest.raises(UpstreamError, match=r"db\.invalid cannot be resolved"):
        await dialler.resolve()


async def test_a_resolver_that_does_not_answer(
    identity: IdentitySnapshot, autojump_clock: trio.testing.MockClock
) -> None:
    trio.socket.set_custom_hostname_resolver(_Names({"db.invalid": None, "good.invalid": ["192.0.2.7"]}))
    slow, good = Endpoint("db.invalid", 1), Endpoint("good.invalid", 2)
    dialler = Dialler(TunnelKind.POSTGRES, (slow,), Negotiation.SSLREQUEST, (), TIMEOUT)
    assert (await _refused(dialler, identity)).code is Code.TCP_TIMEOUT
    with pytest.raises(UpstreamError, match="the resolver does not answer"):
        await dialler.resolve()
    both = Dialler(TunnelKind.POSTGRES, (slow, good), Negotiation.SSLREQUEST, (), TIMEOUT)
    assert await both.resolve() == {Route(good, "192.0.2.7", 2)}


async def test_the_second_address_of_a_name(pki: Pki) -> None:
    with listening(answering(b"S", echoing(_server(pki))), "127.0.0.2") as port:
        trio.socket.set_custom_hostname_resolver(_Names({"db.invalid": ["127.0.0.1", "127.0.0.2"]}))
        dialler = _dialler(port, host="db.invalid")
        route = await _echoes(dialler, _snapshot(pki, verify=CA))
        assert str(route) == f"db.invalid:{port} (127.0.0.2)"
        assert {route.address for route in await dialler.resolve()} == {"127.0.0.1", "127.0.0.2"}
