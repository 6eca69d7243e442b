"""The topics and partitions of a cluster: what is kept of them, and what is said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import islice
from typing import Any, Final

from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped
from mtlskit.errors import Code, UpstreamRefusedUs
from mtlskit.telemetry.logs import printable
from mtlskit.wire.kafka.cluster import LONGEST_NAME, MOST_PARTITIONS, Topic

__all__ = ["NAMES_TOLD", "Topics", "summed", "told_names", "topic_findings"]

NAMES_TOLD: Final = 50
"""Of topics and groups, in the facts."""
_NAMES_SHOWN: Final = 3
"""Of topics, in a sentence."""


@dataclass(frozen=True)
class Topics:
    """Counted; few names are kept."""

    count: int
    """Those that are visible and no internals of Kafka's."""
    names: tuple[str, ...]
    """Of these the first in alphabetical order."""
    begun: int
    """Of these, how many begin with the prefix."""
    partitions: int
    leaderless: int
    """Partitions that have no leader now."""
    leaderless_names: tuple[str, ...]
    """The first of these, TOPIC-NUMBER."""
    under_replicated: int


def summed(topics: Sequence[Topic], prefix: str) -> Topics:
    """Takes a tenth of a second for as many as are read at most."""
    visible = [topic.name for topic in topics if not topic.internal and not topic.error]
    leaderless = [topic for topic in topics if topic.leaderless]
    return Topics(
        len(visible),
        tuple(name[:LONGEST_NAME] for name in nsmallest(NAMES_TOLD, visible)),
        sum(name.startswith(prefix) for name in visible),
        sum(topic.partitions for topic in topics),
        sum(len(topic.leaderless) for topic in leaderless),
        tuple(
            f"{printable(topic.name[:LONGEST_NAME])}-{number}"
            for topic in leaderless[:_NAMES_SHOWN]
            for number in islice(topic.leaderless, _NAMES_SHOWN)
        ),
        sum(topic.under_replicated for topic in topics),
    )


def topic_findings(topics: Topics | None, prefix: str) -> list[Finding]:
    """`topics` is None where there are more than are read."""
    if topics is None:
        because = f"the list of topics is above {MOST_PARTITIONS:,} partitions or 16 MiB"
        return [skipped(Layer.KAFKA, "kafka.topics", because)]
    return [_visible(topics, prefix), *_partitions(topics)]


def told_names(names: Sequence[str]) -> list[str]:
    """For sentences and facts."""
    return [printable(name[:LONGEST_NAME]) for name in names[:NAMES_TOLD]]


def _visible(topics: Topics, prefix: str) -> Finding:
    count, names, begun = topics.count, told_names(topics.names), topics.begun if prefix else None
    facts: dict[str, Any] = {"count": count, "names": names, "prefix": prefix or None, "with_prefix": begun}
    if not count:
        return passed(Layer.KAFKA, "kafka.topics", "no topic is visible to this identity yet", **facts)
    with_prefix = f", {begun} of them with the prefix {printable(prefix)}" if prefix else ""
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", …" if count > _NAMES_SHOWN else "")
    return passed(
        Layer.KAFKA,
        "kafka.topics",
        f"{count} topic{'' if count == 1 else 's'} visible to this identity{with_prefix}: {shown}",
        **facts,
    )


def _partitions(topics: Topics) -> list[Finding]:
    check, count, leaderless, behind = "kafka.partitions", topics.partitions, topics.leaderless, topics.under_replicated
    if not count:
        return []
    facts: dict[str, Any] = {"count": count, "leaderless": leaderless, "under_replicated": behind}
    if leaderless:
        rest = leaderless - len(topics.leaderless_names)
        told = ", ".join(topics.leaderless_names) + (f", and {rest} more" if rest else "")
        error = UpstreamRefusedUs(
            Code.KAFKA_NO_LEADER,
            f"{leaderless} of {count} partitions have no leader: {told}",
            "bring back the brokers that hold their replicas: until then nobody can write to them or read them",
        )
        return [failed(Layer.KAFKA, check, error, **facts)]
    more = f", {behind} of them with fewer replicas in sync than they should have" if behind else ""
    return [passed(Layer.KAFKA, check, f"all {count} partitions have a leader{more}", **facts)]
