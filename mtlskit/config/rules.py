"""Rules that no single value can break: doors left open, listeners that clash, tunnels that lead into themselves."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from itertools import combinations

from mtlskit.config.origins import Origin, problem, raise_first
from mtlskit.config.reach import is_own_listener, is_this_machine_only, overlap
from mtlskit.config.schema import EXAMPLES
from mtlskit.config.values import TunnelConfig, UnixAddress
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
    for endpoint in tunnel.upstream:
        if is_own_listener(endpoint, tunnel.listen):
            raise problem(
                origin,
                ("tunnel", tunnel.name, "upstream"),
                f"{endpoint} is the tunnel's own listener: it would connect to itself",
                "name the server as upstream, or listen on another port",
            )


def check_listeners(tunnels: Sequence[TunnelConfig], origin: Origin) -> None:
    """Refuse two listeners on one address. Raises `ConfigError` (CONFIG_DUPLICATE_LISTENER) for the first such pair."""
    problems: list[ConfigError] = [
        problem(
            origin,
            ("tunnel", second.name, "listen"),
            f"tunnels {first.name} and {second.name} both listen on {second.listen}"
            if first.listen == second.listen
            else f"{second.listen} of tunnel {second.name} clashes with {first.listen} of tunnel {first.name}",
            "give one of them another port",
            code=Code.CONFIG_DUPLICATE_LISTENER,
        )
        for first, second in combinations(tunnels, 2)
        if overlap(first.listen, second.listen)
    ]
    raise_first(problems)
