"""The running proxies, and which of them serves the tunnel that is examined.

They are asked by their control sockets, as `mtlskit status` asks them: in the folder that the configuration names, of
`$MTLSKIT_CONTROL`, or the user's own. A proxy of another user keeps its socket elsewhere, so that none is found here
does not mean that none is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mtlskit.config.paths import parse_path
from mtlskit.config.values import ListenAddress, TcpAddress, UnixAddress
from mtlskit.control.client import Asked, Running, ask_each, running, status_of
from mtlskit.control.places import VARIABLE, Place, check_folder, control_place
from mtlskit.doctor.case import Case
from mtlskit.errors import ConfigError, ControlError, MtlskitError

__all__ = ["Found", "Served", "addresses_of", "covers", "find_proxies", "place_of", "same_path", "tunnels_of"]


@dataclass(frozen=True)
class Served:
    """A proxy that serves the tunnel: what it says of itself, and of the tunnel."""

    pid: int
    socket: Path
    status: Mapping[str, Any]
    tunnel: Mapping[str, Any]
    other_file: bool = False
    """It was started from another file, or from flags, and leads to the same place."""

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, in truth: port 0 has become a port."""
        return addresses_of(self.tunnel)


@dataclass(frozen=True)
class Found:
    """Which proxies there are."""

    folder: Path
    served: Served | None = None
    stranger: Served | None = None
    """A proxy that has the tunnel's address and leads elsewhere."""
    of_file: Mapping[str, Any] | None = None
    """The status of a proxy that was started from this file, and does not have this tunnel."""
    silent: tuple[Asked, ...] = ()
    """Those that did not answer."""
    problem: MtlskitError | None = None


def place_of(case: Case) -> Place:
    """The folder of control sockets, as every command finds it. Raises ConfigError."""
    environ = case.means.environ
    text = environ.get(VARIABLE)
    named = case.config.control  # a command's --control has taken its place, and the variable's word with it
    if named is None and text:
        named = parse_path(text, base=Path(), environ=environ)
    return control_place(named, environ)


async def find_proxies(case: Case) -> Found:
    """Ask every proxy of the folder. Never raises; takes two steps at most."""
    try:
        place = place_of(case)
    except ConfigError as exc:
        return Found(Path(), problem=exc)
    try:
        check_folder(place)
        proxies: list[Running] = []
        with trio.move_on_after(case.means.step):
            proxies = await running(place.folder)
        asked = await ask_each(proxies, partial(status_of, deadline=case.means.step))
    except (ConfigError, ControlError) as exc:
        return Found(place.folder, problem=exc)
    return _sorted_out(case, place.folder, asked)


def _sorted_out(case: Case, folder: Path, asked: Sequence[Asked]) -> Found:
    answers = [each for each in asked if each.answer is not None]
    silent = tuple(each for each in asked if each.answer is None)
    ours = [each for each in answers if _same_file(case, (each.answer or {}).get("config"))]
    named = _of_this_name(case, ours)
    if named is not None and (not named.addresses or _listens(case, named.tunnel)):
        return Found(folder, named, silent=silent)
    for each in answers:
        for tunnel in tunnels_of(each.answer or {}):
            if _listens(case, tunnel):
                served = Served(each.proxy.pid, each.proxy.path, each.answer or {}, tunnel, other_file=each not in ours)
                alike = _leads_alike(case, tunnel)
                return Found(folder, served if alike else named, None if alike else served, silent=silent)
    return Found(folder, named, of_file=ours[0].answer if ours else None, silent=silent)


def _of_this_name(case: Case, ours: Sequence[Asked]) -> Served | None:
    """The tunnel by its name. Of several proxies of the file the one that stays, and has the address of the file."""
    found = [
        Served(each.proxy.pid, each.proxy.path, each.answer or {}, tunnel)
        for each in ours
        if (tunnel := _named(each.answer or {}, case.name)) is not None
    ]
    return min(
        found, key=lambda each: (bool(each.status.get("draining")), not _listens(case, each.tunnel)), default=None
    )


def _named(status: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((each for each in tunnels_of(status) if each.get("name") == name), None)


def _same_file(case: Case, config: object) -> bool:
    source = case.config.source
    return source is not None and isinstance(config, str) and same_path(config, source)


def same_path(one: str | Path, other: str | Path) -> bool:
    """Whether they lead to one file."""
    try:
        return os.path.realpath(one) == os.path.realpath(other)
    except ValueError:  # no path at all
        return False


def _listens(case: Case, tunnel: Mapping[str, Any]) -> bool:
    """Whether it has the address that the case's tunnel should have."""
    return any(covers(case.tunnel.listen, each) for each in addresses_of(tunnel))


def covers(wanted: ListenAddress, there: ListenAddress) -> bool:
    """Whether clients of this host that look for `wanted` come to `there`."""
    if isinstance(wanted, UnixAddress) or isinstance(there, UnixAddress):
        return isinstance(wanted, UnixAddress) and isinstance(there, UnixAddress) and same_path(wanted.path, there.path)
    if wanted.port == 0 or wanted.port != there.port:
        return False
    anywhere = ("0.0.0.0", "::", "localhost")
    return wanted.host == there.host or wanted.host in anywhere or there.host in anywhere


def _leads_alike(case: Case, tunnel: Mapping[str, Any]) -> bool:
    """Whether clients of that tunnel get where this one's should."""
    if tunnel.get("kind") != case.kind.value:
        return False
    addon = tunnel.get("addon")
    if case.tunnel.addon is not None:
        return isinstance(addon, Mapping) and addon.get("name") == case.tunnel.addon
    return sorted(map(str, _list(tunnel.get("upstream")))) == sorted(str(each) for each in case.tunnel.upstream)


def _address(facts: object) -> ListenAddress | None:
    """From the status of a proxy, which may be of another version."""
    if not isinstance(facts, Mapping):
        return None
    host, port, path = facts.get("host"), facts.get("port"), facts.get("path")
    if isinstance(path, str):
        return UnixAddress(Path(path))
    return TcpAddress(host, port) if isinstance(host, str) and isinstance(port, int) else None


def addresses_of(tunnel: Mapping[str, Any]) -> tuple[ListenAddress, ...]:
    """Where a tunnel of a status listens."""
    return tuple(filter(None, (_address(each) for each in _list(tunnel.get("addresses")))))


def tunnels_of(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tunnels of a status, as far as they are any."""
    return [each for each in _list(status.get("tunnels")) if isinstance(each, Mapping)]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
