"""Addresses where no database is expected, and whether this host has a way to the network at all. Nothing is sent."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Final

from mtlskit.config.reach import leads_here

__all__ = [
    "Oddity",
    "has_way_out",
    "in_hosts_file",
    "is_address",
    "is_own_name",
    "is_private",
    "oddities_of",
    "oddity_of",
]

HOSTS: Final = Path("/etc/hosts")
RESOLVERS: Final = Path("/etc/resolv.conf")

_MOST = 256 * 1024
"""Bytes read of either file: lists that block advertisements are longer, and nobody needs their ends here."""

_DOCUMENTATION: Final = (
    IPv4Network("192.0.2.0/24"),  # RFC 5737
    IPv4Network("198.51.100.0/24"),
    IPv4Network("203.0.113.0/24"),
    IPv6Network("2001:db8::/32"),  # RFC 3849
    IPv6Network("3fff::/20"),  # RFC 9637
)

_PRIVATE: Final = (
    IPv4Network("10.0.0.0/8"),  # RFC 1918
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # RFC 6598: clouds use it behind the addresses of RFC 1918
    IPv6Network("fc00::/7"),  # RFC 4193
)

_FAR: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Somewhere outside: what is asked is the table of routes, and no packet leaves for it."""

_SHOWN: Final = 8
"""Addresses of a kind in a sentence."""

_DISCARD: Final = 9  # the port does not matter


@dataclass(frozen=True)
class Oddity:
    """What is odd about an address. `words` follow "ADDRESS is"."""

    words: str
    hopeless: bool = False
    """No TCP connection can ever reach a server there."""


def oddity_of(address: str) -> Oddity | None:
    """What is odd about an IP address, None for one where a server may be."""
    found: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    if found.is_unspecified:
        return Oddity("the address of no host", hopeless=True)
    if found.is_multicast:
        return Oddity("a multicast address", hopeless=True)
    if isinstance(found, IPv4Address) and found.is_reserved:  # 240.0.0.0/4, 255.255.255.255 included
        return Oddity("a reserved address", hopeless=True)
    if found.is_loopback:
        return Oddity("this host itself")
    if found.is_link_local:
        return Oddity("a link-local address, good for one network segment only")
    if any(found in network for network in _DOCUMENTATION):
        return Oddity("an address for examples in documentation")
    return None


def oddities_of(addresses: Sequence[str]) -> str:
    """What is odd about those that are odd, such as "127.0.0.1 and ::1, which is this host itself"; empty for none."""
    alike: dict[str, list[str]] = {}
    for address in addresses:
        if odd := oddity_of(address):
            alike.setdefault(odd.words, []).append(address)
    return " and to ".join(f"{' and '.join(texts[:_SHOWN])}, which is {words}" for words, texts in alike.items())


def is_address(host: str) -> bool:
    """Whether `host` is an IP address and no name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def is_private(address: str) -> bool:
    """Whether it is an address of somebody's inner network, which the Internet does not route. Loopback is none."""
    found: IPv4Address | IPv6Address = ip_address(address)
    if isinstance(found, IPv6Address):
        found = found.ipv4_mapped or found
    return any(found in network for network in _PRIVATE)


def is_own_name(host: str) -> bool:
    """A name that is meant to lead to this host: `localhost` and its like (RFC 6761 section 6.3), or the host's own."""
    name = host.rstrip(".").lower()
    own = socket.gethostname().lower()
    return name.split(".")[-1] == "localhost" or name in ("localhost.localdomain", "ip6-localhost", "ip6-loopback", own)


def in_hosts_file(host: str) -> bool:
    """Whether hosts(5) has an entry for the name: then somebody on this host has wanted it so."""
    wanted = host.rstrip(".").lower()
    return any(wanted in (name.lower() for name in line[1:]) for line in _words_of(HOSTS))


def has_way_out() -> bool:
    """Whether a route leads out of this host: to the world, or to a name server that is not on it."""
    servers = [line[1] for line in _words_of(RESOLVERS) if len(line) > 1 and line[0] == "nameserver"]
    near = [(_family(server), server) for server in servers if is_address(server) and not leads_here(server)]
    return any(_has_route(family, address) for family, address in (*_FAR, *near))


def _has_route(family: socket.AddressFamily, address: str) -> bool:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((address, _DISCARD))  # of a datagram socket: looks the route up, and sends nothing
    except OSError:
        return False
    return True


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET


def _words_of(path: Path) -> list[list[str]]:
    """The words of each line without its comment. A file that is not there has none."""
    text = ""
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        text = file.read(_MOST)
    return [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
