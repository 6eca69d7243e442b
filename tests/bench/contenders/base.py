"""What a contender is: a program that stands between a plain client and a TLS server, and how it is set up."""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

from tests.services.pki import Pki

__all__ = ["CORES", "MOST_CONNECTIONS", "Contender", "Place", "Poll", "Upstream"]

CORES = os.cpu_count() or 1
"""Threads or workers where a peer wants a number: one for each core."""
MOST_CONNECTIONS = 6000
"""What each contender is told to expect at once, well above what any work load opens."""


class Upstream(Enum):
    """What stands behind."""

    TLS = "tls"  # the origin, and TLS from the first byte
    POSTGRES = "postgres"  # PostgreSQL, which starts TLS after an SSLRequest, or at once with ALPN
    PLAIN = "plain"  # no TLS at all: for the limit


@dataclass(frozen=True)
class Place:
    """Where a contender listens and what it connects to, all on 127.0.0.1; `folder` is its own."""

    folder: Path
    port: int
    upstream: Upstream
    upstream_port: int
    pki: Pki
    warm: int = 0
    """Connections in advance, where the contender knows of such a thing."""
    log: Path | None = None
    """Where an event log is wanted, from a contender that has one."""

    def write(self, name: str, text: str) -> str:
        """Put a file into the folder, and return its path."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return str(path)

    def combined_key(self) -> str:
        """Certificate and key in one file."""
        return self.write("client.pem", self.pki.client.cert.read_text() + self.pki.client.key.read_text())


@dataclass(frozen=True)
class Poll:
    """How a running contender is asked what it is doing. Each question is a connection, which it ends after its answer.

    Plain values only.
    """

    path: str
    """Of its unix socket."""
    question: str
    answer: str
    """What a right answer begins with."""


class Contender(ABC):
    """One program. The docstring of each says which settings were chosen, and why."""

    name: ClassVar[str]
    program: ClassVar[str]
    """Its name on PATH."""
    before: ClassVar[frozenset[Upstream]]
    """What it can stand before."""
    users: ClassVar[tuple[str, ...]] = ("trust",)
    """How the clients of a PostgreSQL behind it can log in."""
    limit: ClassVar[bool] = False
    """Not a rival, only shown: no TLS proxy can reach it."""

    def path(self) -> str | None:
        """The program, or None where it is not installed."""
        return shutil.which(self.program)

    @abstractmethod
    def command(self, place: Place) -> list[str]:
        """The command that runs it in the foreground, after its files were written."""

    def poll(self, place: Place, pid: int) -> Poll | None:
        """How its process is asked for its state; None where it is not."""
        return None

    @abstractmethod
    def version(self) -> str:
        """One line."""

    def said(self, *arguments: str) -> str:
        """What the program writes, to whichever stream, with these arguments."""
        path = shutil.which(self.program)
        if path is None:
            return "not installed"
        done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False, timeout=30)
        return (done.stdout + done.stderr).strip()
