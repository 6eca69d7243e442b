"""New certificates reach a running proxy by a signal, by `mtlskit reload`, and by themselves; nobody is disturbed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from cryptography import x509

from tests.services.clients import conninfo
from tests.services.pki import Pair, Pki
from tests.services.postgres import PostgresServer
from tests.support.proxy_process import MakeProxy, ProxyProcess

SERIAL = "select client_serial from pg_stat_ssl where pid = pg_backend_pid()"
PATIENCE = 60

Connection: TypeAlias = psycopg.Connection[tuple[object, ...]]


class Versions:
    """A folder for each version, and a link `current` that is switched."""

    def __init__(self, folder: Path, pair: Pair) -> None:
        self.folder = folder
        self.count = 0
        self.switch(pair)

    @property
    def cert(self) -> Path:
        return self.folder / "current" / "client.crt"

    @property
    def key(self) -> Path:
        return self.folder / "current" / "client.key"

    def switch(self, pair: Pair, *, key: Path | None = None) -> None:
        self.count += 1
        version = self.folder / f"v{self.count}"
        version.mkdir()
        shutil.copyfile(pair.cert, version / "client.crt")
        shutil.copyfile(key or pair.key, version / "client.key")
        (version / "client.key").chmod(0o600)
        link = self.folder / "new"
        link.symlink_to(version.name)
        link.replace(self.folder / "current")


@pytest.fixture
def control(short_folder: Path) -> Path:
    folder = short_folder / "c"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def versions(tmp_path: Path, pki: Pki) -> Versions:
    return Versions(tmp_path, pki.client)


@pytest.fixture
def proxy(make_proxy: MakeProxy, postgres: PostgresServer, versions: Versions, control: Path) -> ProxyProcess:
    return make_proxy(postgres, cert=versions.cert, key=versions.key, control=control)


def mtlskit(*arguments: str, status: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mtlskit", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def ask(*arguments: str, control: Path, status: int = 0) -> dict[str, Any]:
    """What the only proxy says."""
    [answer] = json.loads(mtlskit(*arguments, "--control", str(control), "--json", status=status))["proxies"]
    assert isinstance(answer, dict)
    return answer


@pytest.fixture
def connect(proxy: ProxyProcess) -> Iterator[Callable[[], Connection]]:
    opened: list[Connection] = []

    def make() -> Connection:
        opened.append(psycopg.connect(conninfo(proxy.parameters()), autocommit=True))
        return opened[-1]

    yield make
    for connection in opened:
        connection.close()


Connect: TypeAlias = Callable[[], Connection]


def serial_in_use(connection: Connection) -> int:
    row = connection.execute(SERIAL).fetchone()
    assert row is not None
    return int(str(row[0]))


def serial_of(pair: Pair) -> int:
    return x509.load_pem_x509_certificates(pair.cert.read_bytes())[0].serial_number


def test_a_switched_version_is_loaded_without_being_told(
    proxy: ProxyProcess, versions: Versions, pki: Pki, connect: Connect
) -> None:
    old, mark = connect(), proxy.mark
    versions.switch(pki.client_chained)
    changed = proxy.wait_for("identity_changed", since=mark)
    assert changed["files"] == ["cert", "key"]
    proxy.wait_for("identity_loaded", since=mark)
    assert serial_in_use(connect()) == serial_of(pki.client_chained)
    assert serial_in_use(old) == serial_of(pki.client)


def test_a_reload_is_waited_for_and_serves_new_sessions(
    proxy: ProxyProcess, versions: Versions, pki: Pki, connect: Connect, control: Path
) -> None:
    old = connect()
    for pair in (pki.client_chained, pki.client, pki.client_chained):
        versions.switch(pair)
        [tunnel] = ask("reload", control=control)["tunnels"]
        assert (tunnel["ok"], int(tunnel["serial"], 16)) == (True, serial_of(pair))
        assert serial_in_use(connect()) == serial_of(pair)
    assert serial_in_use(old) == serial_of(pki.client)
    [told] = ask("status", control=control)["tunnels"]
    assert told["sessions"] == 4
    counts = {int(serial, 16): count for serial, count in told["sessions_by_serial"].items()}
    assert counts == {serial_of(pki.client): 2, serial_of(pki.client_chained): 2}


def test_a_broken_version_keeps_the_old_one_and_the_status_says_why(
    proxy: ProxyProcess, versions: Versions, pki: Pki, connect: Connect, control: Path
) -> None:
    versions.switch(pki.client_chained, key=pki.client.key)
    [tunnel] = ask("reload", control=control, status=1)["tunnels"]
    assert (tunnel["ok"], tunnel["error"]["code"]) == (False, "MTLS-ID-006")
    assert serial_in_use(connect()) == serial_of(pki.client)
    [told] = ask("status", control=control, status=3)["tunnels"]
    assert told["error"]["code"] == "MTLS-ID-006"
    assert int(told["identity"]["serial"], 16) == serial_of(pki.client)
    shown = mtlskit("status", "--control", str(control), status=3)
    assert "reload failed, the old identity stays in use" in shown
    versions.switch(pki.client_chained)
    ask("reload", control=control)
    ask("status", control=control)
    assert serial_in_use(connect()) == serial_of(pki.client_chained)


def test_a_signal_does_the_same(
    proxy: ProxyProcess, versions: Versions, pki: Pki, connect: Connect, control: Path
) -> None:
    versions.switch(pki.client_chained)
    assert int(proxy.reload()["serial"], 16) == serial_of(pki.client_chained)
    assert serial_in_use(connect()) == serial_of(pki.client_chained)
    [told] = ask("status", control=control)["tunnels"]
    assert int(told["identity"]["serial"], 16) == serial_of(pki.client_chained)


def test_a_stop_waits_for_the_sessions(proxy: ProxyProcess, connect: Connect, control: Path) -> None:
    connection = connect()
    command = [sys.executable, "-m", "mtlskit", "stop", "--control", str(control)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopping:
        assert stopping.stdout is not None
        told = stopping.stdout.readline()
        assert told.startswith(f"proxy {proxy.pid} (")
        assert told.endswith("): stopping, 1 session may finish within 30 s\n")
        assert connection.execute("select 1").fetchone() == (1,)
        assert stopping.poll() is None
        connection.close()
        assert proxy.wait() == 0
        assert stopping.wait(PATIENCE) == 0
    assert list(control.iterdir()) == []
    assert "no proxy is running" in mtlskit("status", "--control", str(control), status=3)


def test_what_a_killed_proxy_left_behind_is_nobody(
    proxy: ProxyProcess, make_proxy: MakeProxy, postgres: PostgresServer, control: Path
) -> None:
    dead = control / f"{proxy.pid}.sock"
    os.kill(proxy.pid, 9)
    proxy.wait()
    assert dead.exists()
    assert "no proxy is running" in mtlskit("status", "--control", str(control), status=3)
    make_proxy(postgres, control=control)
    assert not dead.exists()


def test_a_folder_that_was_named_and_will_not_do_starts_nothing(
    make_proxy: MakeProxy, postgres: PostgresServer, tmp_path: Path
) -> None:
    """A default one that will not do is a warning, and the proxy runs."""
    from tests.support.proxy_process import run_proxy, tunnel_flags

    done = run_proxy(tunnel_flags(postgres, control=tmp_path / "absent" / "folder"), cwd=tmp_path)
    assert (done.returncode, "MTLS-CTL-001" in done.stderr) == (2, True)
    (tmp_path / "mtlskit").write_text("in the way")
    proxy = make_proxy(postgres, environment={"XDG_RUNTIME_DIR": str(tmp_path)})
    assert proxy.wait_for("control_unavailable")["code"] == "MTLS-CTL-001"
