"""Rules that no single value can break: doors left open, listeners that clash, tunnels that lead into themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import combinations

from mtlskit.config.origins import Origin, ValuePath, problem, raise_first
from mtlskit.config.reach import broker_listeners, is_own_listener, is_this_machine_only, overlap
from mtlskit.config.schema import EXAMPLES
from mtlskit.config.values import ListenAddress, TcpAddress, TunnelConfig, UnixAddress
from mtlskit.errors import Code, ConfigError

__all__ = ["check_door", "check_listeners", "check_loops"]


def check_door(tunnel: TunnelConfig, origin: Origin, platform: str) -> None:
    """Refuse a door that would stand open, and a guard who would see nobody. `platform` is as in `sys.platform`.

    Raises `ConfigError`: CONFIG_OPEN_DOOR, CONFIG_NOT_SUPPORTED, CONFIG_BAD_VALUE.
    """
    _check_platform(tunnel, origin, platform)
    listen = tunnel.listen
    path = ("tunnel", tunnel.name)
    if isinstance(listen, UnixAddress):
        if tunnel.allow_clients:
            raise problem(
                origin,
                (*path, "allow_clients"),
                "the clients of a unix socket have no IP address",
                f"use {origin.name_of('allow_users')}, or the permissions of the socket's folder",
            )
        return
    if is_this_machine_only(listen):
        return
    if not tunnel.allow_clients:
        example = '["fd00::/8"]' if ip_address(listen.host).version == 6 else '["10.0.0.0/8"]'
        raise problem(
            origin,
            (*path, "listen"),
            f"{listen} is open to other machines, and {origin.name_of('allow_clients')} does not say to which",
            f"add {origin.spell('allow_clients', example)} with the networks of your clients, or listen on 127.0.0.1",
            code=Code.CONFIG_OPEN_DOOR,
        )
    if tunnel.allow_users:
        raise problem(
            origin,
            (*path, "allow_users"),
            f"the kernel knows the users of local sockets only, and {listen} can be reached from other machines",
            f"listen on 127.0.0.1, [::1] or a unix socket, or leave {origin.name_of('allow_users')} out",
        )


def _check_platform(tunnel: TunnelConfig, origin: Origin, platform: str) -> None:
    path = ("tunnel", tunnel.name)
    if tunnel.allow_users and not platform.startswith("linux"):
        raise problem(
            origin,
            (*path, "allow_users"),
            f"on this platform ({platform}) the kernel does not tell which user a connection belongs to",
            f"leave {origin.name_of('allow_users')} out, and keep other users off this machine",
            code=Code.CONFIG_NOT_SUPPORTED,
        )
    if isinstance(tunnel.listen, UnixAddress) and platform == "win32":
        raise problem(
            origin,
            (*path, "listen"),
            "unix sockets are not supported on Windows",
            f"use {origin.spell('listen', EXAMPLES['listen'])}",
            code=Code.CONFIG_NOT_SUPPORTED,
        )


def check_loops(tunnel: TunnelConfig, origin: Origin) -> None:
    """Refuse an upstream that is the tunnel's own listener. Raises `ConfigError` (CONFIG_BAD_VALUE)."""
    own = [tunnel.listen, *(address for _, address in broker_listeners(tunnel))]
    for endpoint in tunnel.upstream:
        if any(is_own_listener(endpoint, address) for address in own):
            raise problem(
                origin,
                ("tunnel", tunnel.name, "upstream"),
                f"{endpoint} is the tunnel's own listener: it would connect to itself",
                "name the server as upstream, or listen on another port",
            )


def check_listeners(tunnels: Sequence[TunnelConfig], origin: Origin) -> None:
    """Refuse two listeners on one address. Raises `ConfigError` (CONFIG_DUPLICATE_LISTENER) for the first such pair."""
    clashes: dict[tuple[int, int], ConfigError] = {}
    for group in _by_port(tunnels).values():
        for first, second in combinations(group, 2):
            pair = (first.number, second.number)
            if first.number != second.number and pair not in clashes and overlap(first.address, second.address):
                clashes[pair] = _clash(first, second, origin)
    raise_first([clashes[pair] for pair in sorted(clashes)])


@dataclass(frozen=True)
class _Listener:
    """A listener that the configuration names. `number` is the place of its tunnel."""

    number: int
    tunnel: str
    address: ListenAddress
    node: int | None = None

    def __str__(self) -> str:
        return f"{self.address} of {'' if self.node is None else f'broker {self.node} of '}tunnel {self.tunnel}"


def _by_port(tunnels: Sequence[TunnelConfig]) -> Mapping[int | None, Sequence[_Listener]]:
    """All listeners, those together that can clash at all: brokers with ports of their own may be many."""
    groups: dict[int | None, list[_Listener]] = {}
    for number, tunnel in enumerate(tunnels):
        port = tunnel.listen.port if isinstance(tunnel.listen, TcpAddress) else None
        groups.setdefault(port, []).append(_Listener(number, tunnel.name, tunnel.listen))
        for node, address in broker_listeners(tunnel):
            groups.setdefault(address.port, []).append(_Listener(number, tunnel.name, address, node))
    return groups


def _clash(first: _Listener, second: _Listener, origin: Origin) -> ConfigError:
    path: ValuePath = ("tunnel", second.tunnel, "listen")
    if second.node is not None:
        path = ("tunnel", second.tunnel, "brokers", str(second.node))
    both = first.address == second.address and first.node is None and second.node is None
    return problem(
        origin,
        path,
        f"tunnels {first.tunnel} and {second.tunnel} both listen on {second.address}"
        if both
        else f"{second} clashes with {first}",
        "give one of them another port",
        code=Code.CONFIG_DUPLICATE_LISTENER,
    )
