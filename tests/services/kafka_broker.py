"""One process of Kafka: started, awaited by what it logs, stopped or killed by its pid, guarded if we die."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM

from tests.services.errors import ServerError
from tests.services.kafka_builds import KafkaBuild, coreutil, java
from tests.services.processes import Guard

# Seconds. A start takes two to four; three at once on a machine that is busy with everything else get two minutes.
START_TIMEOUT = 120
REACTION_TIMEOUT = 60
_LOG_SHOWN = 6000

_STARTED = "Kafka Server started"
_PORT_TAKEN = "Address already in use"

# Small and quick to start rather than quick for hours: one compiler, one collector's thread, a bounded heap.
# UsePerfData writes a file below /tmp that a killed JVM leaves there.
JVM = ("-Xms32m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")

# What tests read in a broker's log: every connection that was accepted, and with whom each handshake succeeded.
_LOGGING = {
    "defaultLogLevel": "info",
    "logFile": "System.out",
    "showDateTime": "true",
    "dateTimeFormat": "HH:mm:ss.SSS",
    "log.kafka.network.DataPlaneAcceptor": "debug",
    "log.org.apache.kafka.common.network.SslTransportLayer": "debug",
}


class PortTakenError(Exception):
    """Another process has one of the broker's ports."""


class KafkaBroker:
    """One broker. Its folder holds ``server.properties``, ``data``, ``server.log`` and what Java writes."""

    def __init__(self, build: KafkaBuild, folder: Path, guarded: Path, jvm: Sequence[str]) -> None:
        """Nothing happens before `start`. `guarded` is removed, and the process killed, if we die."""
        self._folder = folder
        self._guarded = guarded
        logging = (f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in _LOGGING.items())
        self._argv = (  # nice: three that start leave the machine to others; it becomes Java, with the same pid
            *(coreutil("nice"), java(), *JVM, *logging, f"-Djava.io.tmpdir={folder}", *jvm),
            *("-cp", build.class_path, "kafka.Kafka", str(folder / "server.properties")),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._since = 0

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise ServerError("the broker is not running")
        return self._process.pid

    @property
    def guard_pid(self) -> int:
        """The process id of the guard that ends the broker if we die."""
        if self._guard is None:
            raise ServerError("the broker is not running")
        return self._guard.pid

    def log(self, since: int = 0) -> str:
        """All that the broker has logged, in every one of its lives; `since` is a number of bytes to leave out."""
        path = self._folder / "server.log"
        if not path.exists():
            return ""
        with path.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    def launch(self) -> None:
        """Start the process and do not wait: brokers that form a quorum wait for each other."""
        if self.running:
            raise ServerError("the broker is running already")
        with (self._folder / "server.log").open("ab") as log:
            self._since = log.tell()
            self._process = subprocess.Popen(
                self._argv,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we stop it
            )
        self._guard = Guard(self._process.pid, self._guarded, SIGKILL)  # SIGQUIT only makes Java print its threads

    def wait_started(self) -> None:
        """Wait until it serves. Raises `PortTakenError`, or `ServerError` with the log where it does not come to it."""
        deadline = time.monotonic() + START_TIMEOUT
        while self.running:
            if _STARTED in self.log(self._since):  # it says so after it has caught up and all its listeners accept
                return
            if time.monotonic() > deadline:
                self.kill()
                raise ServerError(self._with_log(f"Kafka did not start within {START_TIMEOUT} s"))
            time.sleep(0.02)
        self._forget_process()
        if _PORT_TAKEN in self.log(self._since):
            raise PortTakenError
        raise ServerError(self._with_log("Kafka did not start"))

    def wait_logged(self, sentence: str) -> None:
        """Wait until this life of the broker has logged a sentence. Raises `ServerError` where it does not."""
        deadline = time.monotonic() + REACTION_TIMEOUT
        while sentence not in self.log(self._since):
            if time.monotonic() > deadline:
                raise ServerError(self._with_log(f"Kafka did not say {sentence!r} within {REACTION_TIMEOUT} s"))
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop in good order: another becomes leader of what it led. A broker that has ended by itself is an error."""
        process = self._process
        if process is None:
            return
        ended_before = process.poll() is not None
        if not ended_before:
            process.send_signal(SIGTERM)
            try:
                process.wait(REACTION_TIMEOUT)
            except subprocess.TimeoutExpired as exc:
                self.kill()
                raise ServerError(self._with_log(f"Kafka did not stop within {REACTION_TIMEOUT} s")) from exc
        self._forget_process()
        if ended_before:
            raise ServerError(self._with_log(f"Kafka had ended by itself, status {process.returncode}"))

    def kill(self) -> None:
        """SIGKILL: the machine lost its power. It can be started again."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._forget_process()

    def _forget_process(self) -> None:
        if self._guard is not None:
            self._guard.dismiss()
        self._guard = None
        self._process = None

    def _with_log(self, sentence: str) -> str:
        return f"{sentence}\n--- end of its log\n{self.log()[-_LOG_SHOWN:]}"
