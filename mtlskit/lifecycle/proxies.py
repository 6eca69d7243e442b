"""The running proxies that serve an identity: told to load it, and asked who still uses what."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mtlskit.control.client import Running, reload_of, running, status_of
from mtlskit.control.places import Place, check_folder
from mtlskit.errors import Code, ConfigError, ControlError, RotationError

__all__ = ["ControlledProxies", "Proxies"]


_NOT_LISTENING = ("MTLS-LSN-", "MTLS-API-")
"""How the codes of a tunnel begin whose port is in use, or that has not been told by Heroku where to connect."""


class Proxies(Protocol):
    """What a rotation needs of the running proxies."""

    async def serve(self, identity: str, cert: Path, serial: str) -> str:
        """Have every proxy that uses the certificate file `cert` load it, and see that it serves `serial`.

        A word on it for people. Raises `RotationError` (NOT_SERVED).
        """

    async def sessions(self, cert: Path, serial: str, *, expected: bool, others: bool = False) -> int | None:
        """How many sessions of proxies that use `cert` were opened with the certificate `serial`; or with `others`.

        None where a proxy does not say, and where none was found though one is `expected`, because tunnels use the
        identity: it may keep its socket in another folder. Nobody may conclude then that there are none.
        """


class ControlledProxies:
    """Those that keep their control sockets in `place`, if nobody else can put sockets there."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def serve(self, identity: str, cert: Path, serial: str) -> str:
        """As `Proxies.serve`."""
        told: list[str] = []
        try:
            proxies = await self._running()
        except (ControlError, ConfigError) as exc:
            raise RotationError(
                Code.NOT_SERVED,
                f"{identity}: the running proxies could not be told of the new certificate: {exc.sentence}",
                exc.hint,
            ) from exc
        for proxy in proxies:
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
        if told:
            return f"served by {' and '.join(told)}"
        # As it is with a first certificate, whose proxy is started afterwards: nothing is wrong.
        return f"no running proxy uses it, so none had to be told (looked in {self._place.folder})"

    async def sessions(self, cert: Path, serial: str, *, expected: bool, others: bool = False) -> int | None:
        """As `Proxies.sessions`."""
        count, found = 0, False
        try:
            proxies = await self._running()
        except (ControlError, ConfigError):
            return None
        for proxy in proxies:
            try:
                tunnels = _using(await status_of(proxy), cert)
            except ControlError as exc:
                if exc.code is Code.CTL_NO_PROXY:
                    continue  # it has ended, and its sessions with it
                return None
            for tunnel in tunnels:
                found = True
                if "sessions_by_serial" not in tunnel:
                    return None
                by_serial = tunnel["sessions_by_serial"]
                # A proxy of an older version counts those that are still logging in for no serial; they may use the old
                # certificate. Where none was chosen yet, it will be the one that is served now.
                chosen = int(tunnel.get("sessions", 0)) - int(tunnel.get("undecided", 0))
                unknown = chosen - sum(by_serial.values())
                ours = int(by_serial.get(serial, 0))
                count += (sum(by_serial.values()) - ours if others else ours) + max(0, unknown)
        return count if found or not expected else None

    async def _running(self) -> list[Running]:
        check_folder(self._place)
        return await running(self._place.folder)


def _using(status: Mapping[str, Any], cert: Path) -> Sequence[Mapping[str, Any]]:
    """The tunnels of a proxy that load their certificate from `cert`."""
    wanted = _place(cert.absolute())
    return [
        tunnel
        for tunnel in status.get("tunnels", ())
        if tunnel.get("identity") and _place(Path(str(tunnel["identity"].get("cert")))) == wanted
    ]


def _place(cert: Path) -> tuple[str, str, str]:
    """A path of the store, NAME/current/client.crt, however its folder is spelled; `current` is not followed."""
    return os.path.realpath(cert.parent.parent), cert.parent.name, cert.name


def _check(identity: str, pid: int, answer: Mapping[str, Any], names: set[str], serial: str) -> None:
    found = {str(tunnel.get("name")): tunnel for tunnel in answer.get("tunnels", ())}
    for name in sorted(names):
        tunnel = found.get(name, {})
        if tunnel.get("ok") and tunnel.get("serial") == serial:
            continue
        error = tunnel.get("error") or {}
        if tunnel.get("serial") is None and str(error.get("code", "")).startswith(_NOT_LISTENING):
            continue  # it serves nobody at all, neither with the new certificate nor with the old one
        reason = error.get("reason") or f"it serves serial {tunnel.get('serial')} instead of {serial}"
        raise RotationError(
            Code.NOT_SERVED,
            f"{identity}: tunnel {name} of the proxy {pid} does not serve the new certificate: {reason}",
            error.get("hint") or "see `mtlskit status`; the next run of the rotation looks again",
        )
