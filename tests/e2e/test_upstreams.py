"""What a tunnel may find at its far end, and how it may be told to check it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.clients import psql
from tests.services.fleet import Fleet
from tests.services.pki import OTHER_NAMES, PASSPHRASE, Pki
from tests.services.places import loopbacks
from tests.services.postgres import PostgresServer
from tests.services.settings import ServerOptions
from tests.support.proxy_process import MakePostgres, MakeProxy, ProxyProcess, tunnel_toml

TLS = "select version, client_dn, client_serial from pg_stat_ssl where pid = pg_backend_pid()"


def tls_of(proxy: ProxyProcess) -> list[str]:
    """What the server says about the session's TLS: version, subject and serial of the client certificate."""
    done = psql(proxy.parameters(), TLS)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.rstrip("\n").split("\t")


@pytest.mark.parametrize("major", [17, 18])
def test_direct_tls(make_proxy: MakeProxy, make_postgres: MakePostgres, major: int) -> None:
    proxy = make_proxy(make_postgres(major=major), negotiation="direct")
    assert tls_of(proxy)[0] == "TLSv1.3"


def test_direct_tls_with_a_server_that_does_not_know_it(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    proxy = make_proxy(make_postgres(major=15), negotiation="direct")
    done = psql(proxy.parameters(), "select 1")
    assert done.returncode == 2
    assert "FATAL:  mtlskit: " in done.stderr
    assert "direct TLS needs PostgreSQL 17" in done.stderr


def test_tls_1_2(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    proxy = make_proxy(make_postgres(ServerOptions(tls_max="TLSv1.2")))
    assert tls_of(proxy)[0] == "TLSv1.2"


def test_a_server_that_demands_no_certificate(make_proxy: MakeProxy, make_postgres: MakePostgres) -> None:
    server = make_postgres(ServerOptions(hba=("local all all trust", "hostssl all all all scram-sha-256")))
    assert tls_of(make_proxy(server))[1] == "/CN=client"


@pytest.mark.parametrize("host", loopbacks())
def test_an_address_in_the_certificate(make_proxy: MakeProxy, postgres: PostgresServer, host: str) -> None:
    upstream = f"[{host}]:{postgres.port}" if ":" in host else f"{host}:{postgres.port}"
    assert tls_of(make_proxy(postgres, upstream=upstream))[0] == "TLSv1.3"


@pytest.mark.parametrize("verify", ["ca", f"name:{OTHER_NAMES[0]}"])
def test_a_server_of_another_name(make_proxy: MakeProxy, make_postgres: MakePostgres, pki: Pki, verify: str) -> None:
    proxy = make_proxy(make_postgres(ServerOptions(certificate=pki.server_other_name)), verify=verify)
    assert tls_of(proxy)[0] == "TLSv1.3"


def test_a_url_is_an_upstream_and_keeps_its_secrets(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    url = f"postgres://someone:hunter2@localhost:{postgres.port}/elsewhere?sslmode=require"
    proxy = make_proxy(postgres, upstream=url)
    assert tls_of(proxy)[1] == "/CN=client"
    assert proxy.tunnel()["upstream"] == [f"localhost:{postgres.port}"]
    assert "hunter2" not in proxy.log() + proxy.ready_file.read_text()


def test_a_chained_certificate(make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki) -> None:
    proxy = make_proxy(postgres, cert=pki.client_chained.cert, key=pki.client_chained.key)
    assert tls_of(proxy)[2] != tls_of(make_proxy(postgres))[2]


def test_a_locked_key(make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE + "\n")
    locked = pki.client_locked
    proxy = make_proxy(postgres, cert=locked.cert, key=locked.key, passphrase_file=passphrase)
    assert tls_of(proxy)[1] == "/CN=client"
    assert PASSPHRASE not in proxy.log()


def test_one_process_runs_many_tunnels(make_proxy: MakeProxy, postgres_fleet: Fleet) -> None:
    servers = {f"pg{major}": postgres_fleet.of(major) for major in (17, 18)}
    proxy = make_proxy(toml="".join(tunnel_toml(server, name) for name, server in servers.items()))
    for name, server in servers.items():
        done = psql(proxy.parameters(tunnel=name), "show server_version_num")
        assert int(done.stdout) // 10_000 == server.major
