"""Listeners on loopback that answer as a test tells them to, each client in a thread of its own."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mtlskit.wire.postgres.messages import SSL_REQUEST
from tests.support.relay_peers import DEADLINE, read_exactly

Handler = Callable[[socket.socket], None]


@contextmanager
def listening(handler: Handler, host: str = "127.0.0.1") -> Iterator[int]:
    """Accept on a free port, which is handed over, and give every client to `handler`, which need not close it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, 0), family=family)
    clients: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        # What befalls one client is the test's own doing, and it looks at the other end.
        with client, suppress(OSError):
            handler(client)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                client.settimeout(DEADLINE)
                clients.append(client)
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()
        acceptor.join()
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@contextmanager
def full_backlog() -> Iterator[int]:
    """The port of a listener whose queue is full: a SYN gets no answer, as behind a firewall that drops."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        yield int(listener.getsockname()[1])
        for filler in fillers:
            filler.close()


@contextmanager
def closed_port() -> Iterator[int]:
    """A port where nothing listens, and nothing else can while the test runs."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])


def answering(answer: bytes, then: Handler = lambda client: None) -> Handler:
    """Read an SSLRequest, answer it, and go on with `then`."""

    def handle(client: socket.socket) -> None:
        assert read_exactly(client, len(SSL_REQUEST)) == SSL_REQUEST
        client.sendall(answer)
        then(client)

    return handle


def waiting(client: socket.socket) -> None:
    """Say nothing until the client leaves."""
    while client.recv(4096):
        pass


def echoing(context: ssl.SSLContext) -> Handler:
    """A TLS server that sends everything back."""

    def handle(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as tls:
            while data := tls.recv(4096):
                tls.sendall(data)

    return handle
