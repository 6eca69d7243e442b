"""The mock cluster's process, from outside: started, asked, watched and stopped. `kafka_mock` is the program in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, cast

import trio

from mtlskit.errors import Code, SandboxError
from mtlskit.sandbox import kafka_mock
from mtlskit.sandbox.events import KafkaLost
from mtlskit.telemetry import Emit, silent

__all__ = ["Cluster", "run_cluster"]

_PATIENCE: Final = 20.0
"""Seconds for its start, and for an answer."""
_FAREWELL: Final = 2.0
"""Seconds that it has to end by itself."""
_MOST_LINE: Final = 65_536


class Cluster:
    """A running mock cluster. `ports`: where its brokers listen on 127.0.0.1, without TLS, in the order of their ids.

    Every method raises SandboxError (SANDBOX_KAFKA) for what cannot be done.
    """

    def __init__(self, process: trio.Process, log: Path) -> None:
        self.ports: tuple[int, ...] = ()
        self._process = process
        # Both were asked for.
        self._calls = cast(trio.abc.SendStream, process.stdin)
        self._answers = cast(trio.abc.ReceiveStream, process.stdout)
        self._log = log
        self._turn = trio.Lock()
        self._received = b""

    async def advertise(self, broker: int, host: str, port: int) -> None:
        """From now on clients are told this address of a broker."""
        await self._call("advertise", broker, host, port)

    async def create_topic(self, topic: str, *, partitions: int, replicas: int) -> None:
        """Make a topic; one of that name must not be there."""
        await self._call("create_topic", topic, partitions, replicas)

    async def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """A partition gets another leader. A topic that is not there is made."""
        await self._call("set_leader", topic, partition, broker)

    async def stop_broker(self, broker: int) -> None:
        """A broker ends its connections and takes no others. It stays the leader of what it leads."""
        await self._call("stop_broker", broker)

    async def start_broker(self, broker: int) -> None:
        """A broker that was stopped takes connections again, where it did before."""
        await self._call("start_broker", broker)

    async def push_errors(self, api_key: int, errors: list[int]) -> None:
        """The next requests with this API key are answered with these error codes; -195 cuts the connection off."""
        await self._call("push_errors", api_key, errors)

    async def begin(self) -> None:
        """Waits until it serves."""
        answer = await self._answer()
        self.ports = tuple(answer["ports"])

    async def watch(self) -> int:
        """Waits until the process has ended. Returns its status."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        with trio.CancelScope(shield=True):
            await self._calls.aclose()  # which ends it
            with trio.move_on_after(_FAREWELL):
                await self._process.wait()
            if self._process.returncode is None:
                self._process.kill()
                await self._process.wait()
            await self._answers.aclose()

    async def _call(self, *words: Any) -> None:
        # Shielded, for half a call would leave its answer to the next one; it is a matter of milliseconds.
        async with self._turn:
            with trio.CancelScope(shield=True):
                try:
                    await self._calls.send_all(json.dumps(words).encode() + b"\n")
                except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                    raise self._gone() from exc
                await self._answer()

    async def _answer(self) -> dict[str, Any]:
        with trio.move_on_after(_PATIENCE):
            while b"\n" not in self._received and len(self._received) < _MOST_LINE:
                data = await self._answers.receive_some()
                if not data:
                    raise self._gone()
                self._received += data
            line, _, self._received = self._received.partition(b"\n")
            answer: dict[str, Any] = json.loads(line)
            if "error" in answer:
                raise _failed(str(answer["error"]), "see mtlskit sandbox --help")
            return answer
        raise _failed(f"no answer within {_PATIENCE:g} s", f"look into {self._log}")

    def _gone(self) -> SandboxError:
        return _failed("its process has ended", f"look into {self._log}, and start the sandbox again")


def _failed(reason: str, hint: str) -> SandboxError:
    return SandboxError(Code.SANDBOX_KAFKA, f"the sandbox's Kafka brokers: {reason}", hint)


async def run_cluster(
    library: Path,
    brokers: int,
    log: Path,
    *,
    emit: Emit = silent,
    task_status: trio.TaskStatus[Cluster] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Runs a cluster until cancelled, through `nursery.start`. What it says itself goes to the file `log`, made anew.

    A cluster that ends by itself is an event, and no reason to end. Raises SandboxError for one that cannot start.
    """
    # Isolated and without site-packages: quicker, and nothing but the standard library is wanted.
    command = [sys.executable, "-I", "-S", kafka_mock.__file__, str(library), str(brokers)]
    try:
        with log.open("wb") as told:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=told, cwd=log.parent
            )
    except OSError as exc:
        raise _failed(f"{exc.filename or sys.executable}: {exc.strerror or exc}", "see `ls -l` of it") from exc
    cluster = Cluster(process, log)
    try:
        await cluster.begin()
        task_status.started(cluster)
        status = await cluster.watch()
        emit(KafkaLost(status=status, log=str(log)))
    finally:
        await cluster.stop()
