"""Real clients of Kafka, each in the same two steps: send these values to a topic, and read as many from its start.

All take a `Door` and settings in the names of their own family (librdkafka and Java: ``acks``; Python: ``acks`` too,
with underscores). What fails raises, with what the client said. Java's and kcat also come as a `Command`, for tests
that run them in their own way. Records are read without a consumer group, but for kafka-verifiable-consumer and where
settings name a group.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from subprocess import CompletedProcess

from tests.services.clients import Command
from tests.services.errors import UnavailableError
from tests.services.kafka_broker import JVM
from tests.services.kafka_builds import KafkaBuild, coreutil, java
from tests.services.kafka_doors import Door
from tests.services.kafka_warm import warm

# Seconds, for one step of a client on a busy machine, a JVM's start included.
CLIENT_TIMEOUT = 60

Settings = Mapping[str, str]


class KafkaClientError(Exception):
    """A client did not do what it was to do; the message ends with what it said."""


@dataclass(frozen=True)
class Client:
    """One kind of client."""

    name: str
    produce: Callable[[Door, str, Sequence[str], Settings], None]
    consume: Callable[[Door, str, int, Settings], list[str]]

    def __str__(self) -> str:
        return self.name


def kcat_command(
    door: Door, *arguments: str, settings: Settings | None = None, stdin: str = "", limit: int = CLIENT_TIMEOUT
) -> Command:
    """kcat with these arguments: ``-L`` lists the cluster (add ``-J`` for JSON), ``-P`` sends, ``-C`` reads.

    It ends after `limit` seconds, whatever became of us: a client whose brokers are gone would try for ever.
    """
    program = shutil.which("kcat")
    if program is None:
        raise UnavailableError("kcat is not installed", "apt-get install kcat")
    named = {**door.librdkafka(), **(settings or {})}
    options = [part for name, value in named.items() for part in ("-X", f"{name}={value}")]
    return Command((*_bounded(limit), program, *options, *arguments), {"LC_ALL": "C.UTF-8"}, stdin)


def java_command(
    build: KafkaBuild, main: str, *arguments: str, stdin: str = "", limit: int = CLIENT_TIMEOUT
) -> Command:
    """A tool of Apache Kafka, by its class: ``org.apache.kafka.tools.TopicCommand``. It logs warnings to stderr.

    It ends after `limit` seconds, as `kcat_command`'s does.
    """
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    argv = (
        *_bounded(limit),
        coreutil("nice"),
        java(),
        *JVM,
        *warm(build).jvm,
        quiet,
        "-cp",
        build.class_path,
        main,
        *arguments,
    )
    return Command(argv, {"LC_ALL": "C.UTF-8"}, stdin)


def kcat() -> Client:
    """kcat, with the distribution's librdkafka."""

    def produce(door: Door, topic: str, values: Sequence[str], settings: Settings) -> None:
        _succeeded(kcat_command(door, "-P", "-t", topic, settings=settings, stdin=_lines(values)))

    def consume(door: Door, topic: str, count: int, settings: Settings) -> list[str]:
        arguments = ("-C", "-q", "-t", topic, "-o", "beginning", "-c", str(count))
        return _succeeded(kcat_command(door, *arguments, settings=settings)).stdout.splitlines()

    return Client("kcat", produce, consume)


def java_console(build: KafkaBuild) -> Client:
    """kafka-console-producer and kafka-console-consumer."""
    producer = "org.apache.kafka.tools.ConsoleProducer" if build.at_least_4 else "kafka.tools.ConsoleProducer"

    def produce(door: Door, topic: str, values: Sequence[str], settings: Settings) -> None:
        arguments = ("--topic", topic, *_java_options(build, door, settings, "producer.config"))
        said = _succeeded(java_command(build, producer, *arguments, stdin=_lines(values)))
        if "ERROR" in said.stderr:  # a record that was not sent is told, and is no reason to end with another status
            raise KafkaClientError(said.stderr)

    def consume(door: Door, topic: str, count: int, settings: Settings) -> list[str]:
        bounds = ("--from-beginning", "--max-messages", str(count), "--timeout-ms", str(CLIENT_TIMEOUT * 500))
        arguments = ("--topic", topic, *bounds, *_java_options(build, door, settings, "consumer.config"))
        main = "org.apache.kafka.tools.consumer.ConsoleConsumer"
        return _succeeded(java_command(build, main, *arguments)).stdout.splitlines()

    return Client("java-console", produce, consume)


def java_verifiable(build: KafkaBuild) -> Client:
    """kafka-verifiable-producer and -consumer, which tell of each record in JSON. The values must be 0, 1, 2, …"""

    def produce(door: Door, topic: str, values: Sequence[str], settings: Settings) -> None:
        if list(values) != [str(number) for number in range(len(values))]:
            raise ValueError("kafka-verifiable-producer counts by itself, from 0")
        arguments = ("--topic", topic, "--max-messages", str(len(values)))
        said = _verifiable(build, "VerifiableProducer", door, settings, "producer.config", *arguments)
        acknowledged = [event for event in said if event["name"] == "producer_send_success"]
        if len(acknowledged) != len(values):
            raise KafkaClientError(f"{len(acknowledged)} of {len(values)} were acknowledged: {said[-5:]}")

    def consume(door: Door, topic: str, count: int, settings: Settings) -> list[str]:
        group = settings.get("group.id", f"verifiable-{topic}")
        arguments = ("--topic", topic, "--group-id", group, "--max-messages", str(count), "--verbose")
        said = _verifiable(build, "VerifiableConsumer", door, settings, "consumer.config", *arguments)
        return [str(event["value"]) for event in said if event["name"] == "record_data"]

    return Client("java-verifiable", produce, consume)


def _verifiable(
    build: KafkaBuild, tool: str, door: Door, settings: Settings, option: str, *arguments: str
) -> list[dict[str, object]]:
    options = _java_options(build, door, settings, option)
    done = _succeeded(java_command(build, f"org.apache.kafka.tools.{tool}", *arguments, *options))
    return [json.loads(line) for line in done.stdout.splitlines()]


def _java_options(build: KafkaBuild, door: Door, settings: Settings, option: str) -> tuple[str, ...]:
    """`option` is the name before 4.2 (KIP-1147) of what is now the same for every tool."""
    name = "--command-config" if build.at_least_4 else f"--{option}"
    return ("--bootstrap-server", door.bootstrap, name, str(door.java_file(settings)))


def _bounded(limit: int) -> tuple[str, ...]:
    """``timeout`` passes SIGTERM and SIGINT on to what it runs."""
    return coreutil("timeout"), "--signal=KILL", str(limit)


def _lines(values: Sequence[str]) -> str:
    return "".join(f"{value}\n" for value in values)


def _succeeded(command: Command) -> CompletedProcess[str]:
    done = command.run(timeout=CLIENT_TIMEOUT + 30)  # the command has a limit of its own, and ends before
    if done.returncode != 0:
        raise KafkaClientError(f"status {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done
