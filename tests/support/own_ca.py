"""A world with a CA of its own, made by the command line: its folder, a configuration, servers that trust it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["OwnCa", "mtlskit"]

TIMEOUT = 120
"""Seconds, a safety net: a command takes one."""


def mtlskit(*arguments: str | Path, cwd: Path, status: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in `cwd`; its status must be `status` (None: whatever)."""
    done = subprocess.run(
        [sys.executable, "-m", "mtlskit", *map(str, arguments)],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "MTLSKIT_CONFIG"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert status is None or done.returncode == status, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass(frozen=True)
class OwnCa:
    """A folder with `ca/`, made by `mtlskit ca init`, and a `mtlskit.toml` that tunnels are added to."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, *tables: str, identity: Sequence[str] = ()) -> OwnCa:
        """`tables` are tunnels in TOML; `identity` further lines of `[identity.reporting]`."""
        mtlskit("ca", "init", "--dir", "ca", "--subject", "CN=our ca", cwd=folder)
        lines = ["[identity.reporting]", 'issuer = "ca"', 'ca_dir = "ca"', 'subject = "CN=client"', *identity]
        (folder / "mtlskit.toml").write_text("\n".join([*lines, "", *tables]))
        return cls(folder)

    @property
    def cert(self) -> Path:
        """The CA's certificate."""
        return self.folder / "ca" / "ca.crt"

    @property
    def store(self) -> Path:
        """Where the identities are."""
        return self.folder / "identities"

    def rotate(self, *more: str, status: int | None = 0) -> dict[str, Any]:
        """`mtlskit certs rotate reporting --json`; what came of it."""
        done = mtlskit("certs", "rotate", "reporting", "--json", *more, cwd=self.folder, status=status)
        [outcome] = json.loads(done.stdout)["identities"]
        return dict(outcome)
