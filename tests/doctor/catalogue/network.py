"""Faults on the way: the name, the network, the port, and who listens there."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_flags
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage
from tests.services.pki import Pki
from tests.services.settings import ServerOptions
from tests.support.bad_servers import Behaviour, black_hole, closes, says, says_nothing, serving
from tests.support.elsewhere import EVERYWHERE, LOOPBACK, SILENCE, OtherNames, on_other_host
from tests.support.tls_servers import closed_port

Build = Callable[[Stage], AbstractContextManager[Gathered]]

DB = "db.example"
UPSTREAM = f"{DB}:5432"
PLAIN_HBA = ("local all all trust", "host all all all scram-sha-256")


def tunnel(*upstream: str, kind: str = "postgres", pki: Pki | None = None, **flags: Any) -> Gathered:
    """A tunnel by flags: without an identity, unless it has to lead somewhere."""
    papers = {} if pki is None else {"cert": pki.client.cert, "key": pki.client.key, "ca": pki.server_ca}
    means = Means(step=2, deadline=10)
    return from_flags({"kind": kind, "upstream": list(upstream), **papers, **flags}, means)


def starting_from(gathered: Gathered, source: str) -> Gathered:
    """The same from this local address, which a file can say and flags cannot."""
    (case,) = gathered.cases
    return replace(gathered, cases=(replace(case, tunnel=replace(case.tunnel, source=source)),))


# Hosts of their own.


@contextmanager
def _host(
    upstream: str,
    network: tuple[str, ...],
    records: Mapping[str, str],
    stage: Stage,
    *,
    hosts: str = "",
    name_server: str = "127.0.0.53",
) -> Iterator[Gathered]:
    yield on_other_host(tunnel(upstream), *network, records=records, hosts=hosts, name_server=name_server)


def host(
    *network: str,
    upstream: str = UPSTREAM,
    records: Mapping[str, str] | None = None,
    hosts: str = "",
    name_server: str = "127.0.0.53",
) -> Build:
    """Examined on a host with this network; `records` are what its name server knows."""
    return partial(_host, upstream, network, records or {}, hosts=hosts, name_server=name_server)


# Servers.


@contextmanager
def _behaving(behaviour: Behaviour, kind: str, stage: Stage) -> Iterator[Gathered]:
    with serving(behaviour) as (_, port):
        yield tunnel(f"127.0.0.1:{port}", kind=kind)


def server(behaviour: Behaviour, kind: str = "postgres") -> Build:
    """A server that behaves so, and a tunnel of this kind."""
    return partial(_behaving, behaviour, kind)


def resets(client: socket.socket) -> None:
    """Hangs up on everybody at once, with a reset: what some firewalls do."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def replies(answer: bytes) -> Behaviour:
    """Answers whatever comes with these bytes, and says nothing more."""

    def behave(client: socket.socket) -> None:
        if client.recv(8):
            client.sendall(answer)
            says_nothing(client)

    return behave


def drips(client: socket.socket) -> None:
    """A byte now and then, for ever."""
    client.recv(1)
    pause = threading.Event()
    while client.send(b"."):
        pause.wait(0.05)


def floods(client: socket.socket) -> None:
    """As many bytes as anybody takes."""
    rubbish = os.urandom(65536).replace(b"\x16", b"*")
    while True:
        client.sendall(b"*" + rubbish)


def redis(client: socket.socket) -> None:
    """Waits for a line, as Redis does, and does not know it."""
    heard = b""
    while b"\n" not in heard:
        heard += client.recv(4096) or b"\n"
    client.sendall(b"-ERR unknown command 'HEAD', with args beginning with: '/' 'HTTP/1.0' \r\n")
    says_nothing(client)


SSH = says(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
SMTP = says(b"220 mail.example ESMTP Postfix\r\n")
MYSQL = says(b"\x4a\0\0\0\x0a8.0.36\0\x0b\0\0\0abcdefgh\0\xff\xf7\xff\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0")


@contextmanager
def _http(kind: str, stage: Stage) -> Iterator[Gathered]:
    with _web_server() as web:
        yield tunnel(f"127.0.0.1:{web.server_port}", kind=kind)


@contextmanager
def _https(stage: Stage) -> Iterator[Gathered]:
    pki: Pki = stage.fixture("pki")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.set_alpn_protocols(["http/1.1"])

    def behave(client: socket.socket) -> None:
        with context.wrap_socket(client.dup(), server_side=True) as tls:
            says_nothing(tls)

    with serving(behave) as (_, port):
        yield tunnel(f"127.0.0.1:{port}")


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Nothing."""


@contextmanager
def _web_server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Quiet) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield web
        finally:
            web.shutdown()
            thread.join()


@contextmanager
def _refused(stage: Stage) -> Iterator[Gathered]:
    with closed_port() as port:
        yield tunnel(f"127.0.0.1:{port}")


@contextmanager
def _full_queue(stage: Stage) -> Iterator[Gathered]:
    with black_hole() as (_, port):
        yield tunnel(f"127.0.0.1:{port}")


@contextmanager
def _from(source: str, upstream: str, stage: Stage) -> Iterator[Gathered]:
    yield starting_from(tunnel(upstream), source)


# Real PostgreSQL.


@contextmanager
def _plain_postgres(stage: Stage) -> Iterator[Gathered]:
    found = stage.fixture("make_postgres")(ServerOptions(tls=False, hba=PLAIN_HBA))
    yield tunnel(f"127.0.0.1:{found.port}")


@contextmanager
def _postgres(major: int, kind: str, negotiation: str | None, stage: Stage) -> Iterator[Gathered]:
    found = stage.fixture("postgres_fleet").of(major)
    yield tunnel(f"127.0.0.1:{found.port}", kind=kind, negotiation=negotiation)


@contextmanager
def _one_dead_address(stage: Stage) -> Iterator[Gathered]:
    found = stage.fixture("postgres")
    gathered = tunnel(f"{DB}:{found.port}", pki=found.pki, verify="ca")
    yield OtherNames(gathered.cases, addresses={DB: ("127.0.0.1", "127.0.0.2")})


@contextmanager
def _one_dead_endpoint(stage: Stage) -> Iterator[Gathered]:
    found = stage.fixture("postgres")
    with closed_port() as port:
        yield tunnel(f"localhost:{port}", f"localhost:{found.port}", pki=found.pki)


_HIDDEN = "SSLRequest as Postgres does: it is "

FAULTS: tuple[Fault, ...] = (
    Fault(
        "dns-no-such-name",
        "The upstream's name does not exist",
        Code.DNS_FAILED,
        host(*EVERYWHERE, records={"other.example": "10.9.8.7"}),
        seen=f"{DB} cannot be resolved: Name or service not known",
    ),
    Fault(
        "dns-no-address",
        "The upstream's name exists and has no address",
        Code.DNS_FAILED,
        host(*EVERYWHERE, records={DB: ""}),
        seen="the name exists and has no address",
    ),
    Fault(
        "dns-silent",
        "The name server swallows every question",
        Code.DNS_FAILED,
        host(*SILENCE, name_server="10.9.8.53"),
        seen="the resolver did not answer within 2 s",
    ),
    Fault(
        "dns-absent",
        "Nothing listens where the name server should be",
        Code.DNS_FAILED,
        host(*EVERYWHERE),
        seen="no resolver gives an answer",
    ),
    Fault(
        "dns-lies-this-host",
        "The resolver leads the upstream's name to this host itself",
        Code.DNS_ODD_ADDRESS,
        host(*LOOPBACK, records={DB: "127.0.0.1"}),
        seen=f"{DB} leads to 127.0.0.1, which is this host itself: {UPSTREAM} (127.0.0.1) refused the connection",
    ),
    Fault(
        "dns-lies-no-host",
        "A filter answers 0.0.0.0 for the upstream's name",
        Code.DNS_ODD_ADDRESS,
        host(*LOOPBACK, records={DB: "0.0.0.0"}),
        seen=f"{DB} leads to 0.0.0.0, which is the address of no host",
    ),
    Fault(
        "dns-example-address",
        "The name leads to an address out of documentation",
        Code.DNS_ODD_ADDRESS,
        host(*EVERYWHERE, records={DB: "192.0.2.10"}),
        seen=f"{DB} leads to 192.0.2.10, which is an address for examples in documentation",
    ),
    Fault(
        "dns-hosts-file",
        "An old line of /etc/hosts leads the name to this host, where nothing listens",
        Code.DNS_ODD_ADDRESS,
        host(*EVERYWHERE, records={DB: "10.9.8.7"}, hosts=f"127.0.0.1 {DB}\n"),
        seen=f"{DB} leads to 127.0.0.1, which is this host itself",
    ),
    Fault(
        "network-none",
        "This host has no network: a name",
        Code.NET_NO_ROUTE_OUT,
        host(),
        seen=f"this host has no way to the network, so {DB} cannot be reached",
    ),
    Fault(
        "network-none-address",
        "This host has no network: an address",
        Code.NET_NO_ROUTE_OUT,
        host(*LOOPBACK, upstream="10.1.2.3:5432"),
        seen="this host has no way to the network, so 10.1.2.3 cannot be reached",
    ),
    Fault(
        "tcp-refused",
        "Nothing listens on the port",
        Code.TCP_REFUSED,
        _refused,
        seen="refused the connection",
    ),
    Fault(
        "tcp-dropped",
        "A firewall drops our packets",
        Code.TCP_TIMEOUT,
        host(*SILENCE, upstream="10.9.8.7:5432"),
        seen="10.9.8.7:5432 did not accept a TCP connection within 2 s",
    ),
    Fault(
        "tcp-queue-full",
        "The server's queue of connections is full",
        Code.TCP_TIMEOUT,
        _full_queue,
        seen="did not accept a TCP connection within 2 s",
    ),
    Fault(
        "tcp-rejected",
        "A router says that the host cannot be reached",
        Code.TCP_UNREACHABLE,
        host(*EVERYWHERE, "ip route add unreachable 10.1.0.0/16", upstream="10.1.2.3:5432"),
        seen="nothing can be delivered there (No route to host)",
    ),
    Fault(
        "tcp-forbidden",
        "This host's own rules forbid the connection",
        Code.TCP_UNREACHABLE,
        host(*EVERYWHERE, "ip route add prohibit 10.1.0.0/16", upstream="10.1.2.3:5432"),
        seen="this host forbids it (Permission denied)",
    ),
    Fault(
        "tcp-no-ipv6",
        "The upstream has IPv6 only, and this host has none",
        Code.TCP_UNREACHABLE,
        host(*EVERYWHERE, upstream="[2001:4860::5]:5432"),
        seen="[2001:4860::5]:5432 cannot be reached: this host has no",
    ),
    Fault(
        "tcp-one-address-dead",
        "One of the name's two addresses takes no connection",
        Code.TCP_PARTLY,
        _one_dead_address,
        verdict=Verdict.WARN,
        seen="takes connections at 127.0.0.1, but ",
        # No resolver leads a name of somebody else's to this host; ours of the test does.
        warnings=frozenset({Code.DNS_ODD_ADDRESS}),
    ),
    Fault(
        "tcp-one-endpoint-dead",
        "The first of the tunnel's two endpoints is down, and the second takes over",
        Code.TCP_REFUSED,
        _one_dead_endpoint,
        verdict=Verdict.WARN,
        seen="refused the connection",
    ),
    Fault(
        "source-not-ours",
        "`source` is no address of this host",
        Code.TCP_UNREACHABLE,
        partial(_from, "192.0.2.1", "127.0.0.1:5432"),
        seen="no connection to 127.0.0.1:5432 can start from 192.0.2.1",
    ),
    Fault(
        "source-other-family",
        "`source` is IPv4, and the upstream has IPv6 only",
        Code.TCP_UNREACHABLE,
        partial(_from, "127.0.0.1", "[::1]:5432"),
        seen="[::1]:5432 has no IPv4 address, and connections to it start from 127.0.0.1",
    ),
    Fault(
        "postgres-without-tls",
        "The server has `ssl = off`",
        Code.TLS_NOT_OFFERED,
        _plain_postgres,
        seen="does not offer TLS",
    ),
    Fault(
        "postgres-too-old-for-direct",
        'negotiation = "direct" with PostgreSQL 15',
        Code.TLS_ALPN,
        partial(_postgres, 15, "postgres", "direct"),
        seen="does not take TLS at once, but answers an SSLRequest",
    ),
    Fault(
        "postgres-at-kafka",
        'kind = "kafka", and the port is that of a PostgreSQL 15',
        Code.TLS_HANDSHAKE_FAILED,
        partial(_postgres, 15, "kafka", None),
        seen="is a PostgreSQL server, and this tunnel is of kind kafka",
    ),
    Fault(
        "newer-postgres-at-kafka",
        'kind = "kafka", and the port is that of a PostgreSQL 18, which takes TLS at once',
        Code.TLS_HANDSHAKE_FAILED,
        partial(_postgres, 18, "kafka", None),
        seen="is a PostgreSQL server, and this tunnel is of kind kafka",
    ),
    Fault(
        "postgres-at-tcp",
        'kind = "tcp", and the port is that of a PostgreSQL 15',
        Code.TLS_HANDSHAKE_FAILED,
        partial(_postgres, 15, "tcp", None),
        seen="is a PostgreSQL server, and this tunnel is of kind tcp",
    ),
    Fault(
        "ssh-at-postgres",
        "The port is that of an SSH server",
        Code.TLS_UNKNOWN_ANSWER,
        server(SSH),
        seen="it is an SSH server (SSH-2.0-OpenSSH_9.2p1)",
    ),
    Fault(
        "ssh-at-kafka",
        "The port of the Kafka tunnel is that of an SSH server",
        Code.TLS_HANDSHAKE_FAILED,
        server(SSH, "kafka"),
        seen="it is an SSH server (SSH-2.0-OpenSSH_9.2p1)",
    ),
    Fault(
        "http-at-postgres",
        "The port is that of an HTTP server",
        Code.TLS_UNKNOWN_ANSWER,
        partial(_http, "postgres"),
        seen=f"{_HIDDEN}an HTTP server",
    ),
    Fault(
        "http-at-kafka",
        "The port of the Kafka tunnel is that of an HTTP server",
        Code.TLS_HANDSHAKE_FAILED,
        partial(_http, "kafka"),
        seen="it is an HTTP server",
    ),
    Fault(
        "https-at-postgres",
        "The port is that of an HTTPS server",
        Code.TLS_UNKNOWN_ANSWER,
        _https,
        seen=f"{_HIDDEN}an HTTPS server",
    ),
    Fault(
        "smtp-at-postgres",
        "The port is that of a mail server",
        Code.TLS_UNKNOWN_ANSWER,
        server(SMTP),
        seen="it is a mail server (SMTP)",
    ),
    Fault(
        "mysql-at-postgres",
        "The port is that of a MySQL server",
        Code.TLS_UNKNOWN_ANSWER,
        server(MYSQL),
        seen="it is a MySQL or MariaDB server (8.0.36)",
    ),
    Fault(
        "redis-at-postgres",
        "The port is that of a Redis server, which waits for a line",
        Code.TLS_UNKNOWN_ANSWER,
        server(redis),
        seen=f"{_HIDDEN}a Redis server",
    ),
    Fault(
        "rubbish",
        "The server answers with bytes that mean nothing",
        Code.TLS_UNKNOWN_ANSWER,
        server(replies(b"\x00\xffrubbish\x1b[31m")),
        seen=r"it answered the SSLRequest with '\x00\xffrubbish\x1b[31m'",
    ),
    Fault(
        "slow-bytes",
        "The server sends a byte now and then, without end",
        Code.TLS_UNKNOWN_ANSWER,
        server(drips),
        seen="it answered the SSLRequest with '.",
    ),
    Fault(
        "endless-bytes",
        "The server sends without end",
        Code.TLS_UNKNOWN_ANSWER,
        server(floods),
        seen="it answered the SSLRequest with '*",
    ),
    Fault(
        "endless-bytes-at-kafka",
        "The server of the Kafka tunnel sends without end",
        Code.TLS_HANDSHAKE_FAILED,
        server(floods, "kafka"),
        seen="it answered a ClientHello with '*",
    ),
    Fault(
        "silence-at-postgres",
        "Connections are taken and never answered",
        Code.TLS_TIMEOUT,
        server(says_nothing),
        seen="did not answer the SSLRequest within 2 s",
    ),
    Fault(
        "silence-at-kafka",
        "Connections of the Kafka tunnel are taken and never answered",
        Code.TLS_TIMEOUT,
        server(says_nothing, "kafka"),
        seen="did not answer a ClientHello within 2 s",
    ),
    Fault(
        "reset-at-once",
        "Connections are reset as soon as they stand",
        Code.TCP_RESET,
        server(resets),
        seen="reset the connection",
    ),
    Fault(
        "closed-after-sslrequest",
        "The server hangs up after the SSLRequest",
        Code.UPSTREAM_CLOSED,
        server(closes),
        seen="closed the connection after the SSLRequest without saying why",
    ),
    Fault(
        "injected-bytes",
        "Bytes are put behind the answer to the SSLRequest",
        Code.TLS_BYTES_AFTER_ANSWER,
        server(replies(b"SR\0\0\0\x08\0\0\0\0")),
        seen="sent bytes between its answer to the SSLRequest and the TLS handshake",
    ),
    Fault(
        "postgres-answers-with-an-error",
        "The server answers the SSLRequest with an error",
        Code.TLS_UNKNOWN_ANSWER,
        server(replies(b"E\0\0\0\x1aSFATAL\0C53300\0Mno more\0\0")),
        seen="answered the SSLRequest with an error",
    ),
)
