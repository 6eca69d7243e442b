"""What clients are told beyond librdkafka's own settings (its CONFIGURATION.md), and why."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.kafka.size import MIB

__all__ = ["BROKER", "JVM", "consuming", "huge_fetches", "paced", "producing", "tailing"]

_LARGEST = 2 * MIB
"""Of a message: a record of 1 MiB with what is around it. Kafka's own limit is a little too small for it."""
_HUGE = 50 * MIB

BROKER = {
    "message.max.bytes": str(_LARGEST),
    "log.segment.delete.delay.ms": "1000",  # what was produced does not get old enough for the disk
    "num.network.threads": "4",  # TLS is done by them: one for each client
}
JVM = ("-XX:TieredStopAtLevel=4", "-Xms1g", "-Xmx1g")


def producing() -> Mapping[str, str | int]:
    """Throughput: batches of up to 1 MB, filled for up to 5 ms (both librdkafka's own).

    acks=1: with one replica there is no other to wait for. All that a client sends fits into its queue, so that it
    never waits there.
    """
    room = {"queue.buffering.max.messages": 5_000_000, "queue.buffering.max.kbytes": 2_000_000}
    return {**room, "acks": "1", "linger.ms": 5, "batch.size": 1_000_000, "message.max.bytes": _LARGEST}


def consuming(record: int) -> Mapping[str, str | int]:
    """Throughput: up to 1 MiB of each partition in a Fetch (librdkafka's own), or four records where they are large.

    A Fetch is answered at once where nothing is there, so that the one that is under way for the first, small topic
    does not hold up the first that is measured.
    """
    return {
        **_ungrouped(),
        "fetch.message.max.bytes": max(MIB, 4 * record),
        "fetch.wait.max.ms": 10,
    }


def huge_fetches() -> Mapping[str, str | int]:
    """Responses of 50 MiB, of one partition, and room in the client for several."""
    return {
        **_ungrouped(),
        "fetch.max.bytes": _HUGE,
        "fetch.message.max.bytes": _HUGE,
        "receive.message.max.bytes": _HUGE + 4 * MIB,
        "queued.max.messages.kbytes": 4 * _HUGE // 1024,
        "fetch.wait.max.ms": 10,
    }


def paced() -> Mapping[str, str | int]:
    """Latency: every record goes at once, alone, and all replicas must have it."""
    return {"acks": "all", "linger.ms": 0, "message.max.bytes": _LARGEST}


def tailing() -> Mapping[str, str | int]:
    """Latency: the broker answers a waiting Fetch as soon as there is a record."""
    return {**_ungrouped(), "fetch.message.max.bytes": 4 * MIB}


def _ungrouped() -> Mapping[str, str | int]:
    """A group's name is wanted even where none is joined."""
    return {"group.id": "bench", "enable.auto.commit": "false"}
