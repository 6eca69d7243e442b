"""A record written to a topic that the user names, and read again: the whole way of an application's.

It goes to the leader of one partition, with acks=all, and is fetched from the offset that it was given. No group is
joined and nothing is committed. What stays behind is one record with the key ``mtlskit-doctor``.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from mtlskit.config.values import Endpoint
from mtlskit.doctor.finding import Finding, Layer, failed, passed, skipped
from mtlskit.doctor.kafka.members import address_of, again
from mtlskit.doctor.kafka.session import Door, Talk, read_aside
from mtlskit.errors import Code, MtlskitError, UpstreamError, UpstreamRefusedUs
from mtlskit.net.faults import no_answer
from mtlskit.pki.certificates import subject_text
from mtlskit.telemetry.logs import printable
from mtlskit.wire.kafka.cluster import NAMED_METADATA, Topic, cluster_of, topic_request
from mtlskit.wire.kafka.records import (
    FETCH_VERSION,
    PRODUCE_VERSION,
    batch_of,
    fetch_request,
    fetched_of,
    holds_offset,
    produce_request,
    produced_of,
)
from mtlskit.wire.kafka.tables import FETCH, METADATA, PRODUCE

__all__ = ["write_and_read"]

_CHECK: Final = "kafka.write-test"
_KEY: Final = b"mtlskit-doctor"
_LEGAL: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
"""What Kafka takes as a topic's name."""

_STEPS: Final = 2
"""Of `Means.step`, for all of it: what the others have found is not to be lost to the deadline of an examination."""

_DENIED: Final = 29
_UNKNOWN: Final = 3
_MOVING: Final = frozenset({3, 5, 6})
"""A leader that is elected or has moved: what comes of asking again a moment later counts."""
_AGAIN: Final = 1.0
"""Seconds until then."""

_ERRORS: Final = {
    2: "the record is damaged (CORRUPT_MESSAGE)",
    3: "the partition is not there (UNKNOWN_TOPIC_OR_PARTITION)",
    5: "the partition has no leader (LEADER_NOT_AVAILABLE)",
    6: "the broker does not lead the partition (NOT_LEADER_OR_FOLLOWER)",
    7: "the replicas did not confirm it in time (REQUEST_TIMED_OUT)",
    10: "the record is too large (MESSAGE_TOO_LARGE)",
    17: "the topic may not be written to, it is the cluster's own (INVALID_TOPIC_EXCEPTION)",
    19: "fewer replicas are in sync than min.insync.replicas demands (NOT_ENOUGH_REPLICAS)",
    20: "fewer replicas had it than min.insync.replicas demands (NOT_ENOUGH_REPLICAS_AFTER_APPEND)",
    44: "a policy of the cluster forbids it (POLICY_VIOLATION)",
    56: "the broker's disk fails (KAFKA_STORAGE_ERROR)",
    87: "a rule of the topic's forbids it (INVALID_RECORD)",
}
"""The cluster's own names for errors (protocol guide, "Error Codes"), and what they mean here."""

_REPLICAS: Final = "bring back the brokers that hold its replicas: until then nobody can write to it with acks=all"
_HINTS: Final = {
    7: _REPLICAS,
    10: "the topic takes smaller records than this one of a hundred bytes: look at its max.message.bytes",
    19: _REPLICAS,
    20: _REPLICAS,
    56: "look at that broker's disks, and at its log",
}


class _CannotTellError(Exception):
    """Nothing was tried; the text says why."""


class _MovingError(Exception):
    """A leader is elected or has moved; the error to tell if it stays so."""

    def __init__(self, error: UpstreamError) -> None:
        super().__init__()
        self.error = error


@dataclass(frozen=True)
class _Written:
    partition: int
    offset: int
    leader: int
    write_seconds: float
    read_seconds: float


async def write_and_read(door: Door, entrance: Endpoint, topic: str, prefix: str) -> Finding:
    """The finding. `prefix` is what names of topics begin with, as far as that is known."""
    test = _Test(door, entrance, topic, prefix)
    patience = _STEPS * door.step
    try:
        with trio.move_on_after(patience) as scope:
            written = await test.run()
        if scope.cancelled_caught:
            raise no_answer(str(entrance), f"the write test of {test.told}", patience)
    except _CannotTellError as exc:
        return skipped(Layer.KAFKA, _CHECK, str(exc), about=test.told)
    except MtlskitError as exc:
        return failed(Layer.KAFKA, _CHECK, exc, about=test.told, commands=test.commands, topic=test.told)
    return passed(
        Layer.KAFKA,
        _CHECK,
        f"a record was written to {test.told} (partition {written.partition}, offset {written.offset}, acks=all) in"
        f" {written.write_seconds * 1000:.1f} ms, and read again in {written.read_seconds * 1000:.1f} ms",
        about=test.told,
        seconds=written.write_seconds + written.read_seconds,
        topic=test.told,
        partition=written.partition,
        offset=written.offset,
        leader=written.leader,
        write_seconds=written.write_seconds,
        read_seconds=written.read_seconds,
    )


class _Test:
    """One record."""

    def __init__(self, door: Door, entrance: Endpoint, topic: str, prefix: str) -> None:
        self._door = door
        self._entrance = entrance
        self._topic = topic
        self._prefix = prefix
        self.told = printable(topic[:249])
        self.commands: tuple[str, ...] = ()
        """What may help, once it has failed."""

    async def run(self) -> _Written:
        """Raises UpstreamError, or _CannotTellError."""
        if not _LEGAL.fullmatch(self._topic):
            raise self._failure("that is no name of a topic", "a name has letters, digits, '.', '_' and '-', up to 249")
        try:
            return await self._attempt()
        except _MovingError:
            await trio.sleep(_AGAIN)
        try:
            return await self._attempt()
        except _MovingError as exc:
            raise exc.error from exc

    async def _attempt(self) -> _Written:
        partition, leader, endpoint = await self._find_leader()
        async with self._open_leader(endpoint) as talk:
            versions, _ = await talk.versions()
            for key, version in ((PRODUCE, PRODUCE_VERSION), (FETCH, FETCH_VERSION)):
                oldest, newest = versions.get(key, (0, -1))
                if not oldest <= version <= newest:
                    raise _CannotTellError("the broker does not take records of Kafka 0.11 and later")
            began = trio.current_time()
            batch = batch_of(_KEY, b"written by mtlskit doctor --write-test", int(time.time() * 1000))
            wait = int(self._door.step * 800)  # milliseconds: its own answer is to come before our patience ends
            made = lambda id_: produce_request(id_, self._topic, partition, batch, milliseconds=wait)  # noqa: E731
            produced = produced_of(await talk.ask("Produce", made))
            self._check(produced.error, "write to", "written to")
            between = trio.current_time()
            wanted = lambda id_: fetch_request(  # noqa: E731
                id_, self._topic, partition, produced.offset, milliseconds=wait
            )
            fetched = fetched_of(await talk.ask("Fetch", wanted))
            self._check(fetched.error, "read", "read from")
            if not holds_offset(fetched.records, produced.offset):
                raise self._failure(
                    f"the record went to partition {partition}, offset {produced.offset}, and is not found there",
                    "look whether the topic's retention removes records at once, and at the broker's log",
                )
            return _Written(partition, produced.offset, leader, between - began, trio.current_time() - between)

    @asynccontextmanager
    async def _open_leader(self, endpoint: Endpoint) -> AsyncIterator[Talk]:
        """That a broker cannot be reached is told once, of the broker."""
        async with AsyncExitStack() as stack:
            try:
                talk = await stack.enter_async_context(self._door.open(endpoint))
            except UpstreamError as exc:
                raise _CannotTellError("kafka.broker") from exc
            yield talk

    async def _find_leader(self) -> tuple[int, int, Endpoint]:
        """A partition that has a leader, the leader's node id, and where it is."""
        async with self._door.open(self._entrance) as talk:
            versions, _ = await talk.versions()
            if versions.get(METADATA, (0, -1))[1] < NAMED_METADATA:
                raise _CannotTellError("the broker is older than Kafka 0.11")
            answer = await talk.ask("Metadata", lambda id_: topic_request(id_, self._topic))
        cluster = await read_aside(lambda found: cluster_of(found, NAMED_METADATA), answer)
        topic = next((each for each in cluster.topics if each.name == self._topic), None)
        partition, leader = self._led(topic)
        member = next((each for each in cluster.members if each.node_id == leader), None)
        endpoint = address_of(member) if member is not None else None
        if endpoint is None:
            raise _CannotTellError("kafka.broker")
        return partition, leader, endpoint

    def _led(self, topic: Topic | None) -> tuple[int, int]:
        if topic is None or topic.error == _UNKNOWN:
            raise self._unknown()
        if topic.error == _DENIED:
            self._check(_DENIED, "see", "looked at")
        if not topic.led:
            raise _MovingError(
                UpstreamRefusedUs(
                    Code.KAFKA_NO_LEADER,
                    f"no partition of the topic {self.told} has a leader",
                    "bring back the brokers that hold its replicas: until then nobody can write to it or read it",
                )
            )
        return topic.led[0]

    def _check(self, error: int, verb: str, done: str) -> None:
        """Raises what an error of the cluster's means, if it is one."""
        if error == 0:
            return
        if error == _DENIED:
            raise self._denied(verb)
        meaning = _ERRORS.get(error, f"the broker's error {error}")
        hint = _HINTS.get(error, "look at the broker's log, and at the topic's settings")
        failure = self._failure(f"it cannot be {done}: {meaning}", hint)
        raise _MovingError(failure) if error in _MOVING else failure

    def _failure(self, why: str, hint: str) -> UpstreamRefusedUs:
        return UpstreamRefusedUs(Code.KAFKA_WRITE_FAILED, f"the topic {self.told}: {why}", hint)

    def _unknown(self) -> UpstreamRefusedUs:
        hint = "make it, or name one that is there; the doctor makes none"
        return self._failure("the cluster has no topic of that name", self._prefixed() or hint)

    def _denied(self, verb: str) -> UpstreamRefusedUs:
        subject = subject_text(self._door.snapshot.pair.chain[0])
        rights = f"have an ACL of the cluster allow Describe, Write and Read on it to User:{subject}"
        return UpstreamRefusedUs(
            Code.KAFKA_NOT_AUTHORIZED,
            f"the cluster does not let this identity {verb} the topic {self.told} (TOPIC_AUTHORIZATION_FAILED)",
            self._prefixed() or rights,
        )

    def _prefixed(self) -> str:
        """The hint where a prefix was forgotten; empty where that is not it."""
        if not self._prefix or self._topic.startswith(self._prefix):
            return ""
        self.commands = again(self._door.case, "--write-test", printable(self._prefix) + self.told)
        return f"names of topics begin with {printable(self._prefix)} on this plan (KAFKA_PREFIX): write it in front"
