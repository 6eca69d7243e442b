"""A door in front of a broker that tells clients what a test wants, and listeners that are no brokers.

A door speaks mutual TLS on both sides, as the certificates of `tests.services.pki` allow. What the broker says of
addresses is replaced as in the product; everything else passes. Each runs in threads of its own, so that the main
thread belongs to what is tested.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mtlskit.errors import MtlskitError
from mtlskit.wire.kafka.session import KafkaSession
from tests.services.kafka_cluster import KafkaCluster
from tests.services.pki import Pair

_PATIENCE = 30.0  # seconds; a safety net, nothing is measured by it
_READ = 65_536

METADATA = 3
API_VERSIONS = 18
HANG_UP = b"(end of the connection)"

Answer = Callable[[socket.socket], None]
Body = Callable[[int, bytes], bytes | None]
Named = tuple[str, int]


@dataclass(frozen=True)
class Papers:
    """What a listener shows, and whose clients it takes; None: it does not ask."""

    pair: Pair
    client_ca: Path | None

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair.cert, self.pair.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


@contextmanager
def listener(answer: Answer, *, papers: Papers | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """Has `answer` answer each connection, behind TLS where there are papers; the port."""
    context = papers.context() if papers is not None else None
    door = socket.create_server((host, 0))
    threads: list[threading.Thread] = []
    clients: list[socket.socket] = []

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError, MtlskitError):
            if context is None:
                answer(client)
                return
            with context.wrap_socket(client, server_side=True) as inside:
                clients.append(inside)
                answer(inside)

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = door.accept()
                client.settimeout(_PATIENCE)
                clients.append(client)
                threads.append(threading.Thread(target=serve, args=(client,)))
                threads[-1].start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield door.getsockname()[1]
    finally:
        door.shutdown(socket.SHUT_RDWR)  # which wakes the acceptor, where `close` would not
        door.close()
        acceptor.join()
        for client in clients:
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


@contextmanager
def lying_door(
    kafka: KafkaCluster,
    lies: Mapping[int, Named],
    *,
    node_id: int | None = None,
    papers: Papers | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
) -> Iterator[int]:
    """Before a broker (the first), telling these addresses of nodes and the truth of all others; the port.

    `port` is where it goes instead of the broker's port for clients: then in plain text.
    """
    papers = papers or Papers(kafka.pki.server, kafka.pki.client_ca)
    context = ssl.create_default_context(cafile=kafka.ca)
    context.load_cert_chain(kafka.client.cert, kafka.client.key)
    broker = kafka.brokers[node_id or kafka.options.node_ids[0]]

    def answer(client: socket.socket) -> None:
        session = KafkaSession(lambda node, host, port: lies.get(node, (host, port)))
        with socket.create_connection((broker[0], port or broker[1]), _PATIENCE) as raw:
            if port is not None:
                _pass_on(client, raw, session)
                return
            with context.wrap_socket(raw, server_hostname=broker[0]) as inside:
                _pass_on(client, inside, session)

    with listener(answer, papers=papers, host=host) as own:
        yield own


def _pass_on(client: socket.socket, broker: socket.socket, session: KafkaSession) -> None:
    """Question and answer in turn, which is how the doctor talks."""
    while data := client.recv(_READ):
        for piece in session.receive_from_client(data).to_server:
            broker.sendall(piece)
        while session.in_flight or not session.quiet:
            data = broker.recv(_READ)
            if not data:
                return
            for piece in session.receive_from_server(data).to_client:
                client.sendall(piece)


def says(content: bytes) -> Answer:
    """Reads something, says this, and goes on reading until the client has left."""

    def answer(client: socket.socket) -> None:
        client.recv(_READ)
        client.sendall(content)
        while client.recv(_READ):
            pass

    return answer


def answers(*bodies: Body) -> Answer:
    """Takes requests of Kafka and answers each with what the first of `bodies` makes of its api key and content.

    What a body returns begins behind the correlation id. None: another one may know it; and where none does, silence.
    `HANG_UP` ends the connection.
    """

    def answer(client: socket.socket) -> None:
        while head := _exactly(client, 4):
            request = _exactly(client, int.from_bytes(head, "big"))
            key, _, correlation_id = struct.unpack_from("!hhi", request)
            made = next((found for body in bodies if (found := body(key, request)) is not None), None)
            if made == HANG_UP:
                return
            if made is not None:
                client.sendall(struct.pack("!ii", 4 + len(made), correlation_id) + made)

    return answer


def versions(key: int, _request: bytes) -> bytes | None:
    """What Kafka 4.1 speaks, of what the doctor asks."""
    if key != API_VERSIONS:
        return None
    offers = ((0, 0, 13), (1, 4, 18), (3, 0, 13), (16, 0, 5), (17, 0, 1), (18, 0, 4))
    return struct.pack("!hi", 0, len(offers)) + b"".join(struct.pack("!hhh", *offer) for offer in offers)


def metadata(
    members: Callable[[], Sequence[tuple[int, str, int]]], *, controller: int = 1, topics: bytes = bytes(4)
) -> Body:
    """A cluster in versions 2 and 4; `topics` is the array of topics."""

    def body(key: int, request: bytes) -> bytes | None:
        if key != METADATA:
            return None
        named = members()
        brokers = b"".join(
            struct.pack("!i", node) + text(host) + struct.pack("!ih", port, -1) for node, host, port in named
        )
        throttled = b"" if request[3] < 3 else bytes(4)
        head = throttled + struct.pack("!i", len(named)) + brokers
        return head + text("a-fake-cluster") + struct.pack("!i", controller) + topics

    return body


def answer_to(wanted: int, content: bytes) -> Body:
    """The same to every request of this api key."""
    return lambda key, _request: content if key == wanted else None


def text(value: str) -> bytes:
    """A string in the old layout."""
    encoded = value.encode()
    return struct.pack("!h", len(encoded)) + encoded


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = client.recv(count - len(data))
        if not more:
            return b""
        data += more
    return data


@contextmanager
def closed_port() -> Iterator[int]:
    """A port that refuses: it is bound, so that nobody else gets it, and does not listen."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
