"""Our own listeners, so that no broker is looked for there: each connection would make the next, until none is left.

A broker behind a port forward that advertises localhost is enough for that, where its port is one of ours here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mtlskit.config.reach import is_own_listener, is_this_machine_only
from mtlskit.config.values import Endpoint, TcpAddress

__all__ = ["OurListeners", "leads_to"]

_WILDCARDS: Final = ("0.0.0.0", "::")


class OurListeners:
    """Of one tunnel: its own, and those of brokers. The owner's lock guards it."""

    def __init__(self, addresses: Iterable[TcpAddress]) -> None:
        self._by_port: dict[int, list[TcpAddress]] = {}
        self.add(addresses)

    def add(self, addresses: Iterable[TcpAddress]) -> None:
        """We listen there."""
        for address in addresses:
            self._by_port.setdefault(address.port, []).append(address)

    def remove(self, addresses: Iterable[TcpAddress]) -> None:
        """We do so no more."""
        for address in addresses:
            self._by_port[address.port].remove(address)

    def reached_by(self, endpoint: Endpoint) -> bool:
        """Whether whoever dials `endpoint` comes to one of them."""
        return any(leads_to(endpoint, own) for own in self._by_port.get(endpoint.port, ()))


def leads_to(endpoint: Endpoint, own: TcpAddress) -> bool:
    """Whether whoever dials `endpoint` comes to `own`, as far as can be told without DNS.

    Which addresses this host has is not asked either: of a wildcard, only those of loopback are known to be ours.
    """
    if not is_own_listener(endpoint, own):
        return False
    return own.host not in _WILDCARDS or is_this_machine_only(TcpAddress(endpoint.host, endpoint.port))
