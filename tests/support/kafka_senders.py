"""The senders of `tests.support.kafka_load`: librdkafka, aiokafka and Java, each idempotent and with ``acks=all``."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
from itertools import count
from typing import IO

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from confluent_kafka import KafkaError as LibrdkafkaError
from confluent_kafka import Message, Producer

from tests.services.kafka_builds import KafkaBuild
from tests.services.kafka_clients import java_command
from tests.services.kafka_doors import Door
from tests.services.kafka_python import python_settings
from tests.support.kafka_load import DEADLINE

_BEAT = 0.02
"""Seconds between two records of one sender: enough of them for each moment of a fault."""

_LONGEST = 1800


class Librdkafka:
    """confluent-kafka in a thread."""

    name = "librdkafka"

    def __init__(self, door: Door, topic: str) -> None:
        self.sent = 0
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self._topic = topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name)
        settings = {"enable.idempotence": "true", "acks": "all", "topic.metadata.refresh.interval.ms": "300000"}
        self._producer = Producer({**door.librdkafka(), **settings})

    def start(self) -> None:
        """See `Sender`."""
        self._thread.start()

    def finish(self) -> None:
        """See `Sender`."""
        self._over.set()
        self._thread.join()
        if left := self._producer.flush(DEADLINE):
            self.failures.append(f"{left} were never acknowledged")

    def abandon(self) -> None:
        """See `Sender`."""
        self._over.set()
        self._thread.join()
        self._producer.purge()
        self._producer.close()

    def _run(self) -> None:
        while not self._over.wait(_BEAT):
            self._producer.produce(self._topic, f"{self.name}:{self.sent}".encode(), on_delivery=self._told)
            self.sent += 1
            self._producer.poll(0)

    def _told(self, error: LibrdkafkaError | None, message: Message) -> None:
        if error is None:
            self.acknowledged.append((message.value() or b"").decode())
        else:
            self.failures.append(str(error))


class Aiokafka:
    """aiokafka, whose loop lives in a thread. It goes on with the brokers that it knows, for ever."""

    name = "aiokafka"

    def __init__(self, door: Door, topic: str) -> None:
        self.sent = 0
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        self._door = door
        self._topic = topic
        self._over = threading.Event()
        self._abandoned = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name=self.name)

    def start(self) -> None:
        """See `Sender`."""
        self._thread.start()

    def finish(self) -> None:
        """See `Sender`."""
        self._over.set()
        self._thread.join()

    def abandon(self) -> None:
        """See `Sender`."""
        self._abandoned = True
        self.finish()

    async def _run(self) -> None:
        patience = {"request_timeout_ms": int(DEADLINE * 1000)}
        producer = AIOKafkaProducer(enable_idempotence=True, acks="all", **patience, **python_settings(self._door))
        await producer.start()
        under_way: set[asyncio.Task[None]] = set()
        for number in count():
            if self._over.is_set():
                break
            task = asyncio.create_task(self._send(producer, f"{self.name}:{number}"))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            self.sent += 1
            await asyncio.sleep(_BEAT)
        if under_way and not self._abandoned:
            await asyncio.wait(under_way, timeout=DEADLINE)
        for task in tuple(under_way):
            task.cancel()
            self.failures.append("a record was never acknowledged")
        await asyncio.wait_for(producer.stop(), DEADLINE)

    async def _send(self, producer: AIOKafkaProducer, value: str) -> None:
        try:
            await producer.send_and_wait(self._topic, value.encode())
        except KafkaError as exc:
            self.failures.append(f"{type(exc).__name__}: {exc}")
        else:
            self.acknowledged.append(value)


class Java:
    """kafka-verifiable-producer, whose values begin with a number in the place of a name."""

    name = "7"

    def __init__(self, build: KafkaBuild, door: Door, topic: str) -> None:
        self.acknowledged: list[str] = []
        self.failures: list[str] = []
        config = {"enable.idempotence": "true", "acks": "all", "retries": str(2**31 - 1), "linger.ms": "0"}
        option = "--command-config" if build.at_least_4 else "--producer.config"
        self._command = java_command(
            build,
            "org.apache.kafka.tools.VerifiableProducer",
            *("--bootstrap-server", door.bootstrap, option, str(door.java_file(config)), "--topic", topic),
            *("--throughput", str(round(1 / _BEAT)), "--value-prefix", self.name),
            limit=_LONGEST,
        )
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    @property
    def sent(self) -> int:
        """It tells of a record when its fate is known: those under way are not counted, and there are few."""
        return len(self.acknowledged) + len(self.failures)

    def start(self) -> None:
        """See `Sender`."""
        self._process = subprocess.Popen(
            self._command.argv,
            env=self._command.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self._process.stdout,), name="java")
        self._thread.start()

    def finish(self) -> None:
        """See `Sender`. SIGTERM has it wait for what is under way."""
        process, self._process = self._process, None
        if process is None or self._thread is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(DEADLINE)
        finally:
            process.kill()
            self._thread.join()
            if process.stdout is not None:
                process.stdout.close()

    def abandon(self) -> None:
        """See `Sender`. ``timeout``, which runs it, could not pass SIGKILL on."""
        self.finish()

    def _read(self, stdout: IO[str]) -> None:
        for line in stdout:
            event = json.loads(line)
            if event["name"] == "producer_send_success":
                self.acknowledged.append(str(event["value"]))
            elif event["name"] == "producer_send_error":
                self.failures.append(str(event))
