"""Which server variables, URLs and lines of a password file speak of: this one, perhaps this one, or another.

A password must not come to a server that it is not meant for. Beyond doubt, only the server's own host and port name
it. The tunnel's door does not: who writes `localhost:5432` may mean the tunnel that listens there, or the Postgres that
listened there before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, UnixAddress

__all__ = ["WILDCARD", "Fit", "Places"]

WILDCARD: Final = "*"
"""In the password file: any."""

_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_EVERY_ADDRESS: Final = frozenset({"0.0.0.0", "::", ""})
_DEFAULT_PORT: Final = "5432"


class Fit(IntEnum):
    """How sure it is that something is meant for the endpoint."""

    ELSEWHERE = 0
    PERHAPS = 1
    """The tunnel's door, or a rule for any host."""
    HERE = 2


@dataclass(frozen=True)
class Places:
    """The endpoint, and the door of the tunnel that leads to it."""

    endpoint: Endpoint
    door: ListenAddress | None = None
    """Where clients of this host find the tunnel; None: there is no such door."""

    @property
    def doors(self) -> tuple[Endpoint, ...]:
        """The names under which a client may know the door."""
        if not isinstance(self.door, TcpAddress) or not self.door.port:
            return ()
        hosts = [self.door.host]
        if self.door.host in _LOOPBACK or self.door.host in _EVERY_ADDRESS:
            hosts += _LOOPBACK
        return tuple(Endpoint(host, self.door.port) for host in dict.fromkeys(hosts))

    def fit(self, host: str, port: str) -> Fit:
        """Of a host, a folder with sockets, or an address, and a port."""
        if host.startswith("/"):
            return self._fit_of_socket(host, port)
        if _same(host, port, self.endpoint):
            return Fit.HERE
        return Fit.PERHAPS if any(_same(host, port, door) for door in self.doors) else Fit.ELSEWHERE

    def fit_of_rule(self, host: str, port: str) -> Fit:
        """Of a line of the password file, where a host is told by its exact name (libpq compares so)."""
        ports = (WILDCARD, str(self.endpoint.port))
        if host == self.endpoint.host and port in ports:
            return Fit.HERE
        if host == WILDCARD and port in ports:
            return Fit.PERHAPS
        doors = any(host in (WILDCARD, door.host) and port in (WILDCARD, str(door.port)) for door in self.doors)
        return Fit.PERHAPS if doors else Fit.ELSEWHERE

    def named_by(self, environ: Mapping[str, str]) -> Fit | None:
        """Where libpq's variables lead to; None: they do not say. What a service file holds is not read."""
        if environ.get("PGSERVICE"):
            return Fit.ELSEWHERE
        hosts, addresses, ports = (environ.get(name, "") for name in ("PGHOST", "PGHOSTADDR", "PGPORT"))
        if addresses:
            # libpq connects to the address, and PGHOST is but the name that it verifies.
            return max(self._fit_of(addresses, ports), min(self._fit_of(hosts, ports), Fit.PERHAPS))
        if hosts:
            return self._fit_of(hosts, ports)
        if not ports:
            return None
        given = ports.strip()
        if given == str(self.endpoint.port):
            return None
        return Fit.PERHAPS if any(given == str(door.port) for door in self.doors) else Fit.ELSEWHERE

    def _fit_of(self, hosts: str, ports: str) -> Fit:
        """Of lists parted by commas: one port for all hosts, or one for each (PostgreSQL docs, 32.1.1.3)."""
        if not hosts:
            return Fit.ELSEWHERE
        each_host = hosts.split(",")
        each_port = (ports or _DEFAULT_PORT).split(",")
        if len(each_port) == 1:
            each_port *= len(each_host)
        fits = [self.fit(host.strip(), port.strip()) for host, port in zip(each_host, each_port, strict=False)]
        return max(fits, default=Fit.ELSEWHERE)

    def _fit_of_socket(self, folder: str, port: str) -> Fit:
        """libpq finds the socket of a port by its name."""
        if not isinstance(self.door, UnixAddress):
            return Fit.ELSEWHERE
        ours = str(self.door.path) == f"{folder.rstrip('/')}/.s.PGSQL.{port}"
        return Fit.PERHAPS if ours else Fit.ELSEWHERE


def _same(host: str, port: str, place: Endpoint) -> bool:
    return host.lower() == place.host.lower() and (port or _DEFAULT_PORT) == str(place.port)
