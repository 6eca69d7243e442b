"""`mtlskit sandbox` as a process: what it says of the server behind the gateway, of a taken port, and at its end."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.command_process import TIMEOUT, CommandProcess, clean_environment
from tests.support.doc_blocks import blocks_of, guides
from tests.support.doc_stage import READY
from tests.support.space import RunningSpace

VARIABLE = "MTLSKIT_SANDBOX_POSTGRES"


@pytest.mark.parametrize("source", ["--postgres", VARIABLE])
def test_it_names_a_server_that_is_not_its_own_and_says_good_bye(
    live: RunningSpace, tmp_path: Path, source: str
) -> None:
    url = live.space.direct_url.replace(f":{live.space.password}@", "@")
    argv = ["mtlskit", "sandbox", "--dir", "space", *([source, url] if source != VARIABLE else [])]
    environment = clean_environment(tmp_path, **({VARIABLE: url} if source == VARIABLE else {}))
    with CommandProcess(argv, ready=READY, folder=tmp_path, environment=environment) as process:
        assert live.space.postgres is not None
        server = f"unix:{live.space.postgres.socket_path}"
        assert f"behind the gateway is {server}, named by {source}," in process.output
        assert process.stop(signal.SIGINT) == 0
    assert f"the sandbox has stopped; to take it up again: --dir {tmp_path / 'space'}" in process.output


def test_a_taken_port_is_status_2_and_leaves_no_folder(live: RunningSpace, tmp_path: Path) -> None:
    done = subprocess.run(
        ["mtlskit", "sandbox", "--dir", "space", "--listen", str(live.space.gateway_address)],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {live.space.gateway_address} is already in use")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("page", guides())
def test_no_guide_leaves_a_variable_of_ours_set(page: str) -> None:
    """One that stays set in a terminal changes what later commands there do."""
    assert not [str(block) for block in blocks_of(page) if "export MTLSKIT_" in block.text]
