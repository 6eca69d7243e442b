"""What keeps a proxy from starting, and what a user sees of it: one line, what to do, and exit status 2."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.services.clients import psql
from tests.services.pki import Pair, Pki
from tests.services.places import free_port
from tests.services.postgres import PostgresServer
from tests.support.proxy_process import MakeProxy, run_proxy, tunnel_flags, tunnel_toml


def complaint(arguments: list[str], folder: Path) -> str:
    """What a proxy says that does not start."""
    done = run_proxy([*arguments, "--ready-file", "ready.json"], cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    error, *rest = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert [line.split(":")[0] for line in rest] == ["hint"]
    assert not (folder / "ready.json").exists()
    return error


@pytest.mark.parametrize(
    ("identity", "reason"),
    [
        ("client_expired", "expired"),
        ("client_not_yet_valid", "not valid before"),
        ("client_locked", "encrypted"),
        ("server", "clientAuth"),
    ],
)
def test_an_identity_that_no_server_would_take(
    postgres: PostgresServer, pki: Pki, tmp_path: Path, identity: str, reason: str
) -> None:
    pair: Pair = getattr(pki, identity)
    error = complaint(tunnel_flags(postgres, cert=pair.cert, key=pair.key), tmp_path)
    assert reason in error
    assert str(pair.cert) in error or str(pair.key) in error


@pytest.mark.parametrize("flag", ["cert", "key", "ca"])
def test_a_file_that_is_not_there(postgres: PostgresServer, tmp_path: Path, flag: str) -> None:
    assert "absent.pem" in complaint(tunnel_flags(postgres, **{flag: tmp_path / "absent.pem"}), tmp_path)


def test_a_key_of_another_certificate(postgres: PostgresServer, pki: Pki, tmp_path: Path) -> None:
    error = complaint(tunnel_flags(postgres, key=pki.certuser.key), tmp_path)
    assert str(pki.certuser.key) in error
    assert str(pki.client.cert) in error


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_port_in_use(make_proxy: MakeProxy, postgres: PostgresServer, tmp_path: Path, host: str) -> None:
    proxy = make_proxy(postgres)
    error = complaint(tunnel_flags(postgres, listen=f"{host}:{proxy.address[1]}"), tmp_path)
    assert f"{host}:{proxy.address[1]} is already in use" in error
    assert f"pid {proxy.pid}" in error


def test_an_address_of_another_host(postgres: PostgresServer, tmp_path: Path) -> None:
    error = complaint(tunnel_flags(postgres, listen="192.0.2.1:0", allow_client="192.0.2.0/24"), tmp_path)
    assert "192.0.2.1:0 is not an address of this host" in error


def test_a_path_where_something_else_is(postgres: PostgresServer, short_folder: Path) -> None:
    path = short_folder / ".s.PGSQL.6432"
    path.write_text("precious")
    complaint(tunnel_flags(postgres, listen=f"unix:{path}"), short_folder)
    assert path.read_text() == "precious"


def test_a_unix_socket_in_use(make_proxy: MakeProxy, postgres: PostgresServer, short_folder: Path) -> None:
    path = short_folder / ".s.PGSQL.6432"
    proxy = make_proxy(postgres, listen=f"unix:{path}")
    assert str(path) in complaint(tunnel_flags(postgres, listen=f"unix:{path}"), short_folder)
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"


def test_an_unknown_key_in_the_file(postgres: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "mtlskit.toml").write_text(tunnel_toml(postgres, upstreem='"localhost"'))
    error = complaint([], tmp_path)
    assert "mtlskit.toml:8" in error
    assert 'did you mean "upstream"?' in error


def test_two_listeners_on_one_port(postgres: PostgresServer, tmp_path: Path) -> None:
    listen = f'"127.0.0.1:{free_port()}"'
    (tmp_path / "mtlskit.toml").write_text(
        tunnel_toml(postgres, "one", listen=listen) + tunnel_toml(postgres, "other", listen=listen)
    )
    assert "tunnels one and other both listen on" in complaint([], tmp_path)


def test_a_ready_file_that_cannot_be_written(postgres: PostgresServer, tmp_path: Path) -> None:
    done = run_proxy([*tunnel_flags(postgres), "--ready-file", "absent/ready.json"], cwd=tmp_path)
    assert done.returncode == 2
    assert "ready file cannot be written" in done.stderr


def test_no_tunnel_can_start(postgres: PostgresServer, tmp_path: Path) -> None:
    """Each reason is in the log, and the error says that there is none left."""
    (tmp_path / "mtlskit.toml").write_text(
        tunnel_toml(postgres, "one", cert='"absent-1.pem"') + tunnel_toml(postgres, "other", cert='"absent-2.pem"')
    )
    done = run_proxy([], cwd=tmp_path)
    assert done.returncode == 2
    assert "absent-1.pem" in done.stderr
    assert "absent-2.pem" in done.stderr
    assert "error: none of the 2 tunnels could start [MTLS-CFG-013]" in done.stderr


def test_one_of_the_files_tunnels(make_proxy: MakeProxy, postgres: PostgresServer, tmp_path: Path) -> None:
    """By name; what is wrong with another one does not matter then."""
    proxy = make_proxy(
        toml=tunnel_toml(postgres, "good") + tunnel_toml(postgres, "bad", cert='"absent"'), arguments=["good"]
    )
    assert [tunnel["name"] for tunnel in proxy.ready["tunnels"]] == ["good"]
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"


def test_the_ready_file(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    """JSON with the real addresses, written as a whole, for its owner; gone with the proxy."""
    proxy = make_proxy(postgres)
    facts = json.loads(proxy.ready_file.read_text())
    assert facts["pid"] == proxy.pid
    [tunnel] = facts["tunnels"]
    [address] = tunnel["addresses"]
    assert (tunnel["name"], tunnel["kind"], tunnel["state"]) == ("default", "postgres", "serving")
    assert (address["host"], address["port"] > 0) == ("127.0.0.1", True)
    socket.create_connection((address["host"], address["port"])).close()
    assert [path.name for path in proxy.folder.iterdir()] == ["ready.json"]
    assert proxy.stop() == 0
    assert list(proxy.folder.iterdir()) == []


def test_flags_may_come_from_the_environment(make_proxy: MakeProxy, postgres: PostgresServer) -> None:
    flags = tunnel_flags(postgres)
    names = [flag.removeprefix("--").upper() for flag in flags[::2]]
    environment = {f"MTLSKIT_{name}": value for name, value in zip(names, flags[1::2], strict=True)}
    proxy = make_proxy(arguments=[], environment=environment)
    assert psql(proxy.parameters(), "select current_user").stdout == "scram\n"
