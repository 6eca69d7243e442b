"""What answers at an address: the service that is meant, another one, or nobody."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from mtlskit.doctor.case import Opened
from mtlskit.doctor.checks.negotiation import negotiate
from mtlskit.doctor.finding import Finding, Verdict
from mtlskit.doctor.network.probing import Far, Service, who_listens
from mtlskit.errors import Code
from mtlskit.wire.postgres.messages import SSL_REQUEST
from tests.doctor.network_cases import addresses_of, case_for
from tests.services.fleet import Fleet
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.support.relay_peers import reset
from tests.support.tls_servers import Handler, answering, closed_port, listening, waiting


async def opened(port: int, kind: str = "postgres", **flags: Any) -> Opened:
    case, endpoint = case_for(f"127.0.0.1:{port}", kind, **flags)
    return await negotiate(case, endpoint, addresses_of("127.0.0.1", port=port)[0])


async def refused(handler: Handler, kind: str = "postgres", **flags: Any) -> Finding:
    with listening(handler) as port:
        found = await opened(port, kind, **flags)
    assert not found.ready
    (finding,) = found.findings
    assert finding.verdict is Verdict.FAIL
    assert finding.hint
    return finding


def greeting(words: bytes) -> Handler:
    """Speaks first."""

    def handle(client: socket.socket) -> None:
        client.sendall(words)
        waiting(client)

    return handle


def first_bytes(answers: Callable[[bytes], bytes]) -> Handler:
    """Answers as the first bytes deserve; with none, it is silent."""

    def handle(client: socket.socket) -> None:
        if answer := answers(client.recv(4096)):
            client.sendall(answer)
        waiting(client)

    return handle


# Those that are meant.


async def test_a_postgres_that_takes_an_sslrequest() -> None:
    with listening(answering(b"S", waiting)) as port:
        found = await opened(port)
    assert found.ready
    (finding,) = found.findings
    assert finding.verdict is Verdict.PASS
    assert finding.facts["answer"] == "S"
    assert finding.seconds is not None


async def test_real_postgres(each_postgres: PostgresServer) -> None:
    assert (await opened(each_postgres.port)).ready


@pytest.mark.parametrize("major", [17, 18])
async def test_real_postgres_takes_tls_at_once(major: int, postgres_fleet: Fleet) -> None:
    assert (await opened(postgres_fleet.of(major).port, negotiation="direct")).ready


@pytest.mark.parametrize("kind", ["kafka", "tcp"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=str)
async def test_a_tls_server(kind: str, version: ssl.TLSVersion, pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.load_verify_locations(pki.client_ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = version

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client.dup(), server_side=True) as tls:
            tls.recv(1)

    with listening(handle) as port:
        found = await opened(port, kind)
    assert found.ready
    assert [finding.facts["answer"] for finding in found.findings] == ["TLS"]


async def test_an_alert_is_tls_too() -> None:
    with listening(first_bytes(lambda _: b"\x15\x03\x01\0\x02\x02\x28")) as port:
        assert (await opened(port, "kafka")).ready


@pytest.mark.parametrize(("kind", "flags"), [("kafka", {}), ("postgres", {"negotiation": "direct"})])
async def test_a_handshake_that_stalls_is_for_the_next_check(
    kind: str, flags: dict[str, str], mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.autojump_threshold = 0.1  # the first bytes take less
    with listening(first_bytes(lambda _: b"\x16\x03\x03\x0f\xff\x02\0\x0f")) as port:
        assert (await opened(port, kind, **flags)).ready


async def test_a_server_that_takes_its_time(mock_clock: trio.testing.MockClock) -> None:
    # Asked what else it is, it still does not answer; the first question then gets its answer.
    first, later = threading.Event(), threading.Event()

    def handle(client: socket.socket) -> None:
        heard = client.recv(4096)
        if heard == SSL_REQUEST and not first.is_set():
            first.set()
            later.wait(60)
            client.sendall(b"S")
        elif heard:
            later.set()
        waiting(client)

    with listening(handle) as port:
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                found.append(await opened(port))

            found: list[Opened] = []
            nursery.start_soon(run)
            await trio.to_thread.run_sync(first.wait, 60)
            mock_clock.jump(2.5)  # beyond its patience, within the step
    assert found[0].ready


# Strangers.


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it is an SSH server (SSH-2.0-OpenSSH_9.2)"),
        (b"220 mail.example ESMTP\r\n", "it is a mail server (SMTP)"),
        (b"HTTP/1.0 400 Bad Request\r\n", "it is an HTTP server (HTTP/1.0 400)"),
        (b"\x1b[2Jhello\r\n", r"'\x1b[2Jhello\r\n'"),
    ],
)
@pytest.mark.parametrize(
    ("kind", "flags", "code"),
    [
        ("postgres", {}, Code.TLS_UNKNOWN_ANSWER),
        ("postgres", {"negotiation": "direct"}, Code.TLS_HANDSHAKE_FAILED),
        ("kafka", {}, Code.TLS_HANDSHAKE_FAILED),
        ("tcp", {}, Code.TLS_HANDSHAKE_FAILED),
    ],
    ids=["postgres", "direct", "kafka", "tcp"],
)
async def test_who_speaks_first(words: bytes, told: str, kind: str, flags: dict[str, str], code: Code) -> None:
    finding = await refused(greeting(words), kind, **flags)
    assert finding.code is code
    assert told in finding.seen


async def test_direct_tls_with_an_old_postgres(postgres_fleet: Fleet) -> None:
    found = await opened(postgres_fleet.of(15).port, negotiation="direct")
    assert [finding.code for finding in found.findings] == [Code.TLS_ALPN]


async def test_direct_tls_with_a_server_that_is_no_postgres(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client.dup(), server_side=True) as tls:
            tls.recv(1)

    finding = await refused(handle, negotiation="direct")
    assert finding.code is Code.TLS_ALPN
    assert "did not agree to ALPN `postgresql`" in finding.seen


async def test_an_sslrequest_where_tls_comes_first(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.set_alpn_protocols(["postgresql"])

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client.dup(), server_side=True) as tls:
            tls.recv(1)

    finding = await refused(handle)
    assert finding.code is Code.TLS_UNKNOWN_ANSWER
    assert "it is a PostgreSQL server that takes TLS at once" in finding.seen
    assert 'negotiation = "direct"' in finding.hint


async def test_bytes_behind_the_answer() -> None:
    assert (await refused(answering(b"SR\0\0\0\x08\0\0\0\0", waiting))).code is Code.TLS_BYTES_AFTER_ANSWER


@pytest.mark.parametrize(
    ("kind", "told"), [("postgres", "did not answer the SSLRequest"), ("kafka", "did not answer a ClientHello")]
)
async def test_silence_ends(kind: str, told: str) -> None:
    finding = await refused(waiting, kind, step=0.5)
    assert finding.code is Code.TLS_TIMEOUT
    assert finding.seen.endswith(f"{told} within 0.5 s")
    assert finding.commands == ("mtlskit my-ip",)


@pytest.mark.parametrize("kind", ["postgres", "kafka"])
async def test_a_reset(kind: str) -> None:
    assert (await refused(reset, kind)).code is Code.TCP_RESET


@pytest.mark.parametrize("kind", ["postgres", "kafka"])
async def test_the_end_of_it(kind: str) -> None:
    def handle(client: socket.socket) -> None:
        client.recv(4096)

    finding = await refused(handle, kind)
    assert finding.code in (Code.UPSTREAM_CLOSED, Code.TCP_RESET)


async def test_a_port_that_was_closed_meanwhile() -> None:
    with closed_port() as port:
        found = await opened(port)
    assert [finding.code for finding in found.findings] == [Code.TCP_REFUSED]


async def test_endless_bytes_are_not_kept() -> None:
    sent = [0]

    def handle(client: socket.socket) -> None:
        client.recv(1)
        while True:
            sent[0] += client.send(b"*" * 65536)

    for kind in ("postgres", "kafka"):
        assert "**" in (await refused(handle, kind)).seen


async def test_tls_that_never_ends_its_handshake() -> None:
    def handle(client: socket.socket) -> None:
        client.recv(4096)
        while client.send(b"\x16\x03\x03\x40\x00" + b"\x02\0\xff\xff" + b"*" * 16380):
            pass

    with listening(handle) as port:
        assert (await opened(port, "kafka", step=1.0)).ready  # it is TLS; what is wrong with it is seen by the next


async def test_a_kafka_of_rubbish() -> None:
    with listening(
        first_bytes(lambda heard: b"\0\0\0\x06\0\0\0\x01\0\x23" if heard[4:6] == b"\0\x12" else b"")
    ) as port:
        assert await who_listens(Far(addresses_of("127.0.0.1", port=port)[0]), 0.5) is None


async def test_nobody_listens() -> None:
    with closed_port() as port:
        assert await who_listens(Far(addresses_of("127.0.0.1", port=port)[0]), 5) is None


async def test_real_postgres_is_known(each_postgres: PostgresServer) -> None:
    who = await who_listens(Far(addresses_of("127.0.0.1", port=each_postgres.port)[0]), 30)
    assert who is not None
    assert who.service is Service.POSTGRES


@pytest.mark.parametrize("kind", ["postgres", "kafka"])
@pytest.mark.parametrize("after", [0.0, 0.05, 1.0, 2.5, 4.9])
async def test_it_can_be_cancelled_at_any_time(kind: str, after: float, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.autojump_threshold = 0.02
    with listening(waiting) as port, trio.move_on_after(after) as scope:
        await opened(port, kind)
    assert scope.cancelled_caught
