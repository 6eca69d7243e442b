"""What an endpoint of the tunnel says of itself and of its cluster: every client begins there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.kafka.session import Door, Talk, Versions
from mtlskit.errors import Code, UpstreamError, UpstreamProtocolError
from mtlskit.wire.kafka.cluster import MAX_CLUSTER, Cluster, cluster_of, cluster_request
from mtlskit.wire.kafka.tables import METADATA

__all__ = ["Entrance", "enter"]

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
    whole: bool = True
    """The topics were seen; else there are too many of them."""
    mechanisms: tuple[str, ...] = ()
    """Of SASL, where it wants a login first."""
    error: UpstreamError | None = None


async def enter(door: Door, endpoint: Endpoint) -> Entrance:
    """Ask one endpoint. Never raises for what is found there."""
    versions: Versions = {}
    seconds = 0.0
    try:
        async with door.open(endpoint) as talk:
            versions, seconds = await talk.versions()
            _check_broker(endpoint, versions)
            cluster = await _cluster(talk)
    except UpstreamError as exc:
        if METADATA not in versions:
            return Entrance(endpoint, versions, seconds, error=exc)
        if exc.code is Code.KAFKA_RESPONSE_TOO_LARGE:
            return await _without_topics(door, endpoint, versions, seconds)
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


async def _cluster(talk: Talk) -> Cluster:
    cluster = cluster_of(await talk.ask("Metadata", cluster_request, max_size=MAX_CLUSTER))
    if cluster.controller >= 0 and not any(topic.leaderless for topic in cluster.topics):
        return cluster
    await trio.sleep(_ELECTION)
    return cluster_of(await talk.ask("Metadata", cluster_request, max_size=MAX_CLUSTER))


async def _without_topics(door: Door, endpoint: Endpoint, versions: Versions, seconds: float) -> Entrance:
    """A cluster may be larger than what we read of it."""
    try:
        async with door.open(endpoint) as talk:
            answer = await talk.ask("Metadata", lambda id_: cluster_request(id_, topics=False))
            return Entrance(endpoint, versions, seconds, cluster_of(answer), whole=False)
    except UpstreamError as exc:
        return Entrance(endpoint, versions, seconds, error=exc)
