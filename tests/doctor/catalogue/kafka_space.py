"""Faults of Kafka in a Private Space: the sandbox's, with its API, whose add-on has a prefix for names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

import trio

from mtlskit.config.values import HerokuConfig
from mtlskit.doctor.case import Means
from mtlskit.doctor.finding import Verdict
from mtlskit.doctor.gather import Gathered, from_file, heroku_door
from mtlskit.errors import Code
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.kafka_options import KafkaOptions, Topic
from mtlskit.sandbox.space import SpaceOptions
from tests.doctor.catalogue.base import Fault, Stage
from tests.support.space import RunningSpace, running_space
from tests.support.space_kafka import door_of, kafka_of

__all__ = ["FAULTS", "PREFIX", "TOPIC", "gathered", "space"]

PREFIX: Final = "columbia-1."
TOPIC: Final = f"{PREFIX}orders"
_PRODUCE = 0
_TOPIC_AUTHORIZATION_FAILED = 29


@contextmanager
def space(folder: Path) -> Iterator[RunningSpace]:
    """One that all faults share: each puts right what it has broken."""
    kafka = KafkaOptions(asked=True, topics=(Topic(TOPIC),), prefix=PREFIX)
    options = SpaceOptions(folder, api=ApiOptions(speed_up=100_000.0), kafka=kafka, keep_data=False)
    with running_space(options) as live:
        yield live


def gathered(live: RunningSpace, folder: Path, write_test: str | None) -> Gathered:
    """A tunnel to the space's Kafka add-on, with the add-on's own certificate."""
    environ = {
        name: value for name, value in live.space.environment().items() if name.startswith(("HEROKU", "MTLSKIT_"))
    }
    heroku = heroku_door(HerokuConfig(), environ)
    means = Means(environ=environ, heroku=heroku, step=2, deadline=20, write_test=write_test)
    found = from_file(_file(folder, live), [], means)
    # The local side has faults of its own.
    return replace(found, cases=tuple(replace(case, of_file=False) for case in found.cases))


def _file(folder: Path, live: RunningSpace) -> Path:
    door = door_of(live, folder)
    assert door.client is not None
    door.client.key.chmod(0o600)
    file = folder / "mtlskit.toml"
    file.write_text(
        f'[identity.events]\ncert = "{door.client.cert}"\nkey = "{door.client.key}"\nca = "{door.ca}"\n'
        '[tunnel.events]\nkind = "kafka"\nlisten = "127.0.0.1:9092"\nidentity = "events"\nverify = "ca"\n'
        f'upstream = "heroku:{live.space.kafka_addon}"\n',
        encoding="utf-8",
    )
    return file


def _space(
    write_test: str | None = None, breaks: Callable[[RunningSpace], AbstractContextManager[None]] | None = None
) -> Callable[[Stage], AbstractContextManager[Gathered]]:
    @contextmanager
    def build(stage: Stage) -> Iterator[Gathered]:
        live: RunningSpace = stage.fixture("kafka_space")
        with breaks(live) if breaks is not None else nullcontext():
            yield gathered(live, stage.folder, write_test)

    return build


@contextmanager
def _down(live: RunningSpace) -> Iterator[None]:
    trio.from_thread.run(kafka_of(live).set_up, 2, False, trio_token=live.token)
    try:
        yield
    finally:
        trio.from_thread.run(kafka_of(live).set_up, 2, True, trio_token=live.token)


@contextmanager
def _deny(live: RunningSpace) -> Iterator[None]:
    errors = [_TOPIC_AUTHORIZATION_FAILED]
    trio.from_thread.run(kafka_of(live).push_errors, _PRODUCE, errors, trio_token=live.token)
    yield  # and the one request that was to be refused has been


FAULTS: tuple[Fault, ...] = (
    Fault(
        "kafka-space-prefix",
        "The prefix of the plan was forgotten in the name of the write test's topic",
        Code.KAFKA_WRITE_FAILED,
        _space("orders"),
        seen="the topic orders",
    ),
    Fault(
        "kafka-space-denied",
        "The plan does not let the add-on's user write to the topic",
        Code.KAFKA_NOT_AUTHORIZED,
        _space(TOPIC, _deny),
        seen=f"write to the topic {TOPIC}",
    ),
    Fault(
        "kafka-space-broker-down",
        "One broker of the add-on is down, and the cluster no longer names it",
        Code.TCP_RESET,
        _space(breaks=_down),
        verdict=Verdict.WARN,
        seen="reset the connection",
    ),
)
