"""What becomes of one address that a broker advertises: replaced by one of ours, left, or withheld.

An address that cannot be replaced must not reach the client, for the client would go there without us. In its place
goes one that every client can read and none can connect to: a name under ``.invalid``, which DNS never knows (RFC 6761,
section 6.4). Leaving the broker out would change what its partitions refer to; an empty host means "this very machine"
to Java, and a negative port ends its network thread.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = [
    "NOWHERE",
    "NO_LISTENER",
    "Address",
    "AddressWithheld",
    "Advertised",
    "Listed",
    "Notice",
    "Resolve",
    "unheard",
]

Address: TypeAlias = tuple[str, int]

Resolve: TypeAlias = Callable[[int, str, int], Address | None]
"""``resolve(node_id, host, port)``: asked before an address is passed on; opens a listener for that node where there is
none, notes the node's present address, and returns the address that clients are to use. None where no listener can be
had: the address is withheld. It may raise an MtlskitError, which ends the connection. The host that it returns has at
most 32,767 bytes, the port fits int32."""

NOWHERE: Final[Address] = ("withheld.invalid", 1)

NO_LISTENER: Final = "there is no listener for it"
"""The reason where `Resolve` had no address."""


@dataclass(frozen=True)
class AddressWithheld:
    """A node's address was replaced by `NOWHERE`, or not asked for; `reason` says why, as the end of a sentence."""

    node_id: int
    host: str
    port: int
    reason: str


Notice: TypeAlias = Callable[[AddressWithheld], None]

Listed: TypeAlias = Callable[[AbstractSet[int]], None]
"""Hears the node ids of a response that names every broker there is, when each of them has been resolved. The set is
lent: it is the caller's again afterwards."""


def unheard(_notice: AddressWithheld) -> None:
    """For an owner who does not want to know."""


class Advertised:
    """Decides about the addresses of one response. A node that is named twice in it gets one address."""

    __slots__ = ("_notice", "_resolve", "_seen")

    def __init__(self, resolve: Resolve, notice: Notice) -> None:
        self._resolve = resolve
        self._notice = notice
        self._seen: dict[int, tuple[Address, Address]] = {}

    @property
    def nodes(self) -> AbstractSet[int]:
        """The nodes that were named with an address, so far."""
        return self._seen.keys()

    def replacement(self, node_id: int, host: str, port: int) -> Address | None:
        """The address to be written instead, or None where the one that stands there names nobody and may stay."""
        if not host:
            # "No coordinator" is -1, an empty host and -1. With a node id, the broker has something wrong.
            if node_id >= 0:
                self._notice(AddressWithheld(node_id, host, port, "the broker advertises no host"))
            return None
        if node_id < 0:
            self._notice(AddressWithheld(node_id, host, port, "a broker's node id is not negative"))
            return NOWHERE
        seen = self._seen.get(node_id)
        if seen is None:
            return self._asked(node_id, host, port)
        theirs, ours = seen
        if theirs != (host, port):
            self._notice(AddressWithheld(node_id, host, port, f"the node was named before, at {theirs[0]}:{theirs[1]}"))
        return ours

    def _asked(self, node_id: int, host: str, port: int) -> Address:
        ours = self._resolve(node_id, host, port)
        if ours is None:
            self._notice(AddressWithheld(node_id, host, port, NO_LISTENER))
            ours = NOWHERE
        self._seen[node_id] = ((host, port), ours)
        return ours
