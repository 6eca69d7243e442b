"""`openssl s_server` as a peer that is not ours: it speaks when it is told to, and can ask for new keys."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.pki import Pair, Pki


class SServer:
    """One connection's worth of s_server. What is written to `say` reaches the client; so do its commands (`K`)."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self.lines: list[bytes] = []
        """All that has been read of its output."""
        self.port = int(self.wait_for(b"ACCEPT").rpartition(b":")[2])

    def wait_for(self, text: bytes) -> bytes:
        """Read lines of its output until one contains `text`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
            if text in line:
                return line.rstrip()
        raise AssertionError(f"s_server never said {text!r}")

    def say(self, line: bytes) -> None:
        """A line for the client, or a command of s_server's if it begins with one.

        It takes all that it reads at once for one line, so wait for what comes of one before the next.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line + b"\n")
        self._process.stdin.flush()


@contextmanager
def s_server(pki: Pki, *options: str | Path) -> Iterator[SServer]:
    """Start one on a free port of loopback; it demands a client certificate."""
    program = shutil.which("openssl")
    assert program, "the openssl program is not on PATH: install it (Debian: apt-get install openssl)"
    files: list[str | Path] = [
        "-cert",
        pki.server.cert,
        "-key",
        pki.server.key,
        "-CAfile",
        pki.client_ca,
        "-Verify",
        "2",
    ]
    process = subprocess.Popen(
        [program, "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", *files, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            yield SServer(process)
        finally:
            process.kill()


@contextmanager
def serving_many(pair: Pair, *options: str | Path) -> Iterator[int]:
    """One that takes client after client; its port. What it says is read and thrown away, or it would stop."""
    program = shutil.which("openssl")
    assert program, "the openssl program is not on PATH: install it (Debian: apt-get install openssl)"
    command = [program, "s_server", "-accept", "127.0.0.1:0", "-cert", pair.cert, "-key", pair.key, *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        try:
            server = SServer(process)
            stdout = process.stdout
            assert stdout is not None
            reader = threading.Thread(target=lambda: [None for _ in stdout], name="s_server output")
            reader.start()
            yield server.port
        finally:
            process.kill()
            process.wait()
            reader.join()
