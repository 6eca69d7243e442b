"""Joining ranges that lie side by side or within each other, so that fewer rules let in the same addresses."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from ipaddress import IPv4Network, collapse_addresses
from itertools import chain
from typing import Final

from mtlskit.allowlist.plan import FROM_LIST, Wanted

__all__ = ["collapse"]

_LONGEST: Final = 200
"""Characters of a joined description. What Heroku takes is not known; more tells nobody anything."""


def collapse(wanted: Iterable[Wanted]) -> tuple[Wanted, ...]:
    """The fewest ranges that cover exactly the addresses of `wanted`, by address.

    A range that several went into has the descriptions of all of them, in the order of their addresses, shortened where
    there are many. Its origin is that of the first; a published list among the origins comes before all others, because
    what it feeds is applied only after it was seen.
    """
    rest = deque(sorted(wanted, key=lambda want: (want.cidr, want.description, want.origin)))
    joined: list[Wanted] = []
    # Both are in the order of their addresses, and each range lies in exactly one of the joined ones.
    for network in collapse_addresses([want.cidr for want in rest]):
        parts: list[Wanted] = []
        while rest and rest[0].cidr.subnet_of(network):
            parts.append(rest.popleft())
        joined.append(_join(network, parts))
    return tuple(joined)


def _join(network: IPv4Network, parts: list[Wanted]) -> Wanted:
    descriptions = dict.fromkeys(want.description for want in parts if want.description)
    listed = sorted(want.origin for want in parts if want.origin.startswith(FROM_LIST))
    return Wanted(network, _shortened(list(descriptions)), next(chain(listed, (want.origin for want in parts))))


def _shortened(descriptions: list[str]) -> str:
    text = " + ".join(descriptions)
    if len(text) <= _LONGEST:
        return text
    for kept in range(len(descriptions) - 1, 0, -1):
        text = f"{' + '.join(descriptions[:kept])} and {len(descriptions) - kept} more"
        if len(text) <= _LONGEST:
            return text
    return f"{descriptions[0][: _LONGEST - 1]}…"
