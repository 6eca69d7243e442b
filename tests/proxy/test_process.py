"""`mtlskit proxy` as a process of its own, once: signals, the ready file, exit statuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from mtlskit.config.values import Endpoint, TcpAddress
from mtlskit.wire.postgres.messages import frame
from tests.support.fake_upstream import PATIENCE, Papers, fake_upstream, nobody_listens
from tests.support.tunnels import connected

TERMINATE = frame(b"X", b"")


class ProxyProcess:
    """The process, and its log line by line."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stderr is not None
        self.process = process
        self._stderr = process.stderr
        self._buffer = b""

    async def event(self, name: str) -> dict[str, Any]:
        """The next event of this name; those before it are dropped."""
        with trio.fail_after(PATIENCE):
            while True:
                line, newline, rest = self._buffer.partition(b"\n")
                if newline:
                    self._buffer = rest
                    event: dict[str, Any] = json.loads(line)
                    if event["event"] == name:
                        return event
                    continue
                data = await self._stderr.receive_some()
                assert data, f"no {name}: {self._buffer!r}"
                self._buffer += data

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def status(self) -> int:
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def proxy_process(papers: Papers, upstream: Endpoint, ready: Path) -> AsyncIterator[ProxyProcess]:
    identity = papers.identity
    command = [sys.executable, "-m", "mtlskit", "proxy", "--listen", "127.0.0.1:0", "--upstream", str(upstream)]
    command += ["--cert", str(identity.cert), "--key", str(identity.key), "--ca", str(identity.ca)]
    command += ["--ready-file", str(ready), "--log", "json", "--verbose"]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
    try:
        yield ProxyProcess(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        if process.stderr is not None:
            await process.stderr.aclose()


async def test_ready_reload_drain_and_end(own_papers: Papers, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    async with fake_upstream(own_papers) as upstream, proxy_process(own_papers, upstream.endpoint, ready) as proxy:
        assert (await proxy.event("identity_loaded"))["tunnel"] == "default"
        assert (await proxy.event("proxy_ready"))["tunnels"] == 1
        facts = json.loads(ready.read_text())
        assert facts["pid"] == proxy.process.pid
        where = facts["tunnels"][0]["addresses"][0]
        async with connected(TcpAddress(where["host"], where["port"])) as client:
            await client.login()
            own_papers.renew_client("renewed")
            proxy.signal(signal.SIGHUP)
            await proxy.event("identity_loaded")
            proxy.signal(signal.SIGTERM)
            assert (await proxy.event("drain_started"))["sessions"] == 1
            await client.send(frame(b"Q", b"still here\0"))
            await client.until_ready()
            await client.send(TERMINATE)
            assert await client.read_to_end() == b""
        assert (await proxy.event("drain_finished"))["cut"] == 0
        assert await proxy.status() == 0
    assert not ready.exists()


async def test_a_second_signal_ends_the_sessions(papers: Papers, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    async with fake_upstream(papers) as upstream, proxy_process(papers, upstream.endpoint, ready) as proxy:
        await proxy.event("proxy_ready")
        where = json.loads(ready.read_text())["tunnels"][0]["addresses"][0]
        async with connected(TcpAddress(where["host"], where["port"])) as client:
            await client.login()
            proxy.signal(signal.SIGINT)
            await proxy.event("drain_started")
            proxy.signal(signal.SIGTERM)
            assert (await proxy.event("drain_finished"))["cut"] == 1
            assert await proxy.status() == 0


@pytest.mark.parametrize("flaw", ["certificate", "ready file"])
async def test_nothing_started_is_one_event_and_status_2(own_papers: Papers, tmp_path: Path, flaw: str) -> None:
    ready = tmp_path / "missing" / "ready.json" if flaw == "ready file" else tmp_path / "ready.json"
    if flaw == "certificate":
        own_papers.identity.cert.unlink()
    async with nobody_listens() as endpoint, proxy_process(own_papers, endpoint, ready) as proxy:
        assert await proxy.status() == 2
        assert proxy.process.stderr is not None
        told = b"".join([part async for part in proxy.process.stderr]).decode()
        events = [json.loads(line) for line in told.splitlines()]
        errors = [(event["event"], event["code"], bool(event["hint"])) for event in events if event["level"] == "error"]
        assert errors == [("error", "MTLS-ID-001" if flaw == "certificate" else "MTLS-CFG-012", True)], told
