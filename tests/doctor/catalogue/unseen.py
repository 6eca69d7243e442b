"""Faults that were set up without a look at the doctor: each is what somebody who runs such a server would come with.

What must be named first was written down before the doctor was asked. `well=True` sets the same up without the fault.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import quote

import trio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, diagnose, from_file, from_flags
from mtlskit.errors import Code
from tests.doctor.catalogue.base import Fault, Stage, hold_against, told_of
from tests.services.builds import MAJORS, postgres_build
from tests.services.kafka_cluster import KafkaCluster
from tests.services.kafka_doors import Door
from tests.services.kafka_python import create_topic
from tests.services.kafka_settings import KafkaOptions
from tests.services.pki import Pair, Pki
from tests.services.places import free_port
from tests.services.postgres import PostgresServer
from tests.services.settings import DEFAULT_HBA, ServerOptions
from tests.services.template import PASSWORDS
from tests.support.kafka_liar import Papers, closed_port, listener
from tests.support.until import until
from tests.support.waypoint import Waypoint
from tests.support.x509_builder import DAY, Made, make_certificate

_PASSWORD = "kept in a drawer"
_ONE_PACKET = 1200
"""Bytes: what still passes where a tunnel within the tunnel has made packets smaller, and nobody says so."""
_PATIENCE = 30.0  # seconds; a safety net, nothing is measured by it


# Certificates and files.


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _authority(name: str, *, issuer: Made | None = None, since: float = -100, until: float = 900) -> Made:
    """A CA, with dates in days from now."""
    now = _now()
    return make_certificate(
        name,
        issuer=issuer,
        begins=now + since * DAY,
        ends=now + until * DAY,
        usages=None,
        ca=True,
        digital_signature=False,
    )


def _renewed(old: Made, issuer: Made) -> Made:
    """The same CA, name and key, with dates that hold."""
    now = _now()
    name = old.certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    assert isinstance(name, str)
    return make_certificate(
        name,
        issuer=issuer,
        key=old.key,
        begins=now - DAY,
        ends=now + 900 * DAY,
        usages=None,
        ca=True,
        digital_signature=False,
    )


def _client(issuer: Made, name: str = "client") -> Made:
    return make_certificate(name, issuer=issuer, begins=_now() - 10 * DAY, ends=_now() + 300 * DAY)


def _server(issuer: Made, name: str, *alternatives: str) -> Made:
    further = [x509.SubjectAlternativeName([_general_name(each) for each in alternatives])] if alternatives else []
    return make_certificate(
        name,
        issuer=issuer,
        begins=_now() - 10 * DAY,
        ends=_now() + 300 * DAY,
        usages=[ExtendedKeyUsageOID.SERVER_AUTH],
        further=further,
    )


def _general_name(text: str) -> x509.GeneralName:
    with suppress(ValueError):
        return x509.IPAddress(ip_address(text))
    return x509.DNSName(text)


def _file(stage: Stage, name: str, content: bytes, mode: int = 0o644) -> Path:
    path = stage.folder / name
    path.touch(mode=mode)
    path.write_bytes(content)
    return path


def _pair(stage: Stage, name: str, leaf: Made, *issuers: Made) -> Pair:
    chain = b"".join(made.cert_pem for made in (leaf, *issuers))
    return Pair(_file(stage, f"{name}.crt", chain), _file(stage, f"{name}.key", leaf.key_pem, 0o600))


# What is examined.


@dataclass(frozen=True)
class _Login:
    user: str = "scram"
    password: str = PASSWORDS["scram"]
    database: str = "app"

    def url(self, host: str, port: int) -> str:
        return f"postgres://{self.user}:{quote(self.password, safe='')}@{host}:{port}/{self.database}"


_SCRAM = _Login()


def _means(**environ: str) -> Means:
    return Means(environ=environ, deadline=10, step=2)


def _gathered(
    stage: Stage,
    where: tuple[str, int],
    *,
    client: Pair,
    ca: Path,
    login: _Login = _SCRAM,
    upstream: str = "${DATABASE_URL}",
    kind: str = "postgres",
    **further: str,
) -> Gathered:
    """What a person has who moved an application to a file and its environment; `further` are keys in TOML."""
    lines = {
        "kind": f'"{kind}"',
        "listen": f'"127.0.0.1:{free_port()}"',
        "upstream": f'"{upstream}"',
        "cert": f'"{client.cert}"',
        "key": f'"{client.key}"',
        "ca": f'"{ca}"',
        **further,
    }
    text = "\n".join(["[tunnel.reporting]", *(f"{key} = {value}" for key, value in lines.items()), ""])
    path = _file(stage, "mtlskit.toml", text.encode())
    return from_file(path, (), _means(DATABASE_URL=login.url(*where)))


def _pki(stage: Stage) -> Pki:
    pki = stage.fixture("pki")
    assert isinstance(pki, Pki)
    return pki


def _shared(stage: Stage) -> PostgresServer:
    server = stage.fixture("postgres")
    assert isinstance(server, PostgresServer)
    return server


def _own(stage: Stage, **options: Any) -> PostgresServer:
    server = stage.fixture("make_postgres")(ServerOptions(**options))
    assert isinstance(server, PostgresServer)
    return server


def _at(server: PostgresServer, host: str = "127.0.0.1") -> tuple[str, int]:
    return host, server.port


# On the way.


@contextmanager
def _empty_pool(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    server, pki = _shared(stage), _pki(stage)
    with closed_port() as nobody, Waypoint(_at(server) if well else ("127.0.0.1", nobody)) as balancer:
        yield _gathered(stage, balancer.address, client=pki.client, ca=pki.server_ca)


@contextmanager
def _balancer_ends_tls(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    server, pki = _shared(stage), _pki(stage)

    def pass_on(client: socket.socket) -> None:
        with socket.create_connection(_at(server), _PATIENCE) as raw:
            while data := client.recv(1 << 16):
                raw.sendall(data)

    with ExitStack() as stack:
        if well:
            where = stack.enter_context(Waypoint(_at(server))).address
        else:
            papers = Papers(pki.server, pki.client_ca)
            where = ("127.0.0.1", stack.enter_context(listener(pass_on, papers=papers)))
        yield _gathered(stage, where, client=pki.client, ca=pki.server_ca)


@contextmanager
def _large_packets_lost(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """The server's certificates are a flight of several packets; what is larger than one never arrives."""
    pki = _pki(stage)
    root = _authority("Example Root")
    above = _authority("Example Databases", issuer=root)
    issuing = _authority("Example Issuing", issuer=above)
    leaf = _server(issuing, "localhost", "localhost", "127.0.0.1", *(f"db-{n}.example.com" for n in range(40)))
    server = _own(stage, certificate=_pair(stage, "server", leaf, issuing, above))
    ca = _file(stage, "root.crt", root.cert_pem)

    def narrow(near: socket.socket) -> None:
        with socket.create_connection(_at(server), _PATIENCE) as far:
            there = threading.Thread(target=_copy, args=(near, far, 1 << 20))
            there.start()
            _copy(far, near, 1 << 20 if well else _ONE_PACKET)
            there.join(_PATIENCE)

    with listener(narrow) as port:
        yield _gathered(stage, ("127.0.0.1", port), client=pki.client, ca=ca)


def _copy(source: socket.socket, sink: socket.socket, largest: int) -> None:
    """Pass on until something larger comes: TCP sends that again and again, and nothing behind it is ever heard."""
    lost = False
    with suppress(OSError):
        while data := source.recv(1 << 16):
            lost = lost or len(data) > largest
            if not lost:
                sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def _one_of_two_addresses(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """A name with two addresses; behind the second, a server that was set up with the CA of another department."""
    pki, good = _pki(stage), _shared(stage)
    other = good if well else _own(stage, client_ca=pki.stranger_ca)
    really = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name != "db.example.com":
            return really(host, port, *args, **more)
        return [entry for address in ("127.0.0.1", "127.0.0.2") for entry in really(address, port, *args, **more)]

    with Waypoint(_at(other), host="127.0.0.2", port=good.port), mock.patch("socket.getaddrinfo", resolve):
        yield _gathered(
            stage,
            ("db.example.com", good.port),
            client=pki.client,
            ca=pki.server_ca,
            verify='"name:localhost"',
        )


# Certificates and keys.


@contextmanager
def _old_generation(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """The clients' CA was made anew under its old name; names alone look right, and nothing names the key."""
    pki = _pki(stage)
    before, after = _authority("Example Client CA"), _authority("Example Client CA")
    server = _own(stage, client_ca=_file(stage, "clients.crt", after.cert_pem))
    client = _pair(stage, "client", _client(after if well else before))
    yield _gathered(stage, _at(server), client=client, ca=pki.server_ca)


@contextmanager
def _revocation_list_over(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """The server's list of revoked certificates was due last week. All certificates are good."""
    pki, now = _pki(stage), _now()
    until = now + 5 * DAY if well else now - 5 * DAY
    stale = _file(stage, "clients.crl", pki.clients.crl([], (now - 30 * DAY, until)))
    with PostgresServer(postgres_build(max(MAJORS)), replace(pki, client_crl=stale)) as server:
        yield _gathered(stage, _at(server), client=pki.client, ca=pki.server_ca)


@contextmanager
def _intermediate_over(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """Our certificate holds for months, its issuer's ended; and the password is wrong besides."""
    pki = _pki(stage)
    root = _authority("Example Client Root")
    ended = _authority("Example Client Issuing", issuer=root, since=-800, until=-2)
    server = _own(stage, client_ca=_file(stage, "clients.crt", root.cert_pem))
    client = _pair(stage, "client", _client(ended), _renewed(ended, root) if well else ended)
    login = _SCRAM if well else _Login(password="not this one")
    yield _gathered(stage, _at(server), client=client, ca=pki.server_ca, login=login)


@contextmanager
def _key_is_a_pipe(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """`--key <(vault read …)`, and nobody writes into it."""
    server, pki = _shared(stage), _pki(stage)
    key = stage.folder / "client.key"
    if well:
        _file(stage, "client.key", pki.client.key.read_bytes(), 0o600)
    else:
        os.mkfifo(key, 0o600)
    given = {
        "kind": "postgres",
        "listen": f"127.0.0.1:{free_port()}",
        "upstream": [f"127.0.0.1:{server.port}"],
        "cert": str(pki.client.cert),
        "key": str(key),
        "ca": str(pki.server_ca),
    }
    yield from_flags(given, _means(PGUSER="scram", PGPASSWORD=PASSWORDS["scram"], PGDATABASE="app"))


@contextmanager
def _anchors_as_powershell_writes(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """`heroku config:get … > root.crt` on Windows makes UTF-16 of it; and the certificate is another server's."""
    pki = _pki(stage)
    server = _own(stage, certificate=pki.server if well else pki.server_other_name)
    text = pki.server_ca.read_text().replace("\n", "\r\n")
    ca = _file(stage, "root.crt", text.encode() if well else text.encode("utf-16"))
    yield _gathered(stage, _at(server), client=pki.client, ca=ca)


@contextmanager
def _address_as_common_name(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """An address as the common name, as libpq takes it; and a password whose time is over."""
    pki = _pki(stage)
    authority = _authority("Example Server CA")
    names = ("127.0.0.1",) if well else ()
    server = _own(stage, certificate=_pair(stage, "server", _server(authority, "127.0.0.1", *names)))
    until = "infinity" if well else "2020-01-01"
    server.execute(f"CREATE ROLE guest LOGIN PASSWORD '{_PASSWORD}' VALID UNTIL '{until}'")
    ca = _file(stage, "root.crt", authority.cert_pem)
    yield _gathered(stage, _at(server), client=pki.client, ca=ca, login=_Login("guest", _PASSWORD))


# Within Postgres.


@contextmanager
def _name_is_not_the_role(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """clientcert=verify-full wants the role's name in the certificate. The server says: the password is wrong."""
    pki = _pki(stage)
    mode = "verify-ca" if well else "verify-full"
    server = _own(stage, hba=(DEFAULT_HBA[0], f"hostssl all all all scram-sha-256 clientcert={mode}"))
    yield _gathered(stage, _at(server), client=pki.client, ca=pki.server_ca)


@contextmanager
def _role_and_database_shut(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """Before a move: the role may not log in any more, and the database takes no connections."""
    pki = _pki(stage)
    server = _own(stage)
    server.execute(f"CREATE ROLE reports {'LOGIN' if well else 'NOLOGIN'} PASSWORD '{_PASSWORD}'")
    server.execute("CREATE DATABASE ledger")
    if not well:
        server.execute("ALTER DATABASE ledger WITH ALLOW_CONNECTIONS false")
    login = _Login("reports", _PASSWORD, "ledger")
    yield _gathered(stage, _at(server), client=pki.client, ca=pki.server_ca, login=login)


# In the configuration.


@contextmanager
def _variable_of_a_shell(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """`$DATABASE_URL`, which only a shell would fill in; and the certificate was never copied here."""
    server, pki = _shared(stage), _pki(stage)
    client = pki.client if well else Pair(stage.folder / "client.crt", pki.client.key)
    upstream = "${DATABASE_URL}" if well else "$DATABASE_URL"
    yield _gathered(stage, _at(server), client=client, ca=pki.server_ca, upstream=upstream)


# Within Kafka.

_NODES = (1001, 1002)
_NO_DATABASE = ("127.0.0.1", 1)
"""Nobody asks for it."""


def _cluster(stage: Stage) -> KafkaCluster:
    cluster = stage.fixture("make_kafka")(KafkaOptions(node_ids=_NODES))
    assert isinstance(cluster, KafkaCluster)
    return cluster


def _add_topic(cluster: KafkaCluster, ca: Path) -> None:
    """Two partitions on both brokers, each the leader of one. `ca` is what both present certificates of."""
    door = Door(cluster.bootstrap, cluster.folder, ca=ca, client=cluster.client)
    create_topic(door, "orders", [_NODES, _NODES[::-1]])
    for node_id, partition in product(_NODES, (0, 1)):
        logged = f"Created log for partition orders-{partition} in "
        until(partial(_in_log, cluster, node_id, logged), logged)


def _in_log(cluster: KafkaCluster, node_id: int, logged: str) -> bool:
    return logged in cluster.log_of(node_id)


def _set_up_anew(cluster: KafkaCluster, node_id: int, **lines: str) -> None:
    """Start a broker again with other lines in its server.properties; `__` in a name stands for a dot."""
    cluster.kill_broker(node_id)
    path = cluster.folder / str(node_id) / "server.properties"
    more = "".join(f"{name.replace('__', '.')}={value}\n" for name, value in lines.items())
    path.write_text(path.read_text() + more)  # of two lines with one name, the later counts
    cluster.start_broker(node_id)


@contextmanager
def _brokers_share_an_address(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """The second broker was set up with a copy of the first one's file, down to advertised.listeners."""
    cluster = _cluster(stage)
    first, second = (cluster.ports[node_id] for node_id in _NODES)
    if not well:
        advertised = f"CLIENTS://127.0.0.1:{first.clients},BROKERS://127.0.0.1:{second.brokers}"
        _set_up_anew(cluster, _NODES[1], advertised__listeners=advertised)
    _add_topic(cluster, cluster.ca)
    where = ",".join(f"127.0.0.1:{port.clients}" for port in (first, second))
    yield _gathered(stage, _NO_DATABASE, client=cluster.client, ca=cluster.ca, upstream=where, kind="kafka")


@contextmanager
def _pin_of_one_broker(stage: Stage, *, well: bool = False) -> Iterator[Gathered]:
    """The key of the broker that is asked first was pinned; the other has a key of its own."""
    pki = _pki(stage)
    authority = _authority("Example Broker CA")
    other = _server(authority, "broker-2", "127.0.0.1", "localhost")
    cluster = _cluster(stage)
    store = _file(stage, "broker-2.pem", other.key_pem + other.cert_pem, 0o600)
    _set_up_anew(cluster, _NODES[1], listener__name__clients__ssl__keystore__location=str(store))
    ca = _file(stage, "root.crt", pki.server_ca.read_bytes() + authority.cert_pem)
    _add_topic(cluster, ca)
    certificates = [x509.load_pem_x509_certificate(pki.server.cert.read_bytes()), other.certificate]
    pins = ", ".join(f'"{_pin(certificate)}"' for certificate in certificates[: 2 if well else 1])
    first = f"127.0.0.1:{cluster.ports[_NODES[0]].clients}"
    yield _gathered(stage, _NO_DATABASE, client=cluster.client, ca=ca, upstream=first, kind="kafka", pins=f"[{pins}]")


def _pin(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256/{b64encode(hashlib.sha256(key).digest()).decode()}"


# All of them.

Build = Callable[..., AbstractContextManager[Gathered]]

_HERE = frozenset({Code.LOCAL_NOT_RUNNING})
"""True in all of them: there is a file with a tunnel, and nobody has started it."""


@dataclass(frozen=True)
class Unseen(Fault):
    """A fault that was set up without a look at the doctor."""

    accept: tuple[Fault, ...] = ()
    """What would be as right to be said."""
    well: Callable[[Stage], AbstractContextManager[Gathered]] | None = None
    """The same without the fault."""


def _unseen(name: str, title: str, code: Code, build: Build, *accept: Code, warn: bool = False, **more: Any) -> Unseen:
    """`accept`: further codes that would be as right; `warn`: a warning would be as right as a failure."""
    more["also"] = more.get("also", frozenset()) | _HERE
    fault = Fault(f"unseen-{name}", title, code, build, **more)
    others = [replace(fault, code=other, also=fault.also | {code}) for other in accept]
    if warn:
        others.append(replace(fault, verdict=Verdict.WARN))
    well = partial(build, well=True)
    return Unseen(fault.id, title, code, build, accept=tuple(others), well=well, **more)


POSTGRES: tuple[Unseen, ...] = (
    _unseen(
        "empty-pool",
        "A load balancer takes the connection and has no server behind it",
        Code.UPSTREAM_CLOSED,
        _empty_pool,
        Code.TCP_RESET,  # some balancers reset
    ),
    _unseen(
        "balancer-ends-tls",
        "A load balancer ends TLS itself, and does not know how Postgres asks for it",
        Code.UPSTREAM_CLOSED,  # OpenSSL says nothing to what is no TLS
        _balancer_ends_tls,
        Code.TLS_UNKNOWN_ANSWER,
    ),
    _unseen(
        "large-packets",
        "Large packets are lost on the way",
        Code.TLS_TIMEOUT,
        _large_packets_lost,
    ),
    _unseen(
        "second-address",
        "The server's name has two addresses, and the server at the second refuses our certificate",
        Code.TLS_CLIENT_CA_UNKNOWN,
        _one_of_two_addresses,
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,
        Code.TLS_OTHER_CA_ASKED,  # what it said when it was first asked, and more exact than what was expected
        warn=True,  # a tunnel that happens to come to the first works
        seen="127.0.0.2",
        warnings=frozenset({Code.DNS_ODD_ADDRESS}),  # the name is a host's, and its addresses are this one's
    ),
    _unseen(
        "old-generation",
        "The clients' CA has a new key under its old name, and our certificate is from before",
        Code.TLS_CLIENT_CA_UNKNOWN,
        _old_generation,
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,  # a signature that does not fit is an alert of its own
    ),
    _unseen(
        "revocation-list-over",
        "The server's list of revoked certificates has expired",
        Code.TLS_CLIENT_CERTIFICATE_EXPIRED,
        _revocation_list_over,
        Code.TLS_CLIENT_CERTIFICATE_REFUSED,  # the alert says expired, and nothing of ours has
    ),
    _unseen(
        "intermediate-over",
        "The intermediate of our chain has expired, and the password is wrong",
        Code.CERTIFICATE_EXPIRED,
        _intermediate_over,
        Code.TLS_CLIENT_CERTIFICATE_EXPIRED,  # what the server says of it
        also=frozenset({Code.TLS_CLIENT_CERTIFICATE_EXPIRED, Code.PG_LOGIN_REFUSED}),
    ),
    _unseen(
        "key-is-a-pipe",
        "The key is a pipe that nobody writes into",
        Code.FILE_UNREADABLE,
        _key_is_a_pipe,
        seen="client.key",
    ),
    _unseen(
        "anchors-utf16",
        "The file of the CA is UTF-16, and the server's certificate is for another name",
        Code.PEM_DAMAGED,
        _anchors_as_powershell_writes,
        Code.PEM_WRONG_KIND,  # whoever reads it sees no PEM in it
        also=frozenset({Code.TLS_NAME_MISMATCH}),
        seen="root.crt",
    ),
    _unseen(
        "address-as-common-name",
        "The server's certificate has its address as common name only, and the password's time is over",
        Code.TLS_NAME_MISMATCH,
        _address_as_common_name,
        also=frozenset({Code.PG_LOGIN_REFUSED}),
        seen="127.0.0.1",
    ),
    _unseen(
        "name-is-not-the-role",
        "The server wants the role's name in the certificate, and calls the password wrong",
        Code.PG_LOGIN_REFUSED,
        _name_is_not_the_role,
        Code.PG_NOT_LET_IN,  # the certificate is what is refused, not the password
        seen="scram",
    ),
    _unseen(
        "role-and-database-shut",
        "The role may not log in, and its database takes no connections",
        Code.PG_LOGIN_REFUSED,
        _role_and_database_shut,
        Code.PG_NOT_LET_IN,  # the role is known, and not let in
        also=frozenset({Code.PG_NO_DATABASE}),
        seen="reports",
    ),
    _unseen(
        "variable-of-a-shell",
        "The upstream is written as $DATABASE_URL, and there is no file of the certificate",
        Code.CONFIG_BAD_VALUE,
        _variable_of_a_shell,
        also=frozenset({Code.FILE_MISSING}),
    ),
)

KAFKA: tuple[Unseen, ...] = (
    _unseen(
        "brokers-share-an-address",
        "Two brokers advertise one address",
        Code.KAFKA_ODD_ADDRESS,
        _brokers_share_an_address,
        Code.KAFKA_BROKER_UNREACHABLE,  # nobody comes to the second
        seen="127.0.0.1",  # from outside nobody can tell which of the two is wrong
    ),
    _unseen(
        "pin-of-one-broker",
        "The pin is that of one broker's key, and the other broker has another key",
        Code.TLS_PIN_MISMATCH,
        _pin_of_one_broker,
        Code.KAFKA_BROKER_UNREACHABLE,  # for whatever reason
        also=frozenset({Code.KAFKA_BROKER_UNREACHABLE}),
    ),
)

FAULTS: tuple[Fault, ...] = (*POSTGRES, *KAFKA)


def check_unseen(fault: Unseen, stage: Stage) -> None:
    """Named first; or else what would be as right, of the same report: the next may come out otherwise."""
    with fault.build(stage) as gathered:
        report = trio.run(diagnose, gathered)
    try:
        hold_against(fault, report)
    except AssertionError:
        for other in fault.accept:
            with suppress(AssertionError):
                hold_against(other, report)
                return
        raise


def check_well(fault: Unseen, stage: Stage) -> None:
    """Without the fault nothing fails, but that no proxy runs, and no warning is new."""
    assert fault.well is not None
    with fault.well(stage) as gathered:
        report = trio.run(diagnose, gathered)
    (diagnosis,) = report.diagnoses
    told = told_of(diagnosis)
    failures = {finding.code for finding in diagnosis.findings if finding.verdict is Verdict.FAIL}
    assert failures <= _HERE, told
    assert {finding.code for finding in diagnosis.warnings} <= fault.warnings, told
