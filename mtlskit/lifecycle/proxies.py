"""The running proxies that serve an identity: told to load it, and asked who still uses what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mtlskit.control.client import reload_of, running, status_of
from mtlskit.errors import Code, ControlError, RotationError

__all__ = ["ControlledProxies", "Proxies"]


class Proxies(Protocol):
    """What a rotation needs of the running proxies."""

    async def serve(self, identity: str, cert: Path, serial: str) -> str:
        """Have every proxy that uses the certificate file `cert` load it, and see that it serves `serial`.

        A word on it for people. Raises `RotationError` (NOT_SERVED).
        """

    async def sessions(self, cert: Path, serial: str) -> int | None:
        """How many sessions of proxies that use `cert` were opened with the certificate `serial`.

        None where a proxy does not say: nobody may conclude then that there are none.
        """


@dataclass(frozen=True)
class _Server:
    """A proxy, and which of its tunnels are concerned."""

    pid: int
    tunnels: tuple[Mapping[str, Any], ...]


class ControlledProxies:
    """Those that keep their control sockets in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def serve(self, identity: str, cert: Path, serial: str) -> str:
        """As `Proxies.serve`."""
        told: list[str] = []
        for proxy in await running(self._folder):
            try:
                names = {str(tunnel["name"]) for tunnel in _using(await status_of(proxy), cert)}
                if not names:
                    continue
                answer = await reload_of(proxy)
            except ControlError as exc:
                if exc.code is Code.CTL_NO_PROXY:
                    continue  # it has ended
                raise RotationError(
                    Code.NOT_SERVED,
                    f"{identity}: the proxy {proxy.pid} could not be told of the new certificate: {exc.sentence}",
                    exc.hint or "see `mtlskit status`; it notices new files by itself, and the next run looks again",
                ) from exc
            _check(identity, proxy.pid, answer, names, serial)
            told.append(f"process {proxy.pid} ({', '.join(sorted(names))})")
        return f"served by {' and '.join(told)}" if told else "no running proxy uses it"

    async def sessions(self, cert: Path, serial: str) -> int | None:
        """As `Proxies.sessions`."""
        count = 0
        for proxy in await running(self._folder):
            try:
                tunnels = _using(await status_of(proxy), cert)
            except ControlError as exc:
                if exc.code is Code.CTL_NO_PROXY:
                    continue  # it has ended, and its sessions with it
                return None
            count += sum(int(tunnel.get("sessions_by_serial", {}).get(serial, 0)) for tunnel in tunnels)
        return count


def _using(status: Mapping[str, Any], cert: Path) -> Sequence[Mapping[str, Any]]:
    """The tunnels of a proxy that load their certificate from `cert`."""
    wanted = str(cert.absolute())
    return [
        tunnel
        for tunnel in status.get("tunnels", ())
        if tunnel.get("identity") and str(tunnel["identity"].get("cert")) == wanted
    ]


def _check(identity: str, pid: int, answer: Mapping[str, Any], names: set[str], serial: str) -> None:
    for tunnel in answer.get("tunnels", ()):
        if tunnel.get("name") not in names or (tunnel.get("ok") and tunnel.get("serial") == serial):
            continue
        error = tunnel.get("error") or {}
        reason = error.get("reason") or f"it serves serial {tunnel.get('serial')} instead of {serial}"
        raise RotationError(
            Code.NOT_SERVED,
            f"{identity}: tunnel {tunnel.get('name')} of the proxy {pid} does not serve the new certificate: {reason}",
            error.get("hint") or "see `mtlskit status`; the next run of the rotation looks again",
        )
