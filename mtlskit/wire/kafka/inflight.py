"""The requests that wait for a response, oldest first. A broker answers one connection's requests in their order.

(Protocol guide, "Network": "The server guarantees that on a single TCP connection, requests will be processed in the
order they are sent and responses will return in that order as well".) So the oldest one says what the next response
is; its correlation id must be the same, or one of the three of us has lost the thread.

A Produce request with `acks` = 0 gets no response and does not wait here. librdkafka's mock cluster, seen with 2.16,
answers it all the same, which the Java client would take for a fault. So the last such requests are remembered, to know
a response to one of them when it comes.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from mtlskit.errors import ClientProtocolError, Code, UpstreamProtocolError

__all__ = ["ENOUGH_IN_FLIGHT", "MAX_IN_FLIGHT", "MAX_SILENT", "InFlight", "Waiting"]

ENOUGH_IN_FLIGHT: Final = 16_384
"""From here on the client should not be read until the broker has answered. librdkafka sets itself no limit, the Java
client one of five; a broker works on one at a time and stops reading the rest, so this is far more than helps."""

MAX_IN_FLIGHT: Final = 65_536
"""Where an owner that reads on regardless is stopped: what has been read when `ENOUGH_IN_FLIGHT` is reached, up to
512 KiB, can hold another 43,690 requests of the smallest size."""


MAX_SILENT: Final = 4096
"""Requests with `acks` = 0 that are remembered, and the older ones forgotten: about 150 KiB at most."""


class Waiting(NamedTuple):
    """A request whose response is to come; with `answer`, one that we answer ourselves when its turn comes.

    `key` is what a FindCoordinator request asks for, where that is wanted.
    """

    correlation_id: int
    api_key: int
    version: int
    answer: bytes = b""
    key: str = ""


class InFlight:
    """A bounded queue of `Waiting`, and what needs no response."""

    __slots__ = ("_queue", "_silent")

    def __init__(self) -> None:
        self._queue: deque[Waiting] = deque()
        self._silent: deque[int] = deque(maxlen=MAX_SILENT)

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, request: Waiting) -> None:
        """A request has been seen. Raises ClientProtocolError above `MAX_IN_FLIGHT`."""
        if len(self._queue) >= MAX_IN_FLIGHT:
            raise ClientProtocolError(
                Code.KAFKA_CLIENT_FLOODS,
                f"the client has sent {MAX_IN_FLIGHT} requests and the broker has answered none of them",
                "lower the client's max.in.flight.requests.per.connection, and see whether the broker is stuck",
            )
        self._queue.append(request)

    def add_silent(self, correlation_id: int) -> None:
        """A request has been seen that gets no response."""
        self._silent.append(correlation_id)

    def answered(self, correlation_id: int) -> Waiting | None:
        """The request that this response belongs to; None where it is one that should get none.

        Raises UpstreamProtocolError where it is neither, nor the oldest one.
        """
        queue, silent = self._queue, self._silent
        if queue and queue[0].correlation_id == correlation_id:
            return queue.popleft()
        if correlation_id in silent:
            while silent.popleft() != correlation_id:
                pass  # those before it have been left unanswered, as they should be
            return None
        if not queue:
            raise _out_of_turn(correlation_id, "no request waits for one")
        raise _out_of_turn(correlation_id, f"the oldest request has {queue[0].correlation_id}")

    def answers(self) -> bytes:
        """The answers of our own whose turn has come, as frames; often none. They are gone from the queue."""
        queue = self._queue
        if not queue or not queue[0].answer:
            return b""
        due = bytearray()
        while queue and (answer := queue[0].answer):
            due += len(answer).to_bytes(4) + answer
            queue.popleft()
        return bytes(due)


def _out_of_turn(correlation_id: int, what: str) -> UpstreamProtocolError:
    return UpstreamProtocolError(
        Code.KAFKA_SERVER_RUBBISH,
        f"the broker sent a response with correlation id {correlation_id}, and {what}",
        "the two sides no longer agree on what was asked: the client connects anew; if this comes again, report it",
    )
