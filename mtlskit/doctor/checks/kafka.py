"""Inside a Kafka cluster: its brokers, each by its own address, its topics, and a record there and back.

All endpoints of the tunnel are asked; what follows goes by the first that names the cluster. Nobody logs in: where the
brokers want a login (SASL), clients do that through the tunnel, and there is nothing more to see here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped, warned
from mtlskit.doctor.kafka.entrance import Entrance, enter, with_topics
from mtlskit.doctor.kafka.listeners import plan_listeners
from mtlskit.doctor.kafka.members import MOST_VISITED, Visited, told_id, visit_all
from mtlskit.doctor.kafka.session import Door
from mtlskit.doctor.kafka.topics import told_names, topic_findings
from mtlskit.doctor.kafka.writing import write_and_read
from mtlskit.errors import Code, UpstreamUnreachable
from mtlskit.telemetry.logs import printable
from mtlskit.wire.kafka.cluster import Cluster, release_of
from mtlskit.wire.kafka.tables import FETCH, METADATA, PRODUCE

__all__ = ["look_inside_kafka"]

_LOGIN: Final = "the brokers want a login (SASL)"


async def look_inside_kafka(
    case: Case, endpoints: tuple[Endpoint, ...], identified: Identified, prefix: str
) -> tuple[Finding, ...]:
    """Layer KAFKA. `endpoints` are those that took our certificate; `prefix` is the add-on's, if it has one."""
    if identified.snapshot is None:
        return (skipped(Layer.KAFKA, "kafka.cluster", "identity"),)
    door = Door(case, identified.snapshot)
    entrances, first = await _find_topics(door, await _enter_all(door, endpoints), prefix)
    # They are tried in turn, and one that shakes hands is taken: what stands behind a sound one is seldom come to.
    late = entrances[entrances.index(first) :] if first is not None else ()
    findings = [_entrance_finding(entrance, harmful=entrance not in late) for entrance in entrances]
    if first is None or first.cluster is None:
        return (*findings, *_nothing_more(case, entrances))
    cluster = first.cluster
    findings += [*_cluster_findings(entrances, cluster), *plan_listeners(case, cluster)]
    visits, written = await _look_around(door, first, cluster, endpoints, prefix)
    findings += [each.finding for each in visits]
    if (rest := len(cluster.members) - len(visits)) > 0:
        because = (
            f"{MOST_VISITED} at most are gone to" if len(visits) == MOST_VISITED else "the others took all the time"
        )
        findings.append(skipped(Layer.KAFKA, "kafka.broker", because, about=f"{rest} more brokers"))
    findings += [*topic_findings(first.topics, prefix), _groups_finding(visits, prefix), *written]
    return tuple(findings)


async def _enter_all(door: Door, endpoints: Sequence[Endpoint]) -> tuple[Entrance, ...]:
    found: dict[int, Entrance] = {}

    async def one(place: int, endpoint: Endpoint) -> None:
        found[place] = await enter(door, endpoint)

    async with trio.open_nursery() as nursery:
        for place, endpoint in enumerate(endpoints):
            nursery.start_soon(one, place, endpoint)
    return tuple(found[place] for place in range(len(endpoints)))


async def _find_topics(
    door: Door, entrances: Sequence[Entrance], prefix: str
) -> tuple[list[Entrance], Entrance | None]:
    """The entrances, and the first that knows its cluster and, if they can be read, the topics; one is enough."""
    found = list(entrances)
    for place, entrance in enumerate(found):
        if entrance.cluster is not None:
            found[place] = await with_topics(door, entrance, prefix)
            if found[place].cluster is not None:
                return found, found[place]
    return found, None


async def _look_around(
    door: Door, first: Entrance, cluster: Cluster, endpoints: Sequence[Endpoint], prefix: str
) -> tuple[tuple[Visited, ...], tuple[Finding, ...]]:
    """The brokers and the record, side by side: each takes its time where something is silent."""
    visits: list[Visited] = []
    written: list[Finding] = []

    async def visit() -> None:
        visits.extend(await visit_all(door, cluster, endpoints, prefix))

    async def write() -> None:
        if door.case.means.write_test is not None:
            written.append(await write_and_read(door, first.endpoint, door.case.means.write_test, prefix))

    tasks: tuple[Callable[[], Awaitable[None]], ...] = (visit, write)
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task)
    return tuple(visits), tuple(written)


def _entrance_finding(entrance: Entrance, *, harmful: bool) -> Finding:
    about, versions = str(entrance.endpoint), entrance.versions
    if entrance.error is not None:
        return (failed if harmful else warned)(Layer.KAFKA, "kafka.versions", entrance.error, about=about)
    newest = {name: versions[key][1] for name, key in _SHOWN.items() if key in versions}
    told = ", ".join(f"{name} up to {version}" for name, version in newest.items())
    return passed(
        Layer.KAFKA,
        "kafka.versions",
        f"{about} speaks like Kafka {release_of(versions)} ({len(versions)} kinds of requests; {told}) and answered in"
        f" {entrance.seconds * 1000:.1f} ms",
        about=about,
        seconds=entrance.seconds,
        release=release_of(versions),
        newest=newest,
    )


_SHOWN: Final = {"Produce": PRODUCE, "Fetch": FETCH, "Metadata": METADATA}


def _nothing_more(case: Case, entrances: Sequence[Entrance]) -> tuple[Finding, ...]:
    """No endpoint has named its cluster."""
    login = next((entrance for entrance in entrances if entrance.mechanisms), None)
    because = "kafka.versions" if login is None else _LOGIN
    seen = ""
    if login is not None:
        mechanisms = ", ".join(printable(name[:64]) for name in login.mechanisms[:8])
        seen = f"not looked at: clients log in through the tunnel, with {mechanisms}"
    found = [skipped(Layer.KAFKA, "kafka.cluster", because, seen=seen)]
    if case.means.write_test is not None:
        found.append(skipped(Layer.KAFKA, "kafka.write-test", because))
    return tuple(found)


def _cluster_findings(entrances: Sequence[Entrance], cluster: Cluster) -> list[Finding]:
    check = "kafka.cluster"
    ids: dict[str, list[str]] = {}
    for entrance in entrances:
        if entrance.cluster is not None:
            ids.setdefault(entrance.cluster.cluster_id, []).append(str(entrance.endpoint))
    if len(ids) > 1:
        told = "; ".join(f"{told_id(id_)} at {', '.join(at)}" for id_, at in ids.items())
        error = UpstreamUnreachable(
            Code.KAFKA_OTHER_CLUSTER,
            f"the tunnel's endpoints lead to {len(ids)} clusters: {told}",
            "leave brokers of one cluster in `upstream`; give each cluster a tunnel of its own",
        )
        return [failed(Layer.KAFKA, check, error, clusters=[told_id(id_) for id_ in ids])]
    facts: dict[str, Any] = {
        "cluster": told_id(cluster.cluster_id),
        "brokers": len(cluster.members),
        "controller": cluster.controller,
    }
    if not cluster.members:
        error = UpstreamUnreachable(
            Code.KAFKA_BROKER_UNREACHABLE,
            f"the cluster {told_id(cluster.cluster_id)} names no broker that clients could go to",
            "look at listeners and advertised.listeners of the brokers, and whether they have registered",
        )
        return [failed(Layer.KAFKA, check, error, **facts)]
    if cluster.controller < 0:
        error = UpstreamUnreachable(
            Code.KAFKA_NO_LEADER,
            f"the cluster {told_id(cluster.cluster_id)} has no controller now",
            "look at the controllers' logs: until there is one, no leader is elected and no topic made",
        )
        return [warned(Layer.KAFKA, check, error, **facts)]
    count = len(cluster.members)
    seen = f"cluster {told_id(cluster.cluster_id)} with {count} broker{'' if count == 1 else 's'}"
    return [passed(Layer.KAFKA, check, f"{seen}; broker {cluster.controller} speaks for the controller", **facts)]


def _groups_finding(visits: Sequence[Visited], prefix: str) -> Finding:
    check = "kafka.groups"
    asked = [each.groups for each in visits if each.groups is not None and not each.groups.error]
    if not asked:
        refused = any(each.groups is not None for each in visits)
        return skipped(Layer.KAFKA, check, "no right to list groups" if refused else "no broker has listed its groups")
    names = sorted({name for each in asked for name in each.names})
    begun = sum(each.begun for each in asked) if prefix else None
    count = sum(each.count for each in asked)  # a group has one coordinator
    seen = f"{count} group{'' if count == 1 else 's'} visible to this identity" if count else "no group is visible yet"
    of = "" if len(asked) == len(visits) else f" (of {len(asked)} of {len(visits)} brokers)"
    return passed(Layer.KAFKA, check, seen + of, count=count, names=told_names(names), with_prefix=begun)
