"""Nothing that only Unix has is needed to import us: BI desktops run Windows."""

from __future__ import annotations

import subprocess
import sys

# Third-party modules may import what they like, so they are loaded before it is taken away.
_PROGRAM = """
import asyncio, builtins, importlib, multiprocessing, pkgutil, socket, ssl, subprocess, sys, tempfile
import cryptography.x509, platformdirs, pydantic, trio, typer

MISSING = {"pwd", "grp", "resource", "fcntl", "termios", "pty", "tty", "syslog"}
real = builtins.__import__

def guarded(name, globals=None, *rest, **named):
    if name.split(".")[0] in MISSING and (globals or {}).get("__name__", "").startswith("mtlskit"):
        raise ImportError(f"No module named {name!r} (as on Windows)")
    return real(name, globals, *rest, **named)

builtins.__import__ = guarded
for name in ("AF_UNIX", "SO_PEERCRED", "AF_NETLINK", "SO_REUSEPORT"):
    if hasattr(socket, name):
        delattr(socket, name)

import mtlskit
names = [m.name for m in pkgutil.walk_packages(mtlskit.__path__, "mtlskit.") if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_can_be_imported_without_what_only_unix_has() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
