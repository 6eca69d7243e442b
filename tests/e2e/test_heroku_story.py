"""From nothing to a connected client, with the commands that a person types, and on when the office moves."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.clients import libpq_program
from tests.services.places import free_port
from tests.support.command_process import TIMEOUT, CommandProcess
from tests.support.sandbox_command import Sandbox, running_sandbox

CONFIGURATION = """
[identity.reporting]
issuer     = "heroku"
addon      = "{addon}"
revoke_old = true

[allowlist.reporting]
addons = ["{addon}"]
my_ip  = true

[tunnel.reporting]
kind     = "postgres"
listen   = "127.0.0.1:{port}"
upstream = "heroku:{addon}"
identity = "reporting"
login    = "heroku"
allow_clients = ["127.0.0.1"]
timeouts = {{ dial = "2s" }}
"""


@pytest.fixture(scope="module")
def office() -> Iterator[tuple[Sandbox, int]]:
    """A database as Heroku hands it out, and what somebody wants of it; the port of the door."""
    with running_sandbox("--bare", "--speed-up", "3000") as space:
        port = free_port()
        text = CONFIGURATION.format(addon=space.addon, port=port)
        (space.folder / "mtlskit.toml").write_text(text, encoding="utf-8")
        yield space, port


def psql(space: Sandbox, port: int, statement: str) -> subprocess.CompletedProcess[str]:
    """A plain client, without password or certificate."""
    return subprocess.run(
        [str(libpq_program("psql")), f"host=127.0.0.1 port={port} dbname=sandbox sslmode=disable", "-Atc", statement],
        env=space.environment | {"PGPASSFILE": os.devnull},
        cwd=space.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def running(space: Sandbox, *words: str, ready: str) -> CommandProcess:
    """A command that stays up."""
    return CommandProcess(["mtlskit", *words], ready=ready, folder=space.folder, environment=space.environment)


def test_from_nothing_to_a_client_and_on_when_the_office_moves(office: tuple[Sandbox, int], services: None) -> None:
    space, port = office
    assert space.run("heroku", "status").returncode == 3
    space.ok("heroku", "enable", space.addon, "--wait")
    assert space.run("allowlist", "plan").returncode == 3
    space.ok("allowlist", "apply")
    space.ok("certs", "issue", "reporting", "--wait")
    with running(space, "proxy", ready=" ready: 1 tunnel") as proxy:
        assert psql(space, port, "select 6 * 7").stdout == "42\n"
        assert space.cidrs() == ["127.0.0.1/32"]

        space.call("POST", f"/postgres/v0/databases/{space.addon}/credentials/default/credentials_rotation")
        assert psql(space, port, "select 1").stdout == "1\n", "the new password is followed"

        space.call("POST", "/sandbox/move", {"from": "127.0.0.1", "to": "127.0.0.77"})
        silent = psql(space, port, "select 1")
        assert silent.returncode == 2
        assert "MTLS-TLS-015" in silent.stderr
        with running(space, "allowlist", "watch", "--interval", "1s", ready="removed 127.0.0.1/32") as watcher:
            assert space.cidrs() == ["127.0.0.77/32"]
            assert psql(space, port, "select 2").stdout == "2\n"
            assert watcher.stop() == 0
        assert proxy.stop() == 0


def test_a_watcher_that_is_killed_is_taken_up(office: tuple[Sandbox, int], services: None) -> None:
    """Killed when the new rule is there and the old one not gone yet."""
    space, _ = office
    before = space.cidrs()
    space.call("POST", "/sandbox/move", {"from": "127.0.0.1", "to": "127.0.0.99"})
    space.fault("slow-rules")
    with running(space, "allowlist", "watch", "--interval", "1s", ready="authorizing") as watcher:
        assert watcher.stop(signal.SIGKILL) == -signal.SIGKILL
    assert space.cidrs() == sorted([*before, "127.0.0.99/32"]), "nobody is locked out while the new rule is waited for"
    space.no_faults()
    for rule in space.rules():  # the sandbox says when a rule acts at the time when it is made
        if rule["status"] != "Authorized":
            path = f"/postgres/v0/databases/{space.addon}/tls-endpoint/ip-rules/{rule['id']}"
            space.call("DELETE", path)
    with running(space, "allowlist", "watch", "--interval", "1s", ready=f"removed {before[0]}") as watcher:
        assert space.cidrs() == ["127.0.0.99/32"]
        assert watcher.stop() == 0


def test_a_pool_of_addresses_is_listed_and_nothing_removed(office: tuple[Sandbox, int], services: None) -> None:
    space, _ = office
    before = space.cidrs()
    space.fault("echo-disagree", value="127.0.0.98")
    watcher = space.start("allowlist", "watch", "--interval", "1s")
    told, _ = watcher.communicate(timeout=TIMEOUT)
    assert watcher.returncode == 1
    assert "127.0.0.98" in told
    assert "MTLS-ALW-010" in told
    assert space.cidrs() == before
    space.no_faults()


def test_the_first_certificate_lies_where_it_was_said(office: tuple[Sandbox, int], services: None) -> None:
    space, _ = office
    folder: Path = space.folder / "identities" / "reporting" / "current"
    assert (folder / "client.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "root.crt").exists(), "Heroku told the CA"
