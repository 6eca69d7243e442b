"""The brokers of a cluster, each reached by the address that the cluster names: clients go there, and we for them."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import trio

from mtlskit.config.reach import is_this_machine_only
from mtlskit.config.values import Endpoint, TcpAddress, VerifyMode
from mtlskit.doctor.case import Case
from mtlskit.doctor.finding import Finding, Layer, failed, passed, warned
from mtlskit.doctor.kafka.session import AT_ONCE, Door, Talk, read_aside
from mtlskit.errors import Code, UpstreamError, UpstreamUnreachable
from mtlskit.net.faults import no_answer
from mtlskit.telemetry.logs import printable
from mtlskit.wire.kafka.cluster import (
    WHOLE_METADATA,
    Cluster,
    Groups,
    Member,
    cluster_of,
    cluster_request,
    groups_of,
    groups_request,
    release_of,
)
from mtlskit.wire.kafka.tables import LIST_GROUPS, METADATA

__all__ = ["MOST_VISITED", "Visited", "address_of", "again", "told_host", "told_id", "visit_all"]

MOST_VISITED: Final = 100
"""Brokers that are gone to."""

_BEGUN_WITHIN: Final = 1.25
"""Of `Means.step`: no visit begins later, so that what all have found is there before the examination's deadline."""

_CHECK: Final = "kafka.broker"
_LONGEST_HOST: Final = 253
_HOST: Final = re.compile(rf"[A-Za-z0-9_:][A-Za-z0-9._:%-]{{0,{_LONGEST_HOST - 1}}}")
"""Names and addresses, and nothing that a shell would read in another way."""
_LONGEST_ID: Final = 64
_HIGHEST_PORT: Final = 65_535
_ADVERTISED: Final = "set advertised.listeners at the broker to the address at which this host reaches it"


@dataclass(frozen=True)
class Visited:
    """One broker. `groups` are those that it coordinates and shows to us; None where it could not be asked."""

    member: Member
    finding: Finding
    groups: Groups | None = None


async def visit_all(
    door: Door, cluster: Cluster, entrances: Sequence[Endpoint], prefix: str = ""
) -> tuple[Visited, ...]:
    """The brokers, `AT_ONCE` of them at a time, in the order of their node ids; as far as time goes.

    `entrances` are how we came to the cluster, `prefix` is what names of groups should begin with.
    """
    members = sorted(cluster.members, key=lambda member: member.node_id)[:MOST_VISITED]
    shared = {
        address: count for address, count in Counter((each.host, each.port) for each in members).items() if count > 1
    }
    found: dict[int, Visited] = {}
    left = iter(enumerate(members))
    latest = trio.current_time() + _BEGUN_WITHIN * door.step

    async def some() -> None:
        for place, member in left:
            sharing = shared.get((member.host, member.port), 1)
            found[place] = await _Visit(door, member, cluster.cluster_id, entrances, sharing, prefix).go()
            if trio.current_time() > latest:
                return

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(some)
    return tuple(found[place] for place in sorted(found))


def address_of(member: Member) -> Endpoint | None:
    """Where it can be dialled; None: that is no address."""
    named = _HOST.fullmatch(member.host) is not None
    return Endpoint(member.host, member.port) if named and 0 < member.port <= _HIGHEST_PORT else None


def told_host(member: Member) -> str:
    """Its address for a sentence, as far as a stranger's words go into one."""
    host = member.host[:_LONGEST_HOST]
    return f"{host}:{member.port}" if not host or _HOST.fullmatch(host) else f"{host!a}:{member.port}"


def told_id(cluster_id: str) -> str:
    """A cluster's id for a sentence; real ones have 22 characters."""
    return printable(cluster_id[:_LONGEST_ID]) or "no id"


class _Visit:
    """To one broker."""

    def __init__(
        self,
        door: Door,
        member: Member,
        cluster_id: str,
        entrances: Sequence[Endpoint],
        sharing: int,
        prefix: str = "",
    ) -> None:
        self._door = door
        self._member = member
        self._cluster_id = cluster_id
        self._entrances = entrances
        self._sharing = sharing
        self._prefix = prefix
        self._groups: Groups | None = None

    async def go(self) -> Visited:
        return Visited(self._member, await self._look(), self._groups)

    async def _look(self) -> Finding:
        endpoint = address_of(self._member)
        if endpoint is None:
            return self._odd("that is no address", f"set advertised.listeners at broker {self._member.node_id}")
        if self._sharing > 1:
            hint = "give each broker an address of its own in its advertised.listeners: a client that is sent to one"
            return self._odd(f"{self._sharing} brokers name that address", f"{hint} must not come to another")
        began = trio.current_time()
        try:
            facts = await self._ask(endpoint)
        except UpstreamError as exc:
            return self._failed(endpoint, exc)
        seconds = trio.current_time() - began
        if facts["cluster"] != told_id(self._cluster_id):
            return self._stranger(endpoint, facts)
        if _is_wildcard(endpoint.host):
            return self._by_chance(endpoint, facts)
        return passed(
            Layer.KAFKA,
            _CHECK,
            f"broker {self._member.node_id} answers at {endpoint} in {_ms(seconds)} ms (connection, TLS and answers;"
            f" round trip {_ms(facts['round_trip_seconds'])} ms)",
            about=self._about,
            seconds=seconds,
            **facts,
        )

    async def _ask(self, endpoint: Endpoint) -> dict[str, Any]:
        """Raises UpstreamError."""
        async with self._door.open(endpoint) as talk:
            with trio.move_on_after(self._door.step):
                versions, seconds = await talk.versions()
                cluster_id = self._cluster_id
                if versions.get(METADATA, (0, -1))[1] >= WHOLE_METADATA:
                    answer = await talk.ask("Metadata", lambda id_: cluster_request(id_, topics=False))
                    cluster_id = (await read_aside(cluster_of, answer)).cluster_id
                if LIST_GROUPS in versions:
                    self._groups = await self._ask_for_groups(talk)
                return self._facts(
                    endpoint,
                    reached=True,
                    release=release_of(versions),
                    round_trip_seconds=seconds,
                    cluster=told_id(cluster_id),
                )
        raise no_answer(str(endpoint), "what it was asked", self._door.step)

    async def _ask_for_groups(self, talk: Talk) -> Groups | None:
        """None: there are more than are read, which is no fault of the broker's. Raises UpstreamError."""
        try:
            return await read_aside(
                lambda answer: groups_of(answer, self._prefix), await talk.ask("ListGroups", groups_request)
            )
        except UpstreamError as exc:
            if exc.code is Code.KAFKA_RESPONSE_TOO_LARGE:
                return None
            raise

    def _failed(self, endpoint: Endpoint, exc: UpstreamError) -> Finding:
        if exc.code is Code.DNS_FAILED:
            hint = f"{_ADVERTISED}, a name that other hosts know; or have this host resolve it: {exc.hint}"
            return self._odd(f"that name leads nowhere from here: {exc.sentence}", hint)
        if _is_wildcard(endpoint.host):
            return self._odd("that means every address of a host, and none", _ADVERTISED)
        if _is_here(endpoint.host) and not any(_is_here(entrance.host) for entrance in self._entrances):
            return self._odd(f"that is this very host, and the broker is not: {exc.sentence}", _ADVERTISED)
        error = UpstreamUnreachable(
            Code.KAFKA_BROKER_UNREACHABLE,
            f"broker {self._member.node_id} cannot be used at the address that the cluster names: {exc.sentence}",
            f"{exc.hint or 'look at the broker and the way to it'}; clients miss every partition that it leads."
            f" If it is elsewhere, {_ADVERTISED}",
        )
        facts = self._facts(endpoint, reached=False, reason=exc.code.value)
        command = again(self._door.case, upstream=endpoint)
        return failed(Layer.KAFKA, _CHECK, error, about=self._about, commands=command, **facts)

    def _odd(self, why: str, hint: str) -> Finding:
        member = self._member
        error = UpstreamUnreachable(
            Code.KAFKA_ODD_ADDRESS, f"broker {member.node_id} advertises {told_host(member)}: {why}", hint
        )
        facts: dict[str, Any] = {"broker": member.node_id, "address": told_host(member), "reached": False}
        return failed(Layer.KAFKA, _CHECK, error, about=self._about, **facts)

    def _by_chance(self, endpoint: Endpoint, facts: Mapping[str, Any]) -> Finding:
        error = UpstreamUnreachable(
            Code.KAFKA_ODD_ADDRESS,
            f"broker {self._member.node_id} advertises {endpoint}, which leads to it from its own host only",
            _ADVERTISED,
        )
        return warned(Layer.KAFKA, _CHECK, error, about=self._about, **facts)

    def _stranger(self, endpoint: Endpoint, facts: Mapping[str, Any]) -> Finding:
        error = UpstreamUnreachable(
            Code.KAFKA_OTHER_CLUSTER,
            f"broker {self._member.node_id} is said to be at {endpoint}, where a broker of another cluster answers:"
            f" {facts['cluster']} and not {told_id(self._cluster_id)}",
            _ADVERTISED,
        )
        return failed(Layer.KAFKA, _CHECK, error, about=self._about, **facts)

    @property
    def _about(self) -> str:
        return f"broker {self._member.node_id} ({told_host(self._member)})"

    def _facts(self, endpoint: Endpoint, **more: Any) -> dict[str, Any]:
        return {"broker": self._member.node_id, "address": str(endpoint), **more}


def again(case: Case, *more: str, upstream: Endpoint | None = None) -> tuple[str, ...]:
    """The command that examines the case with these flags more, or with flags alone another upstream; none where no
    command would."""
    if case.of_file and upstream is None:
        return (shlex.join(["mtlskit", "doctor", case.name, *more]),)
    identity, verify = case.identity, case.tunnel.verify
    if identity is None:
        return ()
    words = ["mtlskit", "doctor", "--kind", "kafka"]
    for endpoint in case.tunnel.upstream if upstream is None else (upstream,):
        words += ["--upstream", str(endpoint)]
    words += ["--cert", str(identity.cert), "--key", str(identity.key)]
    words += ["--ca", str(identity.ca)] if identity.ca is not None else []
    words += ["--verify", str(verify)] if verify.mode is not VerifyMode.FULL else []
    return (shlex.join([*words, *more]),)


def _is_wildcard(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_unspecified
    return False


def _is_here(host: str) -> bool:
    """A name counts as another host's, but for "localhost": whoever wrote it may know."""
    if host.lower() in ("localhost", "localhost.localdomain"):
        return True
    with suppress(ValueError):
        return is_this_machine_only(TcpAddress(host, 1))
    return False


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
