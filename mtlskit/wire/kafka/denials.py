"""What the cluster refuses by name: topics and groups that this client may not use, read from responses that pass.

On a plan that many share, the names of topics and groups begin with a prefix, and who forgets it is refused. Clients
tell it in words of their own, if they do; here it is seen in one place, for every client.

* Metadata says it of each topic: error 29, or 3 where the topic is not there and is not made by asking.
* FindCoordinator says it of a group (error 30) or a transactional id (53). Only from version 4 on the response names
  what was asked for. Before, the request does, so `key_asked_for` reads it there.

This is for a log and must harm nothing: responses are looked at when they have been rewritten already, what cannot be
read ends the look and not the connection, and as little is looked at as will do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, TypeAlias

from mtlskit.errors import UpstreamProtocolError
from mtlskit.wire.kafka.primitives import Buffer, Place, Reader
from mtlskit.wire.kafka.tables import FIND_COORDINATOR, METADATA, NAMES, TABLES, Kind
from mtlskit.wire.kafka.walker import Action, Steps, Walk, steps_of

__all__ = [
    "LOOKED_AT",
    "MAX_DENIED",
    "MAX_KEYS",
    "MAX_KEY_REQUEST",
    "MAX_LOOK",
    "MAX_NAME",
    "Denied",
    "DeniedKind",
    "Hear",
    "key_asked_for",
    "look",
]

DeniedKind: TypeAlias = Literal["topic", "group", "transactional id"]

LOOKED_AT: Final = frozenset({METADATA, FIND_COORDINATOR})
"""The api keys whose responses may say it."""

MAX_DENIED: Final = 16
"""Names that are told of one response: who forgot a prefix once forgot it everywhere."""

MAX_NAME: Final = 249
"""Characters of a name that is told: the longest that a topic may have. Names of groups may be longer."""

MAX_LOOK: Final = 8 * 1024
"""Bytes of a response that are looked at: 150 partitions, or 30 topics of the longest name that are refused. Larger
ones answer clients that ask for all topics, and of those the broker leaves out what they may not see; looking through
thousands of partitions would take several times as long as all else that is done with them."""

MAX_KEY_REQUEST: Final = 1024
"""Bytes of a FindCoordinator request that is read: room for three names."""

MAX_KEYS: Final = 64
"""Requests in flight up to which the names that they ask for are kept; a client seldom has more than five."""

_REQUEST_CLIENT_ID: Final = 8  # behind the api key, its version and the correlation id
_REQUEST_FLEXIBLE: Final = 3
_KEY_IN_RESPONSE: Final = 4

_OF_TOPICS: Final = frozenset({29, 3})  # TOPIC_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_OR_PARTITION
_OF_KEYS: Final[Mapping[int, DeniedKind]] = {30: "group", 53: "transactional id"}  # …_AUTHORIZATION_FAILED


@dataclass(frozen=True)
class Denied:
    """The cluster refuses this name with this error code. The name is empty where the response did not give it."""

    kind: DeniedKind
    name: str
    error: int


Hear: TypeAlias = Callable[[Denied], None]
"""Is told of each name that is refused, each time; must not raise."""


def look(data: Buffer, start: int, end: int, api_key: int, version: int, hear: Hear, key: str = "") -> None:
    """Tell of what is refused in the response in `data[start:end]`, correlation id first; `key` was asked for.

    Never raises for what stands there: what cannot be read is not told.
    """
    table = TABLES[api_key]
    place = Place(table.name, api_key, version)
    end = min(end, start + MAX_LOOK)
    sight = _Look(Reader(data, start, end, flexible=version >= table.flexible, place=place), hear, key)
    try:
        sight.header()
        sight.do(_plan(api_key, version))
    except UpstreamProtocolError:
        pass  # the rest of it is the client's to judge


@cache  # bounded by the tables: two dozen
def _plan(api_key: int, version: int) -> Steps:
    """The steps from the first byte behind the header to the last denial."""
    table = TABLES[api_key]
    return steps_of((*table.fields, *table.beyond), version, _LOOK, flexible=version >= table.flexible)


class _Look(Walk):
    """Tells of what is refused."""

    __slots__ = ("_hear", "_key", "_told")

    def __init__(self, reader: Reader, hear: Hear, key: str) -> None:
        super().__init__(reader)
        self._hear = hear
        self._key = key
        self._told = 0

    def endpoint(self, _none: int) -> None:
        """Pass an address."""
        reader = self._reader
        reader.skip(4)
        reader.skip_string()
        reader.skip(4)

    def topic(self, _none: int) -> None:
        """See whether this topic is refused."""
        error = self._reader.int16()
        if error in _OF_TOPICS:
            self._tell("topic", self._reader.text(), error)
        else:
            self._reader.skip_string()

    def key(self, _none: int) -> None:
        """Note what was asked for: the error follows."""
        self._key = self._reader.text()

    def error(self, _none: int) -> None:
        """See whether the key is refused."""
        error = self._reader.int16()
        if error in _OF_KEYS:
            self._tell(_OF_KEYS[error], self._key, error)

    def _tell(self, kind: DeniedKind, name: str, error: int) -> None:
        if self._told < MAX_DENIED:
            self._told += 1
            self._hear(Denied(kind, name[:MAX_NAME], error))


_LOOK: Final[Mapping[Kind, Action]] = {
    Kind.ENDPOINT: _Look.endpoint,
    Kind.ERROR: _Look.error,
    Kind.KEY: _Look.key,
    Kind.TOPIC: _Look.topic,
}


def key_asked_for(buffer: Buffer, at: int, size: int, version: int) -> str | None:
    """The group or transactional id that a FindCoordinator request asks for; None where more of it is needed.

    `buffer[at:]` is the request behind its size, as far as it is there: header version 1 or 2, whose client id keeps
    the old layout for ever, then the key. Empty where the response will name it, or where it cannot be read.
    """
    if version >= _KEY_IN_RESPONSE or size > MAX_KEY_REQUEST:
        return ""
    if len(buffer) - at < size:
        return None
    place = Place(NAMES[FIND_COORDINATOR], FIND_COORDINATOR, version)
    reader = Reader(buffer, at, at + size, flexible=False, place=place)
    try:
        reader.skip(_REQUEST_CLIENT_ID)
        reader.skip_string()
        reader.flexible = version >= _REQUEST_FLEXIBLE
        reader.skip_tags()
        return reader.text()[:MAX_NAME]
    except UpstreamProtocolError:
        return ""
