"""What a Kafka client asks first, and what the mock cluster cannot answer.

A client begins with ApiVersions, alone, and waits for the answer. librdkafka's mock cluster knows versions 0 to 2 of
it, and what it says to a later one is in the layout of neither. A broker says (KIP-511): error 35, in the layout of
version 0, with the versions of ApiVersions that it knows; and the client asks again. So the gateway says that, until
the client sends anything else. From then on every byte passes.
"""

from __future__ import annotations

import struct
from typing import Final

from mtlskit.wire.kafka.capping import unsupported
from mtlskit.wire.kafka.tables import API_VERSIONS

__all__ = ["Opening"]

_HEAD: Final = struct.Struct("!ihhi")
"""The size of what follows it, API key, version, correlation id."""
_SIZE: Final = struct.Struct("!i")
_NEWEST: Final = 2
_MOST: Final = 4_096
"""Bytes of such a request: it names the client's software, and nothing else. A larger one is not ours to answer."""


class Opening:
    """Reads a client from its first byte on. When it is `finished`, `rest` goes to the broker, and all that follows."""

    def __init__(self) -> None:
        self.rest = b""
        """What has come, and was not answered."""
        self.finished = False

    def receive(self, data: bytes) -> bytes:
        """What to answer at once to bytes that have come."""
        self.rest += data
        answers = b""
        while not self.finished and len(self.rest) >= _HEAD.size:
            size, api_key, version, correlation_id = _HEAD.unpack_from(self.rest)
            if api_key != API_VERSIONS or version <= _NEWEST or not _HEAD.size - _SIZE.size <= size <= _MOST:
                self.finished = True
            elif len(self.rest) < _SIZE.size + size:
                break
            else:
                self.rest = self.rest[_SIZE.size + size :]
                answer = unsupported(correlation_id, _NEWEST)
                answers += _SIZE.pack(len(answer)) + answer
        return answers
