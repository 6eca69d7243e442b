"""A question of our own: which brokers a cluster has, and what they speak.

Both questions are put in versions that every broker takes from Kafka 0.10 on (4.x still has them, KIP-896): ApiVersions
0, and Metadata 1, the first in which an empty array of topics asks for none of them. Requests have header version 1,
responses header version 0, which is the correlation id alone.

One question at a time on a connection of our own: send a request, give what comes back to an `AnswerReader`, and read
the frame that it returns. That the stream ends before is the owner's to see.
"""

from __future__ import annotations

import struct
from typing import Final

from mtlskit.errors import Code, UpstreamProtocolError
from mtlskit.wire.kafka.frames import RESPONSES, Fate, FrameReader
from mtlskit.wire.kafka.inflight import InFlight, Waiting
from mtlskit.wire.kafka.primitives import Buffer, Place, Reader, array_length, string
from mtlskit.wire.kafka.tables import API_VERSIONS, METADATA, NAMES

__all__ = [
    "CLIENT_ID",
    "MAX_ANSWER",
    "AnswerReader",
    "api_versions_of",
    "api_versions_request",
    "behind_header",
    "brokers_of",
    "metadata_request",
    "request",
]

CLIENT_ID: Final = "mtlskit"
"""By which brokers' logs and quotas know us."""

MAX_ANSWER: Final = 1024 * 1024
"""Bytes of an answer: a thousand brokers whose names have a kilobyte each, and no topics."""

_API_VERSIONS_VERSION: Final = 0
_METADATA_VERSION: Final = 1

_SIZE: Final = struct.Struct("!i")
_REQUEST: Final = struct.Struct("!hhi")  # api key, version, correlation id
_CORRELATION_ID: Final = 4


def api_versions_request(correlation_id: int, client_id: str = CLIENT_ID) -> bytes:
    """Asks what the broker speaks, as a frame. `client_id` has at most 32,767 bytes, or ValueError is raised."""
    return request(API_VERSIONS, _API_VERSIONS_VERSION, correlation_id, client_id=client_id)


def metadata_request(correlation_id: int, client_id: str = CLIENT_ID) -> bytes:
    """Asks for the brokers and for no topics, as a frame; `client_id` as above."""
    none = array_length(0, flexible=False)
    return request(METADATA, _METADATA_VERSION, correlation_id, none, client_id=client_id)


def request(api_key: int, version: int, correlation_id: int, body: bytes = b"", *, client_id: str = CLIENT_ID) -> bytes:
    """A request with a header of version 1, as a frame."""
    content = _REQUEST.pack(api_key, version, correlation_id) + string(client_id, flexible=False) + body
    return _SIZE.pack(len(content)) + content


class AnswerReader:
    """Takes the server's bytes, in any pieces, until the answer to one request is there."""

    __slots__ = ("_answer", "_flight", "_frames")

    def __init__(self, correlation_id: int, *, max_size: int = MAX_ANSWER) -> None:
        self._flight = InFlight()
        self._flight.add(Waiting(correlation_id, -1, -1))
        self._frames = FrameReader(RESPONSES, self._consider, rewrite=self._take, max_held=max_size)
        self._answer: bytes | None = None

    def receive(self, data: Buffer) -> bytes | None:
        """The answer's frame behind its size, correlation id first, once it is whole; None before and after.

        Raises UpstreamProtocolError for what is no answer to this request, or has more than `max_size` bytes, or has
        something behind it.
        """
        self._frames.receive(data)
        answer, self._answer = self._answer, None
        return answer

    def _consider(self, buffer: Buffer, at: int, _size: int) -> Fate:
        self._flight.answered(int.from_bytes(buffer[at : at + _CORRELATION_ID], signed=True))
        return Fate.HOLD

    def _take(self, frame: memoryview) -> list[Buffer]:
        self._answer = bytes(frame)
        return []


def brokers_of(answer: Buffer) -> tuple[tuple[int, str, int], ...]:
    """Node id, host and port of each broker, from the answer to `metadata_request`, correlation id first.

    Whoever has no host or a negative node id cannot be gone to, and is left out. Raises UpstreamProtocolError for an
    answer that cannot be read.
    """
    reader = behind_header(answer, METADATA, _METADATA_VERSION)
    found: list[tuple[int, str, int]] = []
    for _ in range(reader.count()):
        node_id, host, port = reader.int32(), reader.text(), reader.int32()
        reader.skip_string()  # the rack
        if host and node_id >= 0:
            found.append((node_id, host, port))
    return tuple(found)


def api_versions_of(answer: Buffer) -> dict[int, tuple[int, int]]:
    """The oldest and the newest version of each api key, from the answer to `api_versions_request`.

    Raises UpstreamProtocolError for an answer that cannot be read, or that is an error.
    """
    reader = behind_header(answer, API_VERSIONS, _API_VERSIONS_VERSION)
    if error := reader.int16():
        raise UpstreamProtocolError(
            Code.KAFKA_SERVER_RUBBISH,
            f"the broker answers ApiVersions (api key 18, version 0) with error {error}",
            "every broker since Kafka 0.10 answers this question: check the upstream's host and port",
        )
    return {reader.int16(): (reader.int16(), reader.int16()) for _ in range(reader.count())}


def behind_header(answer: Buffer, api_key: int, version: int) -> Reader:
    """Reads the body of a response that has a header of version 0 and the old layout."""
    reader = Reader(answer, 0, len(answer), flexible=False, place=Place(NAMES[api_key], api_key, version))
    reader.skip(_CORRELATION_ID)
    return reader
