"""What an endpoint of the tunnel says of itself and of its cluster: every client begins there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.kafka.session import Door, Talk, Versions, read_aside
from mtlskit.doctor.kafka.topics import Topics, summed
from mtlskit.errors import Code, UpstreamError, UpstreamProtocolError
from mtlskit.wire.kafka.cluster import MAX_CLUSTER, Cluster, cluster_of, cluster_request
from mtlskit.wire.kafka.tables import METADATA

__all__ = ["Entrance", "enter", "with_topics"]

_ELECTION: Final = 1.0
"""Seconds after which it is asked again where something has no leader: elections take less, as a rule."""


@dataclass(frozen=True)
class Entrance:
    """One endpoint. Either there is a `cluster`, or an `error`, or it wants a login."""

    endpoint: Endpoint
    versions: Versions = field(default_factory=dict)
    seconds: float = 0.0
    """For the first question and its answer."""
    cluster: Cluster | None = None
    """Without its topics."""
    topics: Topics | None = None
    """None: they were not asked for, or there are too many of them."""
    mechanisms: tuple[str, ...] = ()
    """Of SASL, where it wants a login first."""
    error: UpstreamError | None = None


async def enter(door: Door, endpoint: Endpoint) -> Entrance:
    """Ask one endpoint who is in its cluster. Never raises for what is found there."""
    versions: Versions = {}
    seconds = 0.0
    try:
        async with door.open(endpoint) as talk:
            versions, seconds = await talk.versions()
            _check_broker(endpoint, versions)
            answer = await talk.ask("Metadata", lambda id_: cluster_request(id_, topics=False))
            cluster = replace(await read_aside(cluster_of, answer), topics=())
    except UpstreamError as exc:
        if METADATA not in versions:
            return Entrance(endpoint, versions, seconds, error=exc)
        mechanisms = await door.mechanisms_after(exc, endpoint)
        return Entrance(endpoint, versions, seconds, mechanisms=mechanisms, error=None if mechanisms else exc)
    return Entrance(endpoint, versions, seconds, cluster)


def _check_broker(endpoint: Endpoint, versions: Versions) -> None:
    """A controller of KRaft answers ApiVersions as a broker does, and closes the connection at Metadata."""
    if METADATA not in versions:
        raise UpstreamProtocolError(
            Code.KAFKA_CONTROLLERS,
            f"{endpoint} does not answer Metadata requests: it is a listener for controllers, not for clients",
            "let the tunnel's upstream name brokers: clients of controllers are not served",
        )


async def with_topics(door: Door, entrance: Entrance, prefix: str) -> Entrance:
    """Ask an endpoint that knows its cluster for the topics too, which may be much: one endpoint at a time.

    Never raises for what is found there.
    """
    try:
        async with door.open(entrance.endpoint) as talk:
            cluster, topics = await _topics(talk, prefix)
            if cluster.controller < 0 or topics.leaderless:
                await trio.sleep(_ELECTION)
                cluster, topics = await _topics(talk, prefix)
    except UpstreamError as exc:
        if exc.code is Code.KAFKA_RESPONSE_TOO_LARGE:
            return entrance
        return replace(entrance, cluster=None, error=exc)
    return replace(entrance, cluster=cluster, topics=topics)


async def _topics(talk: Talk, prefix: str) -> tuple[Cluster, Topics]:
    def read(answer: bytes) -> tuple[Cluster, Topics]:
        cluster = cluster_of(answer)
        return replace(cluster, topics=()), summed(cluster.topics, prefix)

    return await read_aside(read, await talk.ask("Metadata", cluster_request, max_size=MAX_CLUSTER))
