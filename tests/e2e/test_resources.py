"""What sessions cost is given back when they end."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.services.postgres import PostgresServer
from tests.support.proxy_process import MakeProxy, ProxyProcess
from tests.support.raw_postgres import RawClient, query_message, startup_message
from tests.support.until import until

AT_ONCE = 200
MEGABYTE = 1 << 20


def session(proxy: ProxyProcess) -> RawClient:
    client = RawClient.log_in(proxy.address, proxy.parameters("trustuser"))
    client.until("Z")
    client.send(query_message("select repeat('x', 100000)"))
    client.until("Z")
    return client


def leave_politely(client: RawClient) -> None:
    with client:
        client.send(b"X\0\0\0\4")


def vanish(client: RawClient) -> None:
    client.sock.close()


def leave_in_the_midst(client: RawClient) -> None:
    with client:
        client.send(query_message("select repeat('x', 100000) from generate_series(1, 100)"))


def be_refused(client: RawClient) -> None:
    with client:
        client.send(b"Q\0\0\0\0")
        client.rest()


ENDINGS: list[Callable[[RawClient], None]] = [leave_politely, vanish, leave_in_the_midst, be_refused]


def test_descriptors_after_many_sessions(make_proxy: MakeProxy, postgres: PostgresServer, times: int) -> None:
    """Two hundred at once, more than once, ended in every way."""
    proxy = make_proxy(postgres)
    base = proxy.descriptors()
    rounds = 2 * times
    with ThreadPoolExecutor(16) as pool:
        for _ in range(rounds):
            clients = list(pool.map(session, [proxy] * AT_ONCE))
            assert len(proxy.descriptors()) >= len(base) + 2 * AT_ONCE
            for n, client in enumerate(clients):
                ENDINGS[n % len(ENDINGS)](client)
            until(lambda: len(proxy.descriptors()) == len(base), "every descriptor is closed")
    until(lambda: len(proxy.events("session_closed")) == rounds * AT_ONCE, "the log has told of every end")


def test_memory_after_many_sessions(make_proxy: MakeProxy, postgres: PostgresServer, times: int) -> None:
    """What a session had is used again by the next one."""
    proxy = make_proxy(postgres)

    def one_by_one(count: int) -> int:
        for _ in range(count):
            leave_politely(session(proxy))
        until(lambda: len(proxy.descriptors()) == len(base), "every descriptor is closed")
        return proxy.memory()

    base = proxy.descriptors()
    before = one_by_one(100)  # fills the allocator's pools
    # 50 KiB a session kept for ever would be 10 MB.
    assert one_by_one(200 * times) - before < 5 * MEGABYTE


def test_descriptors_after_many_failures(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    """Refused certificates, strangers, cancels, and clients that leave at once."""
    pair = postgres.pki.client_revoked
    proxy = make_proxy(postgres, cert=pair.cert, key=pair.key)
    base = proxy.descriptors()
    openings = [startup_message(user="trustuser", database="app"), b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b""]
    for n in range(100):
        with RawClient.connect(proxy.address) as client:
            client.send(openings[n % len(openings)])
            if n % 2:
                client.sock.shutdown(socket.SHUT_WR)
                client.rest()
    until(lambda: len(proxy.descriptors()) == len(base), "every descriptor is closed")
