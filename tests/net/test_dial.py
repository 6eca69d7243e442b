"""Dialling: every way in which an upstream can fail us has its error, its hint, and an end in time."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from cryptography import x509

from mtlskit.config.values import Endpoint, Negotiation, TunnelKind, Verify, VerifyMode
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
from mtlskit.net import connect
from mtlskit.net.dial import POSTGRES_ALPN, Route
from mtlskit.net.faults import tls_fault
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.pki.certificates import issuer_text, spki_sha256, subject_text
from tests.services.pki import Pki
from tests.support.dialling import CA, TIMEOUT, dialler_for, echoes, refused, server_context, snapshot
from tests.support.relay_peers import read_all, reset
from tests.support.s_server import s_server
from tests.support.tls_servers import Handler, answering, closed_port, echoing, full_backlog, listening, waiting

# It works.


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_both_families(pki: Pki, identity: IdentitySnapshot, host: str) -> None:
    with listening(answering(b"S", echoing(server_context(pki))), host) as port:
        route = await echoes(dialler_for(port, host=host), identity)
        assert route == Route(Endpoint(host, port), host, port)
        assert str(route) == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


async def test_a_name_and_the_address_that_it_led_to(pki: Pki, identity: IdentitySnapshot) -> None:
    with listening(answering(b"S", echoing(server_context(pki)))) as port:
        dialler = dialler_for(port)
        route = await echoes(dialler, identity)
        assert str(route) == f"localhost:{port} (127.0.0.1)"
        upstream = await dialler.dial_route(route, identity)  # a cancel travels it again
        assert upstream.route == route
        upstream.tls.close()
        assert route in await dialler.resolve()


async def test_without_a_protocol_tls_begins_at_once(pki: Pki, identity: IdentitySnapshot) -> None:
    with listening(echoing(server_context(pki))) as port:
        await echoes(dialler_for(port, kind=TunnelKind.TCP), identity)


async def test_direct_negotiation(pki: Pki) -> None:
    direct = snapshot(pki, direct=True)
    with listening(echoing(server_context(pki, alpn=POSTGRES_ALPN))) as port:
        await echoes(dialler_for(port, negotiation=Negotiation.DIRECT), direct)


# Nobody is there, or nobody speaks.


async def test_refused(identity: IdentitySnapshot) -> None:
    with closed_port() as port:
        error = await refused(dialler_for(port), identity)
    assert isinstance(error, UpstreamUnreachable)
    assert error.code is Code.TCP_REFUSED


async def test_a_black_hole(identity: IdentitySnapshot, autojump_clock: trio.testing.MockClock) -> None:
    with full_backlog() as port:
        began = trio.current_time()
        error = await refused(dialler_for(port, host="127.0.0.1"), identity)
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
        error = await refused(dialler_for(port, host="127.0.0.1"), identity)
    assert isinstance(error, UpstreamTimeout)
    assert error.code is Code.TLS_TIMEOUT
    assert f"did not {stage} within 20 s" in error.sentence


@pytest.mark.parametrize("repetition", range(10))
async def test_a_reset_at_any_moment(identity: IdentitySnapshot, repetition: int) -> None:
    with listening(reset) as port:
        error = await refused(dialler_for(port, host="127.0.0.1"), identity)
    assert isinstance(error, UpstreamLost)
    assert error.code is Code.TCP_RESET


async def test_a_reset_before_we_have_looked_at_the_connection(
    identity: IdentitySnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = connect.open_socket

    async def open_and_be_reset(*arguments: Any) -> trio.socket.SocketType:
        sock = await real(*arguments)
        await trio.lowlevel.wait_readable(sock)
        return sock

    monkeypatch.setattr(connect, "open_socket", open_and_be_reset)
    with listening(reset) as port:
        error = await refused(dialler_for(port, host="127.0.0.1"), identity)
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
        error = await refused(dialler_for(port), identity)
    assert type(error) is kind
    assert error.code is code
    assert "injected" not in str(error) + error.hint
    assert heard in ([b""], []), "we went on after the answer"


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "'HTTP/1.1 400 Bad Req'"),
        (b"\x1b[31mSSH\r\n'", '"\\x1b[31mSSH\\r\\n\'"'),
    ],
)
async def test_what_is_no_postgres_is_shown_as_far_as_it_helps(
    identity: IdentitySnapshot, answer: bytes, shown: str
) -> None:
    with listening(answering(answer)) as port:
        error = await refused(dialler_for(port), identity)
    assert error.sentence.endswith(f"it answered the SSLRequest with {shown}")


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
    with listening(answering(b"S", echoing(server_context(pki, getattr(pki, pair))))) as port:
        identity, dialler = snapshot(pki, verify=mode), dialler_for(port, host=host)
        if code is None:
            await echoes(dialler, identity)
            return
        error = await refused(dialler, identity)
    assert isinstance(error, UpstreamUntrusted)
    assert error.code is code
    assert (f"; compared with {pki.server_ca} (CN=" in error.sentence) is (code is Code.TLS_CHAIN_NOT_TRUSTED)
    leaf = x509.load_pem_x509_certificate(getattr(pki, pair).cert.read_bytes())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    told = {
        Code.TLS_CHAIN_NOT_TRUSTED: f"; its certificate is {subject_text(leaf)}, issued by {issuer_text(leaf)}; ",
        Code.TLS_NAME_MISMATCH: f"; its certificate is for {', '.join(str(name.value) for name in names)}",
        Code.TLS_SERVER_EXPIRED: "certificate has expired",
    }
    assert told[code] in error.sentence


async def test_the_name_that_the_server_is_asked_for(pki: Pki) -> None:
    asked: list[str | None] = []
    context = server_context(pki)
    context.sni_callback = lambda sock, name, context: asked.append(name)
    with listening(answering(b"S", echoing(context))) as port:
        await echoes(dialler_for(port), snapshot(pki))
        await echoes(dialler_for(port, host="127.0.0.1"), snapshot(pki, verify=CA))
        await echoes(dialler_for(port, host="127.0.0.1"), snapshot(pki, verify=Verify(VerifyMode.NAME, "localhost")))
    assert asked == ["localhost", None, "localhost"]


async def test_pins_add_to_the_chain_check(pki: Pki) -> None:
    pin = spki_sha256(x509.load_pem_x509_certificate(pki.server.cert.read_bytes()))
    other = bytes(32)
    with listening(answering(b"S", echoing(server_context(pki)))) as port:
        await echoes(dialler_for(port, pins=(other, pin)), snapshot(pki))
        error = await refused(dialler_for(port, pins=(other,)), snapshot(pki))
        assert f"the key sha256/{b64encode(pin).decode()}, which is not the pinned one" in error.sentence
        error = await refused(dialler_for(port, pins=(other, bytes(32))), snapshot(pki))
        assert "which is none of the 2 pinned ones" in error.sentence
    assert isinstance(error, UpstreamUntrusted)
    assert error.code is Code.TLS_PIN_MISMATCH
    stranger = spki_sha256(x509.load_pem_x509_certificate(pki.server_stranger.cert.read_bytes()))
    with listening(answering(b"S", echoing(server_context(pki, pki.server_stranger)))) as port:
        error = await refused(dialler_for(port, pins=(stranger,)), snapshot(pki))
    assert error.code is Code.TLS_CHAIN_NOT_TRUSTED


async def test_a_server_of_yesterday(pki: Pki, identity: IdentitySnapshot) -> None:
    with s_server(pki, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0") as server:
        error = await refused(dialler_for(server.port, host="127.0.0.1", kind=TunnelKind.TCP), identity)
    assert isinstance(error, UpstreamRefusedUs)
    assert error.code is Code.TLS_VERSION


async def test_a_server_that_speaks_no_tls(identity: IdentitySnapshot) -> None:
    def greet(client: socket.socket) -> None:
        client.sendall(b"220 mail.example ESMTP\r\n")
        waiting(client)

    with listening(greet) as port:
        error = await refused(dialler_for(port, kind=TunnelKind.TCP), identity)
    assert error.code is Code.TLS_HANDSHAKE_FAILED
    assert "does not speak TLS" in error.sentence


@pytest.mark.parametrize("server_alpn", [None, "http/1.1"])
async def test_direct_negotiation_with_a_server_that_does_not_agree(pki: Pki, server_alpn: str | None) -> None:
    context = server_context(pki, alpn=server_alpn)
    with listening(echoing(context)) as port:
        error = await refused(dialler_for(port, negotiation=Negotiation.DIRECT), snapshot(pki, direct=True))
    assert error.code is Code.TLS_ALPN


async def test_direct_negotiation_with_a_server_that_hangs_up(pki: Pki) -> None:
    def hang_up(client: socket.socket) -> None:
        client.recv(4096)

    with listening(hang_up) as port:
        error = await refused(dialler_for(port, negotiation=Negotiation.DIRECT), snapshot(pki, direct=True))
    assert error.code is Code.UPSTREAM_CLOSED
    assert "PostgreSQL 17" in error.hint


async def test_a_server_that_hangs_up_in_the_handshake(identity: IdentitySnapshot) -> None:
    def hang_up(client: socket.socket) -> None:
        client.recv(4096)

    with listening(answering(b"S", hang_up)) as port:
        error = await refused(dialler_for(port), identity)
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
    context = server_context(pki)
    context.minimum_version = context.maximum_version = version
    prepare(context, pki)
    identity = snapshot(pki, pair=getattr(pki, pair))
    with listening(answering(b"S", echoing(context))) as port:
        if version is ssl.TLSVersion.TLSv1_2:
            error = await refused(dialler_for(port), identity)
        else:
            # The handshake is over for us before the server has seen our certificate: its alert is the first read.
            upstream = await dialler_for(port).dial(identity)
            with pytest.raises(ssl.SSLError) as caught:
                await upstream.tls.receive_some()
            upstream.tls.close()
            error = tls_fault(str(upstream.route), caught.value, identity.verify)
    assert isinstance(error, UpstreamRefusedUs)
    assert error.code in codes
