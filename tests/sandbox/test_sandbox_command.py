"""`mtlskit sandbox` as a process: what it says of the server behind the gateway, of a taken port, and at its end."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from mtlskit.cli.main import app
from tests.support.command_process import TIMEOUT, CommandProcess, clean_environment
from tests.support.doc_blocks import blocks_of, guides
from tests.support.doc_stage import READY, read_sandbox
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fault", "flood"), "flood"),
        (("--fault", "429,times=often"), "times"),
        (("--api-listen", "0.0.0.0:0"), "this machine only"),
        (("--api-listen", "unix:api"), "TCP only"),
        (("--listen", "unix:gateway"), "TCP only"),
        (("--speed-up", "nan"), "--speed-up"),
        (("--speed-up", "0"), "--speed-up"),
        (("--speed-up", "fast"), "--speed-up fast"),
        (("--latency", "soon"), "--latency"),
        (("--addons", "0"), "--addons"),
        (("--addons", "many"), "--addons many"),
    ],
)
def test_what_cannot_be_is_status_2_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["sandbox", "--dir", "space", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "hint: " in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_flags_reach_the_api(live: RunningSpace, tmp_path: Path) -> None:
    argv = ["mtlskit", "sandbox", "--dir", "space", "--latency", "1ms", "--speed-up", "1e5", "--addons", "2"]
    argv += ["--fault", "429,times=1,match=/addons", "--fault", "reset", "--api-listen", "127.0.0.3:0"]
    environment = clean_environment(tmp_path, **{VARIABLE: live.space.direct_url})
    with CommandProcess(argv, ready=READY, folder=tmp_path, environment=environment) as process:
        told = read_sandbox(tmp_path / "space")
        assert told["platform_api"].startswith("http://127.0.0.3:")
        headers = {"Authorization": f"Bearer {told['api_key']}"}
        with httpx.Client(base_url=told["platform_api"], headers=headers, trust_env=False) as client:
            second = f"/addons/{told['postgres']['addon']}-2"
            assert [client.get(second).status_code for _ in range(2)] == [429, 200]
            assert [each["name"] for each in client.get("/sandbox/faults").json()] == ["reset"]
        assert process.stop() == 0
