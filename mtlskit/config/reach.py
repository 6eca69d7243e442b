"""How far a listen address reaches, and which addresses meet: pure questions about values."""

from __future__ import annotations

import os.path
from ipaddress import IPv4Address, IPv6Address, ip_address

from mtlskit.config.values import Endpoint, ListenAddress, TcpAddress, TunnelConfig, UnixAddress

__all__ = ["broker_listeners", "is_own_listener", "is_this_machine_only", "leads_here", "overlap"]


def is_this_machine_only(address: ListenAddress) -> bool:
    """Whether only processes of this machine can reach `address`: a unix socket, localhost, 127.0.0.0/8 or ::1.

    Everything else counts as beyond, IPv4-mapped addresses too: what they accept depends on the platform.
    """
    if isinstance(address, UnixAddress) or address.host == "localhost":
        return True
    ip = ip_address(address.host)
    return ip.is_loopback and not (isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None)


def leads_here(host: str) -> bool:
    """Whether connecting to `host` leads to this machine: localhost, 127.0.0.0/8, ::1. Other names are not resolved.

    IPv4-mapped addresses are what they are mapped from; `is_loopback` itself knows that since Python 3.13.
    """
    if host == "localhost":
        return True
    try:
        ip = ip_address(host)
    except ValueError:
        return False
    return ((isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip).is_loopback


def overlap(one: ListenAddress, other: ListenAddress) -> bool:
    """Whether a client could mean either of two listeners. Port 0 never overlaps: the kernel chooses a free one.

    A wildcard covers its own family only, because listeners are opened with IPV6_V6ONLY.
    """
    if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
        return (
            isinstance(one, UnixAddress)
            and isinstance(other, UnixAddress)
            and os.path.normpath(one.path) == os.path.normpath(other.path)
        )
    if one.port != other.port or one.port == 0:
        return False
    return any(_meet(a, b) for a in _hosts(one.host) for b in _hosts(other.host))


def broker_listeners(tunnel: TunnelConfig) -> tuple[tuple[int, TcpAddress], ...]:
    """The listeners for brokers that can be told from the configuration: node ids, and where they listen.

    The others follow from node ids that only the cluster knows.
    """
    if isinstance(tunnel.listen, UnixAddress):
        return ()
    host = tunnel.listen.host
    return tuple((node, TcpAddress(host, port)) for node, port in tunnel.kafka.ports)


def is_own_listener(endpoint: Endpoint, listener: ListenAddress) -> bool:
    """Whether dialling `endpoint` would reach `listener`, as far as that can be told without DNS."""
    try:
        _hosts(endpoint.host)
    except ValueError:
        return False  # a name: what it resolves to is not the configuration's business
    return isinstance(listener, TcpAddress) and overlap(TcpAddress(endpoint.host, endpoint.port), listener)


def _hosts(host: str) -> tuple[IPv4Address | IPv6Address, ...]:
    if host.lower() == "localhost":
        return (IPv4Address("127.0.0.1"), IPv6Address("::1"))
    ip = ip_address(host)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        return (ip.ipv4_mapped,)
    return (ip,)


def _meet(a: IPv4Address | IPv6Address, b: IPv4Address | IPv6Address) -> bool:
    return a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified)
