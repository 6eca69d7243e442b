"""Handshakes that are recorded: with servers that are odd, slow or no servers of TLS at all."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable

import pytest
import trio

from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.doctor.tls.contexts import looking
from mtlskit.doctor.tls.handshake import Handshake, Target
from mtlskit.doctor.tls.looking import UNCLEAR, Contexts, Look, look
from mtlskit.net.names import Address
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.support.tls_servers import echoing, listening, waiting


def target(port: int, kind: TunnelKind = TunnelKind.TCP) -> Target:
    address: Address = (trio.socket.AF_INET, ("127.0.0.1", port))
    return Target(Endpoint("localhost", port), address, kind, server_name="localhost")


def seen(target: Target, step: float = 30) -> Look:
    async def looked() -> Look:
        return await look(target, Contexts(looking()), step=step)

    return trio.run(looked)


def rubbish(client: socket.socket) -> None:
    client.recv(65536)
    client.sendall(b"\x16\x03\x03\x40\x00" + os.urandom(500))


def alert(client: socket.socket) -> None:
    client.recv(65536)
    client.sendall(bytes.fromhex("15030300020228"))  # fatal, handshake_failure


def http(client: socket.socket) -> None:
    client.recv(65536)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def hangs_up(client: socket.socket) -> None:
    client.recv(65536)


@pytest.mark.parametrize("behave", [rubbish, alert, http, hangs_up])
def test_no_server_of_tls(behave: Callable[[socket.socket], None]) -> None:
    with listening(behave) as port:
        found = seen(target(port))
    assert not found.shaken
    assert not found.chain
    assert found.recorded.error is not None


def test_silence_ends_in_time() -> None:
    with listening(waiting) as port:
        found = seen(target(port), step=0.3)
    assert found.recorded.silent
    assert set(found.versions.values()) == {UNCLEAR}
    assert "did not finish the TLS handshake" in found.recorded.fault(target(port), 0.3, None).sentence


def test_an_endless_handshake_ends_in_time() -> None:
    def endless(client: socket.socket) -> None:
        client.recv(65536)
        while True:
            client.sendall(b"\x16\x03\x03\x00\x01\x02")

    with listening(endless) as port:
        assert not seen(target(port), step=0.5).shaken


def test_without_the_callback_the_rest_is_as_it_was(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_self: object, _value: object) -> None:
        raise AttributeError

    monkeypatch.setattr(ssl.SSLContext, "_msg_callback", property(fset=absent))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    with listening(echoing(context)) as port:
        found = seen(target(port))
    assert found.recorded.done
    assert found.recorded.asks is None
    assert found.recorded.version == "TLSv1.3"
    assert len(found.chain) == 1


def test_nobody_asks(pki: Pki) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    with listening(echoing(context)) as port:
        assert seen(target(port)).recorded.asks is False


def test_a_postgres(postgres: PostgresServer) -> None:
    recorded: Handshake = seen(target(postgres.port, TunnelKind.POSTGRES)).recorded
    assert recorded.done
    assert recorded.asks is True
    assert recorded.ca_names == ("CN=mtlskit tests client CA",)
    assert recorded.cipher == "TLS_AES_256_GCM_SHA384"
