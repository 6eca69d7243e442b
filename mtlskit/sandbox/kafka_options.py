"""What is asked of the sandbox's Kafka, and whether this machine has what it takes."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mtlskit.config.values import TcpAddress
from mtlskit.errors import Code, ConfigError, SandboxError

__all__ = [
    "MOST_BROKERS",
    "MOST_PARTITIONS",
    "MOST_TOPICS",
    "NOT_INSTALLED",
    "NO_KAFKA",
    "KafkaOptions",
    "Topic",
    "find_library",
    "library_for",
]

MOST_BROKERS: Final = 50
MOST_PARTITIONS: Final = 100
MOST_TOPICS: Final = 100
_LEGAL: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
"""What Kafka takes as a topic's name (`org.apache.kafka.common.internals.Topic`); `.` and `..` it does not."""
_ANY_PORT: Final = TcpAddress("127.0.0.1", 0)
_LAST_PORT: Final = 65_535
_PACKAGE: Final = "confluent_kafka"
_PLACES: Final = (
    # Where the tools that make wheels put what a package needs: auditwheel, delocate, delvewheel.
    ("{0}.libs", "librdkafka*.so*"),
    ("{0}/.dylibs", "librdkafka*.dylib"),
    ("{0}.libs", "*rdkafka*.dll"),
    ("{0}", "cimpl*.so"),  # built on this machine: the library is found through what is linked with it
)
_INSTALL: Final = "pip install 'mtlskit[sandbox]'"
_WHY: Final = "they are librdkafka's, and confluent-kafka, which has it, is not installed"
NOT_INSTALLED: Final = f"{_WHY}; {_INSTALL} brings it"
"""Why there are no brokers where nobody asked for any."""


@dataclass(frozen=True)
class Topic:
    """A topic that there is from the start. Raises ConfigError (CONFIG_BAD_VALUE)."""

    name: str
    partitions: int = 3

    def __post_init__(self) -> None:
        if not _LEGAL.fullmatch(self.name) or self.name in (".", ".."):
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                f"--kafka-topic: {self.name!r} cannot be the name of a topic",
                "write 1 to 249 letters, digits, dots, underscores and hyphens, such as --kafka-topic orders:3",
            )
        if not 1 <= self.partitions <= MOST_PARTITIONS:
            raise ConfigError(
                Code.CONFIG_BAD_VALUE,
                f"--kafka-topic {self.name}: {self.partitions} partitions cannot be",
                f"write 1 to {MOST_PARTITIONS}, such as --kafka-topic {self.name}:3",
            )


@dataclass(frozen=True)
class KafkaOptions:
    """Of the Kafka of one space. Raises ConfigError (CONFIG_BAD_VALUE)."""

    brokers: int = 3
    asked: bool = False
    """They were asked for, so a machine that cannot have them is an error; else it is a line in the log."""
    topics: tuple[Topic, ...] = ()
    prefix: str = ""
    """KAFKA_PREFIX, as a plan has it whose cluster is shared. Nothing enforces it."""
    listen: TcpAddress = _ANY_PORT
    """Of the first broker; the next one has the next port, unless the kernel chooses."""

    def __post_init__(self) -> None:
        if not 0 <= self.brokers <= MOST_BROKERS:
            raise _bad(f"--kafka-brokers {self.brokers} cannot be", f"write a number from 0 to {MOST_BROKERS}")
        if self.topics and not self.brokers:
            raise _bad("--kafka-topic: there are no brokers to have topics", "leave out --kafka-brokers 0")
        if len(self.topics) > MOST_TOPICS:
            raise _bad(f"--kafka-topic: {len(self.topics)} topics are too many", f"name at most {MOST_TOPICS}")
        twice = {topic.name for topic in self.topics if [each.name for each in self.topics].count(topic.name) > 1}
        if twice:
            raise _bad(f"--kafka-topic {min(twice)} stands there twice", "name each topic once")
        if self.prefix and not _LEGAL.fullmatch(self.prefix):
            raise _bad(
                f"--kafka-prefix {self.prefix!r} cannot begin a topic's name", "write one such as columbia-1234."
            )
        if self.listen.port and self.listen.port + self.brokers - 1 > _LAST_PORT:
            raise _bad(
                f"--kafka-listen {self.listen}: {self.brokers} brokers need as many ports",
                f"begin at {_LAST_PORT - self.brokers + 1} or below",
            )

    def addresses(self) -> tuple[TcpAddress, ...]:
        """Where the brokers' gateways are to listen, in the order of the brokers' ids."""
        host, port = self.listen.host, self.listen.port
        return tuple(TcpAddress(host, port + number if port else 0) for number in range(self.brokers))


NO_KAFKA: Final = KafkaOptions(brokers=0)


def find_library() -> Path | None:
    """The librdkafka of the confluent-kafka that is installed, which is not imported. None: there is none."""
    try:
        found = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):
        return None
    if found is None or not found.submodule_search_locations:
        return None
    package = Path(next(iter(found.submodule_search_locations)))
    for place, pattern in _PLACES:
        matches = sorted(package.parent.joinpath(place.format(package.name)).glob(pattern))
        if matches:
            return matches[0]
    return None


def library_for(options: KafkaOptions) -> Path | None:
    """The library for the brokers that `options` have; None: there will be none. Raises SandboxError."""
    library = find_library() if options.brokers else None
    if library is None and options.asked and options.brokers:
        raise SandboxError(
            Code.SANDBOX_EXTRA_MISSING,
            f"the sandbox's Kafka brokers: {_WHY}",
            _INSTALL,
        )
    return library


def _bad(sentence: str, wanted: str) -> ConfigError:
    return ConfigError(Code.CONFIG_BAD_VALUE, sentence, wanted)
