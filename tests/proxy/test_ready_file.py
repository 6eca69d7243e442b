"""The ready file: what it tells, when it changes, and that it goes away."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from mtlskit.config.values import ProxyConfig, TcpAddress, UnixAddress
from mtlskit.errors import ConfigError, ListenError
from mtlskit.proxy.events import (
    DrainFinished,
    ReadyFileKept,
)
from mtlskit.proxy.run import run_proxy
from mtlskit.telemetry import Event
from tests.support.fake_upstream import Papers, fake_upstream, nobody_listens
from tests.support.tunnels import running_proxy, tunnel


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_the_ready_file_tells_addresses_and_goes_away_with_the_proxy(papers: Papers, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    async with fake_upstream(papers) as upstream:
        async with running_proxy(tunnel(papers, upstream.endpoint), ready_path=ready) as running:
            facts = json.loads(ready.read_text())
            address = running.address()
            assert isinstance(address, TcpAddress)
            assert facts == {
                "pid": os.getpid(),
                "tunnels": [
                    {
                        "name": "reporting",
                        "kind": "postgres",
                        "state": "serving",
                        "addresses": [{"host": "127.0.0.1", "port": address.port}],
                        "upstream": [str(upstream.endpoint)],
                    }
                ],
            }
            assert stat.S_IMODE(ready.stat().st_mode) == 0o600
            assert _names(tmp_path) == [ready.name]
        await running.events.wait_for(DrainFinished)
    assert not _names(tmp_path)


async def test_the_ready_file_tells_the_path_of_a_unix_socket(papers: Papers, tmp_path: Path) -> None:
    ready, door = tmp_path / "ready.json", UnixAddress(tmp_path / ".s.PGSQL.6432")
    async with nobody_listens() as endpoint, running_proxy(tunnel(papers, endpoint, listen=door), ready_path=ready):
        assert json.loads(ready.read_text())["tunnels"][0]["addresses"] == [{"path": str(door.path)}]


async def test_a_ready_file_of_another_proxy_is_left_alone(papers: Papers, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    async with nobody_listens() as endpoint, running_proxy(tunnel(papers, endpoint), ready_path=ready):
        ready.write_bytes(b"\xff another proxy's")
    assert ready.read_bytes() == b"\xff another proxy's"


async def test_a_ready_file_that_cannot_be_written_is_an_error_of_its_own(papers: Papers, tmp_path: Path) -> None:
    async with nobody_listens() as endpoint:
        config = ProxyConfig((tunnel(papers, endpoint),))
        told: list[Event] = []
        with pytest.raises(ConfigError, match="ready file cannot be written") as caught:
            await run_proxy(config, emit=told.append, ready_path=tmp_path / "missing" / "ready.json")
        assert caught.value.exit_status == 2
        assert not told, "something was opened before the folder was looked at"
        with pytest.raises(ConfigError, match="ready file cannot be written"):
            await run_proxy(config, ready_path=tmp_path)
    assert not [name for name in _names(tmp_path.parent) if name.startswith(f".{tmp_path.name}.")]


async def test_a_ready_file_that_can_no_longer_be_written_keeps_nobody_from_running(
    own_papers: Papers, papers: Papers, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    hidden = own_papers.identity.cert.rename(tmp_path / "hidden")
    async with fake_upstream(papers) as upstream:
        good, bad = tunnel(papers, upstream.endpoint), tunnel(own_papers, upstream.endpoint, name="bad")
        async with running_proxy(good, bad, ready_path=folder / "ready.json") as running:
            (folder / "ready.json").unlink()
            folder.rmdir()
            hidden.rename(own_papers.identity.cert)
            await running.proxy.reload()
            assert (await running.events.wait_for(ReadyFileKept)).code == "MTLS-CFG-012"
            async with running.connect() as client:
                await client.login()


async def test_a_ready_file_of_a_proxy_that_was_killed_does_not_outlive_a_failed_start(
    papers: Papers, tmp_path: Path
) -> None:
    ready = tmp_path / "ready.json"
    ready.write_text('{"pid": 1}')
    async with nobody_listens() as endpoint:
        config = ProxyConfig((tunnel(papers, endpoint, listen=UnixAddress(tmp_path / "absent" / "door")),))
        with pytest.raises(ListenError):
            await run_proxy(config, ready_path=ready)
    assert not ready.exists()
