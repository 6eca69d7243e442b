"""ApiVersions: what a broker offers, without what could carry an address that we would not see.

The response has three peculiarities (KIP-511). Its *header* is always of version 0, though its body is flexible from
version 3: who asks does not know yet what the broker speaks. A broker that does not know the request's version answers
in the layout of version 0 with error 35 and, from Kafka 2.4, the versions of ApiVersions itself, so that the client
tries again lower. And keys that a client does not know are legal: they pass, whatever they are.

One kind of broker, librdkafka's mock cluster, says error 35 in the layout of the version that it does not know, which
no client can read. It gets replaced by what it means: version 0 will do.
"""

from __future__ import annotations

import struct
from typing import Final

from mtlskit.errors import UpstreamProtocolError
from mtlskit.wire.kafka.primitives import Buffer, Place, Reader, array_length
from mtlskit.wire.kafka.tables import API_VERSIONS, NEWEST, WITHHELD

__all__ = ["UNSUPPORTED_VERSION", "capped", "unsupported"]

UNSUPPORTED_VERSION: Final = 35
_FLEXIBLE: Final = 3

_OFFER: Final = struct.Struct("!hhh")  # api key, oldest and newest version
_UNSUPPORTED: Final = struct.Struct("!ihihhh")


def unsupported(correlation_id: int, newest: int) -> bytes:
    """An ApiVersions response, without its size, to a version that is not known: version 0, with 18: 0 to `newest`."""
    return _UNSUPPORTED.pack(correlation_id, UNSUPPORTED_VERSION, 1, API_VERSIONS, 0, newest)


def capped(data: Buffer, start: int, end: int, version: int) -> list[Buffer]:
    """The ApiVersions response in `data[start:end]`, correlation id first, capped at `NEWEST` and without `WITHHELD`.

    In pieces, as `walker.rewrite` gives them. Raises UpstreamProtocolError for a response that cannot be read.
    """
    place = Place("ApiVersions", API_VERSIONS, version)
    reader = Reader(data, start, end, flexible=False, place=place)
    correlation_id = reader.int32()
    if reader.int16() != UNSUPPORTED_VERSION:
        reader.flexible = version >= _FLEXIBLE
        return _capped(reader)
    try:
        return _capped(reader)
    except UpstreamProtocolError:
        return [unsupported(correlation_id, 0), b""]


def _capped(reader: Reader) -> list[Buffer]:
    """The pieces of the response; the cursor is at its array."""
    data, array = reader.data, reader.pos
    offers: list[Buffer] = []
    count = reader.count()
    unchanged = True
    for _ in range(count):
        at = reader.pos
        reader.skip(_OFFER.size)
        reader.skip_tags()
        api_key, oldest, newest = _OFFER.unpack_from(data, at)
        ours = min(newest, NEWEST.get(api_key, newest))
        if api_key in WITHHELD or oldest > ours:
            unchanged = False
        elif ours == newest:
            offers.append(data[at : reader.pos])
        else:
            unchanged = False
            offers += (_OFFER.pack(api_key, oldest, ours), data[at + _OFFER.size : reader.pos])
    if unchanged:
        return []
    kept = sum(len(offer) >= _OFFER.size for offer in offers)
    length = array_length(kept, flexible=reader.flexible)
    return [data[reader.start : array], length, *offers, data[reader.pos : reader.end]]
