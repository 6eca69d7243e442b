"""Which addresses ranges cover together: the question behind "would this lock me out?"."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, collapse_addresses

from mtlskit.config.cidrs import parse_cidr
from mtlskit.errors import ConfigError
from mtlskit.heroku.values import IpRule

__all__ = ["Coverage", "network_of"]


class Coverage:
    """All addresses of some ranges."""

    def __init__(self, networks: Iterable[IPv4Network]) -> None:
        # Joined as far as they can be, whatever is covered whole lies within a single one of them.
        self._joined = tuple(collapse_addresses(networks))

    def covers(self, network: IPv4Network) -> bool:
        """Whether every address of `network` is among them."""
        return any(network.subnet_of(joined) for joined in self._joined)


def network_of(rule: IpRule) -> IPv4Network | None:
    """The range of a rule that is there, whoever wrote it; None where that cannot be said for certain.

    IPv6, a host name or bits beyond the prefix: what Heroku makes of those is not known.
    """
    return _read(rule.cidr)


@lru_cache(maxsize=4096)  # a plan asks several times for each of some thousand rules
def _read(cidr: str) -> IPv4Network | None:
    try:
        return parse_cidr(cidr, wide_ok=True, private_ok=True)
    except ConfigError:
        return None
