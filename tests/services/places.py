"""Folders and ports for servers: short paths (a unix socket's ends at 107 bytes) that the servers' user may enter."""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.accounts import Account, give, may_enter
from tests.services.errors import ServerError

LOOPBACK_V4 = "127.0.0.1"
LOOPBACK_V6 = "::1"

# Below Linux's range for outgoing connections (32768 and up): a port that a server leaves during a restart cannot be
# taken meanwhile by some connection's source port, as one that bind(0) has given can.
_PORTS = range(20_000, 32_000)
_LONGEST_TEMP = 60


def make_scratch(prefix: str, account: Account | None) -> Path:
    """A new folder, owned by the account, 0700."""
    base = Path(tempfile.gettempdir())
    if len(str(base)) > _LONGEST_TEMP or (account is not None and not may_enter(base / "any")):
        base = Path("/tmp")  # noqa: S108 - mkdtemp makes a private folder in it
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    give(folder, account)
    return folder


@contextmanager
def scratch_folder(prefix: str, account: Account | None) -> Iterator[Path]:
    """A new folder, owned by the account, that is gone afterwards."""
    folder = make_scratch(prefix, account)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def loopbacks() -> tuple[str, ...]:
    """The loopback addresses of this machine: a container may lack IPv6."""
    return tuple(address for address in (LOOPBACK_V4, LOOPBACK_V6) if _binds(address, 0))


def free_port() -> int:
    """A port on which nothing listens on any loopback address. Another may still take it: be ready to try again."""
    addresses = loopbacks()
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        if all(_binds(address, port) for address in addresses):
            return port
    raise ServerError(f"no free port between {_PORTS.start} and {_PORTS.stop} on {', '.join(addresses)}")


def _binds(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT is no obstacle for a server either
            probe.bind((address, port))
    except OSError:
        return False
    return True
