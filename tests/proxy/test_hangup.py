"""The terminal is closed: a proxy that was started from it drains, and one under `nohup` reloads and runs on.

Real terminals (pty(7)): the proxy leads a session of its own, whose controlling terminal goes with its master.
"""

from __future__ import annotations

import json
import os
import pty
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
from mtlskit.proxy.hangup import Terminals
from mtlskit.wire.postgres.messages import frame
from tests.support.fake_upstream import PATIENCE, Papers, fake_upstream
from tests.support.tunnels import connected

# The process takes the terminal on descriptor 0 for its controlling one, and becomes the proxy. Whether SIGHUP is
# ignored is said in each case: the tests themselves may run under nohup.
_UPON_A_TERMINAL = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_IGN if sys.argv[1] == "nohup" else signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, "-m", "mtlskit", "proxy", *sys.argv[2:]])
"""


class OnTerminal:
    """A proxy on a terminal. Its log comes through a pipe, or through the terminal until that is closed."""

    def __init__(self, process: trio.Process, master: int, ready: Path) -> None:
        self.process = process
        self._master = master
        self._ready = ready
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
                data = await self._read()
                assert data, f"no {name}: {self._buffer!r}"
                self._buffer += data

    async def _read(self) -> bytes:
        if self.process.stderr is not None:
            return bytes(await self.process.stderr.receive_some())
        await trio.lowlevel.wait_readable(self._master)
        return os.read(self._master, 4096)

    @property
    def address(self) -> TcpAddress:
        where = json.loads(self._ready.read_text())["tunnels"][0]["addresses"][0]
        return TcpAddress(where["host"], where["port"])

    def close_terminal(self) -> None:
        """As the window of a terminal emulator is closed. May be called again."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    async def status(self) -> int:
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def on_terminal(
    papers: Papers, upstream: Endpoint, folder: Path, *, how: str = "", piped_log: bool = True
) -> AsyncIterator[OnTerminal]:
    """Run a proxy whose standard input and output, and the log unless it is piped, are a terminal."""
    identity, ready = papers.identity, folder / "ready.json"
    command = [sys.executable, "-c", _UPON_A_TERMINAL, how, "--listen", "127.0.0.1:0", "--upstream", str(upstream)]
    command += ["--cert", str(identity.cert), "--key", str(identity.key), "--ca", str(identity.ca)]
    command += ["--ready-file", str(ready), "--log", "json", "--verbose"]
    master, slave = pty.openpty()
    try:
        process = await trio.lowlevel.open_process(
            command,
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE if piped_log else slave,
            start_new_session=True,
        )
    finally:
        os.close(slave)
    proxy = OnTerminal(process, master, ready)
    try:
        yield proxy
    finally:
        proxy.close_terminal()
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        if process.stderr is not None:
            await process.stderr.aclose()


async def assert_closed(address: TcpAddress) -> None:
    with pytest.raises(OSError, match="all attempts to connect"):
        await trio.open_tcp_stream(address.host, address.port)


async def test_closing_the_terminal_closes_the_door_and_drains(papers: Papers, tmp_path: Path) -> None:
    async with fake_upstream(papers) as upstream, on_terminal(papers, upstream.endpoint, tmp_path) as proxy:
        await proxy.event("proxy_ready")
        address = proxy.address
        async with connected(address) as client:
            await client.login()
            proxy.close_terminal()
            assert (await proxy.event("drain_started"))["sessions"] == 1
            await assert_closed(address)
            # The kernel tells the foreground group again when the shell has gone: that is no second request to stop.
            proxy.process.send_signal(signal.SIGHUP)
            await client.send(frame(b"Q", b"still here\0"))
            await client.until_ready()
            await client.send(frame(b"X", b""))
            assert await client.read_to_end() == b""
        assert (await proxy.event("drain_finished"))["cut"] == 0
        assert await proxy.status() == 0


async def test_a_log_that_went_to_the_terminal_does_not_keep_it_from_ending(papers: Papers, tmp_path: Path) -> None:
    async with (
        fake_upstream(papers) as upstream,
        on_terminal(papers, upstream.endpoint, tmp_path, piped_log=False) as proxy,
    ):
        await proxy.event("proxy_ready")
        address = proxy.address
        proxy.close_terminal()
        assert await proxy.status() == 0
        await assert_closed(address)
    assert not (tmp_path / "ready.json").exists()


async def test_while_the_terminal_is_there_sighup_is_a_reload(papers: Papers, tmp_path: Path) -> None:
    async with fake_upstream(papers) as upstream, on_terminal(papers, upstream.endpoint, tmp_path) as proxy:
        await proxy.event("proxy_ready")
        proxy.process.send_signal(signal.SIGHUP)
        await proxy.event("identity_loaded")
        async with connected(proxy.address) as client:
            await client.login()


@pytest.mark.parametrize("piped_log", [True, False])
async def test_under_nohup_it_outlives_the_terminal(papers: Papers, tmp_path: Path, piped_log: bool) -> None:
    async with (
        fake_upstream(papers) as upstream,
        on_terminal(papers, upstream.endpoint, tmp_path, how="nohup", piped_log=piped_log) as proxy,
    ):
        await proxy.event("proxy_ready")
        proxy.close_terminal()
        if piped_log:
            await proxy.event("identity_loaded")
        async with connected(proxy.address) as client:
            await client.login()
        proxy.process.send_signal(signal.SIGTERM)
        assert await proxy.status() == 0


def test_a_stream_that_never_was_a_terminal_does_not_count() -> None:
    assert not Terminals(()).closed
    master, slave = pty.openpty()
    try:
        terminals = Terminals((slave,))
        assert not terminals.closed
        os.close(master)
        assert terminals.closed
    finally:
        os.close(slave)
