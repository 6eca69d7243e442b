"""The ready file: what scripts wait for, and where they learn the real addresses. Documented in docs/reference."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mtlskit.config.values import ListenAddress, TcpAddress
from mtlskit.errors import Code, ConfigError
from mtlskit.proxy.events import described
from mtlskit.proxy.tunnel import Tunnel

__all__ = ["address_facts", "prepare_ready_file", "ready_file", "snapshot", "tunnel_facts"]


def snapshot(tunnels: Iterable[Tunnel]) -> dict[str, Any]:
    """The proxy's state as plain values: `pid`, and for each tunnel its name, kind, state and real addresses."""
    return {"pid": os.getpid(), "tunnels": [tunnel_facts(tunnel) for tunnel in tunnels]}


def prepare_ready_file(path: Path | None) -> None:
    """Remove the file of a proxy that was killed: whoever waits for it must not take it for ours.

    Raises ConfigError if it cannot be removed, or if none can be made in its folder: better before anything has been
    opened than after.
    """
    if path is None:
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(
            Code.USAGE,
            f"{path}: the ready file cannot be written over what stands there: {exc.strerror or exc}",
            "remove it, or name another one",
        ) from exc
    try:
        descriptor, temporary = _beside(path)
        os.close(descriptor)
        Path(temporary).unlink()
    except OSError as exc:
        raise _unwritable(path, exc) from exc


@contextmanager
def ready_file(path: Path | None, tunnels: Iterable[Tunnel]) -> Iterator[Callable[[], None]]:
    """Write the file, whole or not at all, and remove it at the end. Does nothing without a path.

    Gives a function that writes it again, for when a reload has changed something. Both raise ConfigError if it cannot
    be written; the old file stays then.
    """
    if path is None:
        yield lambda: None
        return
    told = b""

    def write() -> None:
        nonlocal told
        content = (json.dumps(snapshot(tunnels), indent=2) + "\n").encode("ascii")
        if content != told:
            _replace(path, content)
            told = content

    write()
    try:
        yield write
    finally:
        # Another proxy may have been started with the same path; its file is not ours to remove.
        with suppress(OSError):
            if path.read_bytes() == told:
                path.unlink()


def _replace(path: Path, content: bytes) -> None:
    try:
        descriptor, temporary = _beside(path)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def _beside(path: Path) -> tuple[int, str]:
    """A new file in the same folder, as `tempfile.mkstemp` gives it."""
    return tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)


def _unwritable(path: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        Code.USAGE,
        f"{path}: the ready file cannot be written: {exc.strerror or exc}",
        "name a file in a folder that exists and that this user may write",
    )


def tunnel_facts(tunnel: Tunnel) -> dict[str, Any]:
    """A tunnel as plain values, as the ready file has it."""
    facts: dict[str, Any] = {
        "name": tunnel.config.name,
        "kind": tunnel.config.kind.value,
        "state": tunnel.state.value,
        "addresses": [address_facts(address) for address in tunnel.addresses],
        "upstream": [str(endpoint) for endpoint in tunnel.upstream],
    }
    if tunnel.failure is not None:
        facts["error"] = described(tunnel.failure)
    return facts


def address_facts(address: ListenAddress) -> dict[str, Any]:
    """An address as plain values: `host` and `port`, or `path`."""
    if isinstance(address, TcpAddress):
        return {"host": address.host, "port": address.port}
    return {"path": str(address.path)}
