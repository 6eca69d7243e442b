"""Clients that do not speak Postgres, or not as they should: each is told or dropped, and nobody else notices."""

from __future__ import annotations

import socket
import ssl
import struct

import psycopg
import pytest

from tests.services.clients import conninfo, psql
from tests.services.postgres import PostgresServer
from tests.support.proxy_process import MakeProxy, ProxyProcess, tunnel_toml
from tests.support.raw_postgres import GSSENC_REQUEST, SSL_REQUEST, RawClient, query_message, startup_message


def works(proxy: ProxyProcess) -> bool:
    return psql(proxy.parameters(), "select current_user").stdout == "scram\n"


SILENTLY: dict[str, tuple[bytes, str]] = {
    "http": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "MTLS-PG-003"),
    "http/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "MTLS-PG-003"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "MTLS-PG-002"),
}
IN_WORDS: dict[str, tuple[bytes, str, str]] = {
    "rubbish": (b"\xde\xad\xbe\xef" * 1000, "MTLS-PG-004", "08P01"),
    "too long": (struct.pack("!II", 10_005, 3 << 16), "MTLS-PG-001", "08P01"),
    "protocol 2": (struct.pack("!II", 296, 2 << 16) + bytes(288), "MTLS-PG-005", "0A000"),
    "too many requests": (SSL_REQUEST * 3 + GSSENC_REQUEST * 2, "MTLS-PG-007", "08P01"),
}


@pytest.mark.parametrize("stranger", SILENTLY)
def test_other_protocols_are_logged_and_closed(proxy: ProxyProcess, stranger: str) -> None:
    opening, code = SILENTLY[stranger]
    mark = proxy.mark
    with RawClient.connect(proxy.address) as client:
        client.send(opening)
        assert client.rest() == b""
    refused = proxy.wait_for("client_refused", since=mark)
    assert refused["code"] == code
    assert refused["hint"]
    assert works(proxy)


@pytest.mark.parametrize("stranger", IN_WORDS)
def test_broken_openings_are_answered(proxy: ProxyProcess, stranger: str) -> None:
    opening, code, state = IN_WORDS[stranger]
    mark = proxy.mark
    with RawClient.connect(proxy.address) as client:
        client.send(opening)
        fields = client.refusal()
    assert (fields["S"], fields["C"]) == ("FATAL", state)
    assert f"[{code}]" in fields["M"]
    assert proxy.wait_for("client_refused", since=mark)["code"] == code
    assert works(proxy)


def test_a_true_tls_client(proxy: ProxyProcess) -> None:
    mark = proxy.mark
    context = ssl.create_default_context()
    with socket.create_connection(proxy.address) as plain, pytest.raises((ssl.SSLError, ConnectionResetError)):
        context.wrap_socket(plain, server_hostname="localhost")
    assert proxy.wait_for("client_refused", since=mark)["code"] == "MTLS-PG-002"


def test_libpq_with_direct_tls(proxy: ProxyProcess) -> None:
    mark = proxy.mark
    parameters = proxy.parameters(sslmode="require") | {"sslnegotiation": "direct"}
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(conninfo(parameters))
    refused = proxy.wait_for("client_refused", since=mark)
    assert refused["code"] == "MTLS-PG-002"
    assert "sslnegotiation=direct" in refused["hint"]


def test_a_port_check_is_no_error(proxy: ProxyProcess) -> None:
    mark = proxy.mark
    socket.create_connection(proxy.address).close()
    proxy.wait_for("client_left", since=mark)
    with RawClient.connect(proxy.address) as client:
        client.send(SSL_REQUEST)
        assert client.read(1) == b"N"
    proxy.wait_for("client_wants_tls", since=mark)
    assert proxy.events("client_refused", "session_failed", "session_crashed", since=mark) == []


def test_slow_starters_are_cut_off_and_nobody_waits_for_them(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(toml=tunnel_toml(postgres, timeouts='{ startup = "2s" }'))
    startup = startup_message(user="trustuser", database="app")
    silent = [RawClient.connect(proxy.address) for _ in range(20)]
    halfway = [RawClient.connect(proxy.address) for _ in range(20)]
    for client in halfway:
        client.send(SSL_REQUEST + startup[:-1])
    assert works(proxy)
    told = []
    for client in (*silent, *halfway):
        with client:
            told.append(client.refusal())
    assert {fields["C"] for fields in told} == {"08006"}
    assert {event["code"] for event in proxy.events("client_refused")} == {"MTLS-PG-006"}
    assert works(proxy)


def test_a_start_up_byte_by_byte(proxy: ProxyProcess) -> None:
    with RawClient.connect(proxy.address) as client:
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in GSSENC_REQUEST + SSL_REQUEST + startup_message(user="trustuser", database="app"):
            client.send(bytes([byte]))
        assert client.read(2) == b"NN"
        assert client.until("Z")


def test_a_client_that_sends_its_query_with_its_start_up(proxy: ProxyProcess) -> None:
    with RawClient.connect(proxy.address) as client:
        client.send(startup_message(user="trustuser", database="app") + query_message("select 42"))
        client.until("Z")
        [row] = [message for message in client.until("Z") if message.kind == "D"]
    assert row.columns == [b"42"]


def test_every_stranger_at_once(proxy: ProxyProcess) -> None:
    """And a session in the midst of them."""
    openings = [case[0] for case in SILENTLY.values()] + [case[0] for case in IN_WORDS.values()]
    with psycopg.connect(conninfo(proxy.parameters())) as connection:
        for n in range(300):
            with socket.create_connection(proxy.address) as sock:
                sock.sendall(openings[n % len(openings)])
            if n % 50 == 0:
                assert connection.execute("select %s::int", (n,)).fetchone() == (n,)
    assert works(proxy)
    assert proxy.events("session_crashed") == []
