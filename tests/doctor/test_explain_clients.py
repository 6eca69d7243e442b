"""What psql, pgjdbc and node-postgres really print when something is broken, pasted into `mtlskit doctor explain`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from subprocess import CompletedProcess

import pytest

from mtlskit.doctor.explain.recognise import explain
from mtlskit.errors import Code
from tests.services.clients import jdbc, node, psql
from tests.services.pki import Pki
from tests.services.postgres import PostgresServer
from tests.support.bad_servers import says, serving
from tests.support.proxy_process import ProxyProcess, tunnel_flags
from tests.support.tls_servers import closed_port

Client = Callable[[dict[str, str], str], CompletedProcess[str]]
CLIENTS: dict[str, Client] = {"psql": psql, "pgjdbc": jdbc, "node-postgres": node}


@dataclass(frozen=True)
class Broken:
    """A change of good parameters, and what its error means."""

    changes: dict[str, str]
    code: Code
    also: frozenset[Code] = frozenset()
    """What is as right in the words of another client."""
    clients: tuple[str, ...] = tuple(CLIENTS)


def broken(pki: Pki) -> dict[str, Broken]:
    stranger, revoked = pki.client_stranger, pki.client_revoked

    def shown(cert: object, key: object) -> dict[str, str]:
        return {"sslcert": str(cert), "sslkey": str(key)}

    return {
        "wrong password": Broken({"password": "wrong"}, Code.PG_LOGIN_REFUSED),
        "no password": Broken({"password": ""}, Code.PG_LOGIN_REFUSED),
        "no such database": Broken({"dbname": "nowhere"}, Code.PG_NO_DATABASE),
        "not through a tunnel": Broken({"sslmode": "disable"}, Code.PG_NOT_LET_IN),
        "another CA": Broken({"sslrootcert": str(pki.stranger_ca)}, Code.TLS_CHAIN_NOT_TRUSTED),
        "a name that does not exist": Broken(
            # Java keeps the reason for the line after, which a tool may not show.
            {"host": "db.nowhere.invalid"},
            Code.DNS_FAILED,
            frozenset({Code.TCP_UNREACHABLE}),
        ),
        "no certificate": Broken(shown(pki.absent, pki.absent), Code.TLS_CLIENT_CERTIFICATE_REQUIRED),
        "a stranger's certificate": Broken(
            # Java shows nothing where the server names CAs and none of them is ours (RFC 8446 section 4.2.4).
            shown(stranger.cert, stranger.key),
            Code.TLS_CLIENT_CA_UNKNOWN,
            frozenset({Code.TLS_CLIENT_CERTIFICATE_REQUIRED}),
        ),
        "a revoked certificate": Broken(
            # pgjdbc writes before it reads: whether it tells of the alert, of the write that failed or of the end is a
            # race.
            shown(revoked.cert, revoked.key),
            Code.TLS_CLIENT_CERTIFICATE_REVOKED,
            frozenset(
                {Code.TLS_CLIENT_CERTIFICATE_REFUSED, Code.TCP_RESET, Code.UPSTREAM_CLOSED, Code.TCP_UNREACHABLE}
            ),
        ),
        "a key that does not fit": Broken(
            shown(pki.client.cert, stranger.key), Code.KEY_MISMATCH, clients=("psql", "node-postgres")
        ),
        "a root file that is not there": Broken({"sslrootcert": str(pki.absent)}, Code.FILE_MISSING, clients=("psql",)),
    }


NAMES = tuple(
    (name, client)
    for name, clients in (
        ("wrong password", CLIENTS),
        ("no password", CLIENTS),
        ("no such database", CLIENTS),
        ("not through a tunnel", CLIENTS),
        ("another CA", CLIENTS),
        ("a name that does not exist", CLIENTS),
        ("no certificate", CLIENTS),
        ("a stranger's certificate", CLIENTS),
        ("a revoked certificate", CLIENTS),
        ("a key that does not fit", ("psql", "node-postgres")),
        ("a root file that is not there", ("psql",)),
    )
    for client in clients
)


@pytest.mark.parametrize(("name", "client"), NAMES, ids=[f"{name}, {client}" for name, client in NAMES])
def test_what_a_client_prints_is_explained(postgres: PostgresServer, pki: Pki, name: str, client: str) -> None:
    case = broken(pki)[name]
    done = CLIENTS[client]({**postgres.parameters(), **case.changes}, "select 1")
    assert done.returncode != 0
    first = explain(done.stderr)[0]
    assert first.code in {case.code} | case.also, (done.stderr, first)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_proxy_that_does_not_run(client: str) -> None:
    with closed_port() as port:
        done = CLIENTS[client](plain("127.0.0.1", port), "select 1")
    assert explain(done.stderr)[0].code is Code.LOCAL_NOT_RUNNING, done.stderr


@pytest.fixture(scope="module")
def tunnel(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyProcess]:
    """A proxy before the shared server."""
    with ProxyProcess(tunnel_flags(postgres), folder=tmp_path_factory.mktemp("tunnel")) as proxy:
        yield proxy


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_that_insists_on_tls_at_the_plain_door(tunnel: ProxyProcess, client: str) -> None:
    done = CLIENTS[client]({**plain(*tunnel.address), "sslmode": "require"}, "select 1")
    assert explain(done.stderr)[0].code is Code.LOCAL_CLIENT_INSISTS, done.stderr


def test_channel_binding_at_the_plain_door(tunnel: ProxyProcess) -> None:
    done = psql({**tunnel.parameters(), "channel_binding": "require"}, "select 1")
    assert explain(done.stderr)[0].code is Code.LOCAL_CLIENT_INSISTS, done.stderr


def test_a_web_server_in_the_database_s_place() -> None:
    with serving(says(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as (host, port):
        done = psql({**plain(host, port), "sslmode": "require"}, "select 1")
    assert explain(done.stderr)[0].code is Code.TLS_UNKNOWN_ANSWER, done.stderr


def plain(host: str, port: int) -> dict[str, str]:
    """Parameters without TLS."""
    return {"host": host, "port": str(port), "dbname": "app", "user": "scram", "password": "x", "sslmode": "disable"}
