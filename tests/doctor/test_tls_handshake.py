"""Handshakes that are recorded: with servers that are odd, slow or no servers of TLS at all."""

from __future__ import annotations

import os
import socket
import ssl
import warnings
from collections.abc import Callable

import pytest
import trio

from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.doctor.tls.contexts import ANY_STRENGTH, looking
from mtlskit.doctor.tls.handshake import Handshake, Target
from mtlskit.doctor.tls.looking import OFFERED, REFUSED, UNCLEAR, Contexts, Known, Look, look
from mtlskit.net.names import Address
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.support.tls_servers import echoing, listening, waiting


def target(port: int, kind: TunnelKind = TunnelKind.TCP) -> Target:
    address: Address = (trio.socket.AF_INET, ("127.0.0.1", port))
    return Target(Endpoint("localhost", port), address, kind, server_name="localhost")


def seen(target: Target, step: float = 30, known: Known | None = None) -> Look:
    async def looked() -> Look:
        return await look(target, Contexts(looking()), step=step, known=known)

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


class Counting:
    """A server of TLS that counts who comes."""

    def __init__(self, pki: Pki, oldest: ssl.TLSVersion, newest: ssl.TLSVersion) -> None:
        self._pki = pki
        self._came: list[None] = []
        self.speak(oldest, newest)

    def speak(self, oldest: ssl.TLSVersion, newest: ssl.TLSVersion) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(self._pki.server.cert, self._pki.server.key)
        self._context.set_ciphers(ANY_STRENGTH)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._context.minimum_version = oldest
            self._context.maximum_version = newest

    def __call__(self, client: socket.socket) -> None:
        self._came.append(None)  # in one step: they come side by side
        echoing(self._context)(client)

    def looks(self, count: int, known: Known, port: int) -> list[tuple[int, dict[str, str]]]:
        """Of each: how many handshakes it took, and the versions."""
        found = []
        for _ in range(count):
            before = len(self._came)
            versions = seen(target(port), known=known).versions
            found.append((len(self._came) - before, versions))
        return found


NEW = {"TLSv1": REFUSED, "TLSv1.1": REFUSED, "TLSv1.2": OFFERED, "TLSv1.3": OFFERED}


def test_versions_that_are_known_are_not_tried_again(pki: Pki) -> None:
    server = Counting(pki, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    with listening(server) as port:
        assert server.looks(3, {}, port) == [(5, NEW), (1, NEW), (1, NEW)]
        assert [count for count, _ in server.looks(2, {}, port)] == [5, 1]


def test_old_versions_are_looked_at_until_they_are_gone(pki: Pki) -> None:
    server = Counting(pki, ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_3)
    known: Known = {}
    with listening(server) as port:
        old = dict.fromkeys(NEW, OFFERED)
        assert server.looks(2, known, port) == [(5, old), (5, old)]
        server.speak(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
        assert server.looks(2, known, port) == [(5, NEW), (1, NEW)]


def test_a_server_that_speaks_otherwise_than_before_is_looked_at_anew(pki: Pki) -> None:
    server = Counting(pki, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    known: Known = {}
    with listening(server) as port:
        server.looks(1, known, port)
        server.speak(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)
        without = NEW | {"TLSv1.3": REFUSED}
        assert server.looks(2, known, port) == [(5, without), (1, without)]
        server.speak(ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)
        assert server.looks(1, known, port)[0][1]["TLSv1.1"] == OFFERED


def test_what_is_known_has_bounds(pki: Pki) -> None:
    server = Counting(pki, ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)
    known: Known = {target(place): {} for place in range(1, 65)}
    with listening(server) as port:
        server.looks(1, known, port)
        assert len(known) == 64
        assert target(port) in known
