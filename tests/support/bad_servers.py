"""Servers that fail in ways no PostgreSQL can be brought to: they take a connection, and that is nearly all."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from tests.services.pki import Pki
from tests.support.raw_postgres import SSL_REQUEST

_TIMEOUT = 60  # seconds; a safety net, nothing is measured by it

Behaviour = Callable[[socket.socket], None]


@contextmanager
def black_hole() -> Iterator[tuple[str, int]]:
    """An address that swallows every SYN, as a firewall does: a listener whose queue is full (Linux drops then)."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()


@contextmanager
def serving(behave: Behaviour) -> Iterator[tuple[str, int]]:
    """A server that treats each connection in this way, in a thread of its own, and then closes it."""
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def treat(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            behave(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.settimeout(_TIMEOUT)
                connections.append(connection)
                threads.append(threading.Thread(target=treat, args=(connection,), name="bad-server"))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        acceptor = threading.Thread(target=accept, name="bad-server-accept")
        acceptor.start()
        try:
            yield listening.getsockname()
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            acceptor.join(_TIMEOUT)
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(_TIMEOUT)


def says_nothing(connection: socket.socket) -> None:
    """Reads until the client has had enough."""
    while connection.recv(65536):
        pass


def says(words: bytes) -> Behaviour:
    """Speaks first, and then never again."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(words)
        says_nothing(connection)

    return behave


def answers(answer: bytes) -> Behaviour:
    """Answers the SSLRequest with these bytes, and says nothing more."""

    def behave(connection: socket.socket) -> None:
        assert connection.recv(len(SSL_REQUEST), socket.MSG_WAITALL) == SSL_REQUEST
        connection.sendall(answer)
        says_nothing(connection)

    return behave


def closes(connection: socket.socket) -> None:
    """Hangs up after the SSLRequest."""
    connection.recv(len(SSL_REQUEST), socket.MSG_WAITALL)


def after_tls(pki: Pki, behave: Behaviour) -> Behaviour:
    """Does as PostgreSQL up to the end of the TLS handshake, then something else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)

    def behave_so(connection: socket.socket) -> None:
        assert connection.recv(len(SSL_REQUEST), socket.MSG_WAITALL) == SSL_REQUEST
        connection.sendall(b"S")
        with context.wrap_socket(connection.dup(), server_side=True) as tls:
            tls.settimeout(_TIMEOUT)
            behave(tls)

    return behave_so
