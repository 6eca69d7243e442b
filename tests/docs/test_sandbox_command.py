"""`mtlskit sandbox --dir DIR` as users run it: what it writes, for whom, and what is left when it stops."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.services.accounts import credentials
from tests.services.clients import libpq_program
from tests.support.command_process import TIMEOUT, CommandProcess, clean_environment
from tests.support.doc_stage import READY, read_sandbox
from tests.support.families import alive, family_of
from tests.support.runners import Runner


@pytest.fixture(autouse=True)
def psql(services: None) -> None:
    """Every test here asks the database through psql."""
    libpq_program("psql")


def start(runner: Runner, folder: Path) -> CommandProcess:
    """The sandbox, in `space` below the folder."""
    return CommandProcess(
        [*runner.command, "sandbox", "--dir", "space"],
        ready=READY,
        folder=folder,
        environment=environment_of(runner, folder),
        account=runner.account,
    )


def environment_of(runner: Runner, folder: Path) -> dict[str, str]:
    return clean_environment(folder, **runner.environment)


def shell(runner: Runner, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """A script in another terminal of the same user."""
    return subprocess.run(
        ["/bin/sh", "-eu", "-c", script],
        cwd=folder,
        env=environment_of(runner, folder),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        **credentials(runner.account),
    )


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_sandbox_serves_its_user_and_stops_without_a_trace(runner: Runner, scratch: Path) -> None:
    space = scratch / "space"
    with start(runner, scratch) as sandbox:
        members = family_of(sandbox.pid)
        owner = os.geteuid() if runner.account is None else runner.account.uid
        for name in ("sandbox.json", "sandbox.env", "pki/client.key", "pki/ca/ca.key", ".mtlskit-sandbox.json"):
            assert (mode_of(space / name), (space / name).stat().st_uid) == (0o600, owner), name
        assert mode_of(space) in (0o700, 0o710)

        direct = shell(runner, scratch, """. space/sandbox.env; psql "$DATABASE_URL" -Atc 'select current_user'""")
        assert (direct.stdout, direct.stderr) == ("sandbox\n", "")
        assert through_a_tunnel(runner, scratch, "select 6 * 7") == "42\n"
        assert sandbox.stop() == 0
    assert len(members) > 1, "PostgreSQL is a child of the sandbox"
    assert alive(members) == []
    assert not (space / "sandbox.json").exists()
    assert not (space / "sandbox.env").exists()


def through_a_tunnel(runner: Runner, folder: Path, sql: str) -> str:
    """The answer that a plain psql gets through `mtlskit proxy` with what `sandbox.env` exports."""
    proxy = f"""
        . space/sandbox.env
        exec {shlex.join(runner.command)} proxy --listen 127.0.0.1:0 --upstream "$DATABASE_URL" \\
            --cert "$PGSSLCERT" --key "$PGSSLKEY" --ca "$PGSSLROOTCERT" --ready-file ready.json
    """
    client = f"""
        . space/sandbox.env
        port=$(sed -n 's/.*"port": \\([0-9]*\\).*/\\1/p' ready.json)
        psql "$(echo "$DATABASE_URL" | sed "s/@[^/]*/@127.0.0.1:$port/")" -Atc {shlex.quote(sql)}
    """
    tunnel = CommandProcess(
        ["/bin/sh", "-eu", "-c", proxy],
        ready=READY,
        folder=folder,
        environment=environment_of(runner, folder),
        account=runner.account,
    )
    with tunnel:
        done = shell(runner, folder, client)
        assert tunnel.stop() == 0, tunnel.output
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_second_sandbox_in_the_same_folder_is_refused(scratch: Path, sandbox: dict[str, Any]) -> None:
    space = Path(sandbox["pki"]["ca"]).parents[2]
    ourselves = Runner("ourselves", ("mtlskit",))
    second = shell(ourselves, scratch, f"mtlskit sandbox --dir {shlex.quote(str(space))}")
    assert second.returncode == 1
    assert f"{space}: another sandbox is running in this folder [MTLS-SBX-002]" in second.stderr
    assert read_sandbox(space) == sandbox, "it has not touched the files of the first"
