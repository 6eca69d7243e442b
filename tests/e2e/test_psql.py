"""psql, as everybody has it, in every way that it may reach a server that answers to client certificates only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.services.clients import psql
from tests.services.pki import Pki
from tests.services.places import loopbacks
from tests.services.postgres import PostgresServer
from tests.services.template import PASSWORDS
from tests.support.proxy_process import MakeProxy, ProxyProcess

WHOAMI = "select current_user, version, client_dn from pg_stat_ssl where pid = pg_backend_pid()"
AS_SCRAM = ("scram\tTLSv1.3\t/CN=client\n", "", 0)


def outcome(parameters: dict[str, str], sql: str = WHOAMI) -> tuple[str, str, int]:
    done = psql(parameters, sql)
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize("sslmode", ["disable", "allow", "prefer"])
def test_every_sslmode_up_to_prefer(each_proxy: ProxyProcess, sslmode: str) -> None:
    assert outcome(each_proxy.parameters(sslmode=sslmode)) == AS_SCRAM


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_a_client_that_insists_on_tls_is_told_so_by_libpq(proxy: ProxyProcess, pki: Pki, sslmode: str) -> None:
    done = psql(proxy.parameters(sslmode=sslmode, sslrootcert=str(pki.server_ca)), WHOAMI)
    assert done.returncode == 2
    assert done.stderr.endswith("server does not support SSL, but SSL was required\n")


@pytest.mark.parametrize("gssencmode", ["disable", "prefer"])
@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
def test_gss_encryption_is_declined(proxy: ProxyProcess, sslmode: str, gssencmode: str) -> None:
    assert outcome(proxy.parameters(sslmode=sslmode, gssencmode=gssencmode)) == AS_SCRAM


@pytest.mark.parametrize("user", PASSWORDS)
def test_every_way_to_authenticate(each_proxy: ProxyProcess, user: str) -> None:
    assert outcome(each_proxy.parameters(user)) == (f"{user}\tTLSv1.3\t/CN=client\n", "", 0)


@pytest.mark.parametrize("user", [user for user, password in PASSWORDS.items() if password])
def test_a_wrong_password_is_refused_in_the_servers_words(proxy: ProxyProcess, user: str) -> None:
    mark = proxy.mark
    done = psql(proxy.parameters(user, password="wrong"), "select 1")
    assert done.returncode == 2
    assert done.stderr.endswith(f'FATAL:  password authentication failed for user "{user}"\n')
    assert proxy.wait_for("login_refused", since=mark, user=user)["sqlstate"] == "28P01"


def test_an_absent_database_is_refused_in_the_servers_words(proxy: ProxyProcess) -> None:
    mark = proxy.mark
    done = psql(proxy.parameters(dbname="absent"), "select 1")
    assert done.returncode == 2
    assert done.stderr.endswith('FATAL:  database "absent" does not exist\n')
    assert proxy.wait_for("login_refused", since=mark, database="absent")["sqlstate"] == "3D000"


def test_a_client_that_insists_on_channel_binding_is_told_so_by_libpq(proxy: ProxyProcess) -> None:
    done = psql(proxy.parameters(channel_binding="require"), WHOAMI)
    assert done.returncode == 2
    assert "channel binding required" in done.stderr


@pytest.mark.parametrize("host", loopbacks())
def test_each_family(make_proxy: MakeProxy, postgres: PostgresServer, host: str) -> None:
    listen = f"[{host}]:0" if ":" in host else f"{host}:0"
    proxy = make_proxy(postgres, listen=listen)
    assert proxy.address[0] == host
    assert outcome(proxy.parameters()) == AS_SCRAM


def test_localhost_is_every_family(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    proxy = make_proxy(postgres, listen="localhost:0")
    addresses = proxy.tunnel()["addresses"]
    assert [address["host"] for address in addresses] == list(loopbacks())
    assert len({address["port"] for address in addresses}) == 1
    for host in (*loopbacks(), "localhost"):
        assert outcome(proxy.parameters(host=host)) == AS_SCRAM


def test_a_unix_socket(make_proxy: MakeProxy, postgres: PostgresServer, short_folder: Path) -> None:
    proxy = make_proxy(postgres, listen=f"unix:{short_folder}/.s.PGSQL.6432")
    parameters = proxy.parameters()
    assert (parameters["host"], parameters["port"]) == (str(short_folder), "6432")
    for sslmode in ("disable", "prefer"):
        assert outcome({**parameters, "sslmode": sslmode}) == AS_SCRAM
