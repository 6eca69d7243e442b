"""Brokers that say what a test wants them to say, and a client that asks byte by byte.

Metadata in version 1 is all that they know; to anything else they answer with their node id, so that a test sees who
has answered. Real brokers are in tests/services.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from mtlskit.wire.kafka.asking import AnswerReader, brokers_of, metadata_request
from tests.support.fake_upstream import FakeUpstream, Papers, Script, ServerSide, fake_upstream
from tests.support.tunnels import RawClient

METADATA = 3
WHO = 42
"""An api key that nothing looks into (DeleteGroups, api 42, version 0)."""

Named = tuple[int, str, int]


@dataclass
class FakeCluster:
    """What every broker of it says of the cluster."""

    brokers: list[Named] = field(default_factory=list)
    asked: int = 0
    """How often Metadata was asked for."""

    def metadata(self) -> bytes:
        """The body of a Metadata response in version 1: brokers, controller id, no topics."""
        brokers = b"".join(
            struct.pack("!i", node_id) + text(host) + struct.pack("!ih", port, -1)
            for node_id, host, port in self.brokers
        )
        return struct.pack("!i", len(self.brokers)) + brokers + struct.pack("!ii", 0, 0)

    def answering(self, node_id: int) -> Script:
        """The script of one broker."""

        async def script(server: ServerSide) -> None:
            await server.shake_hands()
            while True:
                size = int.from_bytes(await server.read_exactly(4), "big")
                request = await server.read_exactly(size)
                key, _, correlation_id = struct.unpack_from("!hhi", request)
                if key == METADATA:
                    self.asked += 1
                body = self.metadata() if key == METADATA else struct.pack("!i", node_id)
                await server.send(framed(struct.pack("!i", correlation_id) + body))

        return script


def framed(content: bytes) -> bytes:
    """With its size in front."""
    return struct.pack("!i", len(content)) + content


def text(value: str) -> bytes:
    """A string in the old encoding."""
    encoded = value.encode()
    return struct.pack("!h", len(encoded)) + encoded


@asynccontextmanager
async def fake_broker(papers: Papers, cluster: FakeCluster, node_id: int) -> AsyncIterator[FakeUpstream]:
    """A broker of `cluster` that listens until the block ends. It names itself only if the test adds it."""
    async with fake_upstream(papers, cluster.answering(node_id)) as upstream:
        yield upstream


async def ask_metadata(client: RawClient) -> list[Named]:
    """The brokers, as this client is told."""
    await client.send(metadata_request(7))
    answer = AnswerReader(7).receive(await read_frame(client))
    assert answer is not None
    return list(brokers_of(answer))


async def who_is_there(client: RawClient) -> int:
    """The node id of the broker behind a listener."""
    await client.send(framed(struct.pack("!hhi", WHO, 0, 9) + text("test")))
    answer = await read_frame(client)
    assert struct.unpack_from("!i", answer, 4) == (9,)
    return int.from_bytes(answer[8:], "big")


async def read_frame(client: RawClient) -> bytes:
    """A whole frame, its size included."""
    head = await client.read_exactly(4)
    return head + await client.read_exactly(int.from_bytes(head, "big"))
