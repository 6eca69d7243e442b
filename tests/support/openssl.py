"""The `openssl` program as a second opinion. A machine without it fails the tests that need it, with the reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

__all__ = ["openssl", "run_openssl"]


def run_openssl(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Runs `openssl` and hands back what came of it, whatever that is."""
    program = shutil.which("openssl")
    assert program, "the openssl program is not on PATH: install it (Debian: apt-get install openssl)"
    return subprocess.run([program, *arguments], input=stdin, capture_output=True, check=False, timeout=60)


def openssl(*arguments: str | Path, stdin: bytes = b"") -> bytes:
    """Runs `openssl`, which must succeed, and hands back its standard output."""
    done = run_openssl(*arguments, stdin=stdin)
    assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    return done.stdout
