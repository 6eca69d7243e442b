"""SIGHUP loads the certificates again: new sessions use them, old ones go on, and a bad pair changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest
from cryptography import x509

from tests.services.clients import conninfo
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer
from tests.support.proxy_process import MakeProxy, ProxyProcess, tunnel_toml

SERIAL = "select client_serial from pg_stat_ssl where pid = pg_backend_pid()"


class Identity:
    """The certificate and key that a proxy reads; `install` puts another pair in their place."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        self.cert, self.key = folder / "identity.crt", folder / "identity.key"
        self.install(pair.cert, pair.key)

    def install(self, cert: Path, key: Path) -> None:
        shutil.copyfile(cert, self.cert)
        shutil.copyfile(key, self.key)
        self.key.chmod(0o600)


@pytest.fixture
def identity(tmp_path: Path, pki: Pki) -> Identity:
    return Identity(tmp_path, pki.client)


def serial_of(pair: Pair) -> int:
    return x509.load_pem_x509_certificates(pair.cert.read_bytes())[0].serial_number


def connect(proxy: ProxyProcess) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(conninfo(proxy.parameters()), autocommit=True)


def serial_in_use(connection: psycopg.Connection[tuple[object, ...]]) -> int:
    row = connection.execute(SERIAL).fetchone()
    assert row is not None
    return int(str(row[0]))


def test_a_new_certificate_serves_new_sessions(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, identity: Identity
) -> None:
    proxy = make_proxy(postgres, cert=identity.cert, key=identity.key)
    with connect(proxy) as old:
        assert serial_in_use(old) == serial_of(pki.client)
        identity.install(pki.client_chained.cert, pki.client_chained.key)
        told = proxy.reload()
        assert (told["event"], int(told["serial"], 16)) == ("identity_loaded", serial_of(pki.client_chained))
        with connect(proxy) as new:
            assert serial_in_use(new) == serial_of(pki.client_chained)
        assert serial_in_use(old) == serial_of(pki.client)


@pytest.mark.parametrize(
    ("cert", "key", "code"),
    [
        ("client_chained.cert", "client.key", "MTLS-ID-006"),
        ("client_expired.cert", "client_expired.key", "MTLS-ID-007"),
        ("client_locked.cert", "client_locked.key", "MTLS-ID-010"),
        ("server.key", "client.key", "MTLS-ID-003"),
    ],
    ids=["another key", "expired", "locked", "no certificate"],
)
def test_a_bad_pair_keeps_the_old_one(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, identity: Identity, cert: str, key: str, code: str
) -> None:
    proxy = make_proxy(postgres, cert=identity.cert, key=identity.key)
    found = []
    for name in (cert, key):
        pair, file = name.split(".")
        found.append(getattr(getattr(pki, pair), file))
    identity.install(*found)
    told = proxy.reload()
    assert told["event"] == "identity_kept"
    assert told["code"] == code
    assert str(identity.cert) in told["reason"] or str(identity.key) in told["reason"]
    assert told["hint"]
    with connect(proxy) as connection:
        assert serial_in_use(connection) == serial_of(pki.client)
    identity.install(pki.client_chained.cert, pki.client_chained.key)
    assert proxy.reload()["event"] == "identity_loaded"
    with connect(proxy) as connection:
        assert serial_in_use(connection) == serial_of(pki.client_chained)


def test_a_file_that_is_gone_keeps_the_old_pair(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, identity: Identity
) -> None:
    proxy = make_proxy(postgres, cert=identity.cert, key=identity.key)
    identity.key.unlink()
    assert proxy.reload()["event"] == "identity_kept"
    with connect(proxy) as connection:
        assert serial_in_use(connection) == serial_of(pki.client)


def test_many_reloads_under_load_disturb_nobody(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, identity: Identity
) -> None:
    proxy = make_proxy(postgres, cert=identity.cert, key=identity.key)
    pairs = [pki.client, pki.client_chained]
    with connect(proxy) as stays:
        for n in range(20):
            identity.install(pairs[n % 2].cert, pairs[n % 2].key)
            assert proxy.reload()["event"] == "identity_loaded"
            with connect(proxy) as connection:
                assert serial_in_use(connection) == serial_of(pairs[n % 2])
            assert stays.execute("select 1").fetchone() == (1,)


def test_a_tunnel_that_could_not_start_is_tried_again(
    make_proxy: MakeProxy, postgres: PostgresServer, pki: Pki, tmp_path: Path
) -> None:
    """It did not keep the other from running; the ready file tells of both, before and after."""
    cert, key = tmp_path / "late.crt", tmp_path / "late.key"
    late = tunnel_toml(postgres, "late", cert=f'"{cert}"', key=f'"{key}"')
    proxy = make_proxy(toml=tunnel_toml(postgres, "early") + late)
    states = {tunnel["name"]: tunnel["state"] for tunnel in proxy.ready["tunnels"]}
    assert states == {"early": "serving", "late": "failed"}
    assert str(cert) in proxy.tunnel("late")["error"]["reason"]
    assert proxy.tunnel("late")["addresses"] == []
    assert proxy.wait_for("tunnel_failed")["tunnel"] == "late"
    assert proxy.wait_for("proxy_ready").items() >= {"tunnels": 1, "failed": 1}.items()
    shutil.copyfile(pki.client.cert, cert)
    shutil.copyfile(pki.client.key, key)
    key.chmod(0o600)
    proxy.reload()
    proxy.wait_for_ready_file("late", "serving")
    for name in ("early", "late"):
        with psycopg.connect(conninfo(proxy.parameters(tunnel=name))) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
