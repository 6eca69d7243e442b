"""librdkafka's mock cluster, in a process of its own: Kafka brokers without TLS, on loopback ports of its choice.

The mock cluster is a part of librdkafka, and the wheel of confluent-kafka has it with its symbols (`rd_kafka_mock_…`,
declared in `src/rdkafka_mock.h` of confluentinc/librdkafka). Its authors call the interface experimental, so what is
missing is told by name.

This file is also the program of that process: `python -I -S kafka_mock.py LIBRARY BROKERS`. A request that the mock
does not expect can trip one of its assertions, and an assertion ends the process; the sandbox must survive that. The
program reads calls from stdin, one JSON array a line (`["set_leader", "orders", 0, 2]`), and writes an object for each
to stdout: `{}`, or `{"error": "…"}`. The first line that it writes holds the brokers' ports. It ends with its stdin,
so it never outlives who started it. It imports the standard library only, which is loaded in some 20 ms.

A call of the library is handed to the mock's own thread, which now and then misses the byte that should wake it: one
that is written between its serving of the call before and its reading of that call's byte (`rd_kafka_q_io_event`, and
`rd_kafka_mock_cluster_io_poll`). It would look up a second later. So a call that is not done at once knocks at the
brokers' ports, which wakes it too.

What the mock gets wrong is taken out of what it offers (`_OFFERED`), so that clients agree with it on what works.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TextIO

__all__ = ["MockCluster", "MockError", "main"]

_PRODUCER: Final = 0
_NONE: Final = -1
_MESSAGE_SIZE: Final = 512
_AT_ONCE: Final = 0.01
"""Seconds."""
_OFFERED: Final = {
    11: (0, 5),  # JoinGroup: 6 is answered in a layout that is not that of 6, and so are the next two
    13: (0, 2),  # LeaveGroup: 3 lacks the members
    14: (0, 3),  # SyncGroup
    71: (_NONE, _NONE),  # GetTelemetrySubscriptions: nobody here wants a client's figures,
    72: (_NONE, _NONE),  # PushTelemetry: and one without any trips an assertion
    76: (_NONE, _NONE),  # ShareGroupHeartbeat: share groups are known to librdkafka alone
    78: (_NONE, _NONE),  # ShareFetch
    79: (_NONE, _NONE),  # ShareAcknowledge
}
"""Oldest and newest version by API key."""
_POINTER: Final = ctypes.c_void_p
_TEXT: Final = ctypes.c_char_p
_INT: Final = ctypes.c_int
_NUMBER: Final = ctypes.c_int32
_KEY: Final = ctypes.c_int16
_SIGNATURES: Final[dict[str, tuple[Any, ...]]] = {
    # name: (result, arguments …)
    "conf_new": (_POINTER,),
    "new": (_POINTER, _INT, _POINTER, _TEXT, ctypes.c_size_t),
    "destroy": (None, _POINTER),
    "err2str": (_TEXT, _INT),
    "mock_cluster_new": (_POINTER, _POINTER, _INT),
    "mock_cluster_destroy": (None, _POINTER),
    "mock_cluster_bootstraps": (_TEXT, _POINTER),
    "mock_set_apiversion": (_INT, _POINTER, _KEY, _KEY, _KEY),
    "mock_group_initial_rebalance_delay_ms": (None, _POINTER, _NUMBER),
    "mock_topic_create": (_INT, _POINTER, _TEXT, _INT, _INT),
    "mock_partition_set_leader": (_INT, _POINTER, _TEXT, _NUMBER, _NUMBER),
    "mock_broker_set_host_port": (None, _POINTER, _NUMBER, _TEXT, _INT),
    "mock_broker_set_down": (_INT, _POINTER, _NUMBER),
    "mock_broker_set_up": (_INT, _POINTER, _NUMBER),
    "mock_push_request_errors_array": (None, _POINTER, _KEY, ctypes.c_size_t, _POINTER),
}


class MockError(Exception):
    """The mock cluster cannot do that; the text says why."""


class MockCluster:
    """A cluster of `brokers` brokers, with the ids 1, 2, 3 … They run in threads of the library. `close` it.

    Raises MockError, here where the library cannot be loaded or lacks something. All methods return at once.
    """

    def __init__(self, library: str, brokers: int) -> None:
        self._calls = _load(library)
        message = ctypes.create_string_buffer(_MESSAGE_SIZE)
        conf = self._calls["conf_new"]()
        self._client = self._calls["new"](_PRODUCER, conf, message, _MESSAGE_SIZE)
        if not self._client:
            raise MockError(message.value.decode(errors="replace"))
        self._cluster = self._calls["mock_cluster_new"](self._client, brokers)
        if not self._cluster:
            self._calls["destroy"](self._client)
            raise MockError(f"librdkafka could not open {brokers} listeners")
        for key, (oldest, newest) in _OFFERED.items():
            self._do("mock_set_apiversion", key, oldest, newest)
        # Kafka waits 3 s for more members before it gives a new group its partitions; here somebody is looking.
        self._do("mock_group_initial_rebalance_delay_ms", 0)

    @property
    def ports(self) -> list[int]:
        """Where the brokers listen on 127.0.0.1, in the order of their ids."""
        bootstraps: bytes = self._calls["mock_cluster_bootstraps"](self._cluster)
        return [int(each.rpartition(":")[2]) for each in bootstraps.decode().split(",")]

    def advertise(self, broker: int, host: str, port: int) -> None:
        """From now on clients are told this address of a broker, and not the one where it listens."""
        self._calls["mock_broker_set_host_port"](self._cluster, broker, host.encode(), port)

    def create_topic(self, topic: str, partitions: int, replicas: int) -> None:
        """Make a topic. Raises MockError where there is one of that name."""
        self._do("mock_topic_create", topic.encode(), partitions, replicas)

    def set_leader(self, topic: str, partition: int, broker: int) -> None:
        """A partition gets another leader; -1: none."""
        self._do("mock_partition_set_leader", topic.encode(), partition, broker)

    def stop_broker(self, broker: int) -> None:
        """A broker ends its connections and takes no others. It stays the leader of what it leads."""
        self._do("mock_broker_set_down", broker)

    def start_broker(self, broker: int) -> None:
        """A broker takes connections again."""
        self._do("mock_broker_set_up", broker)

    def push_errors(self, api_key: int, errors: Sequence[int]) -> None:
        """The next requests with this API key are answered with these error codes, one each; -195: cut off."""
        array = (ctypes.c_int * len(errors))(*errors)
        self._calls["mock_push_request_errors_array"](self._cluster, api_key, len(errors), array)

    def close(self) -> None:
        """End the brokers and all their threads."""
        self._do("mock_cluster_destroy")
        self._calls["destroy"](self._client)

    def _do(self, name: str, *arguments: object) -> None:
        """A call that the mock's thread answers, with an error code or nothing."""
        done = threading.Event()
        knocking = threading.Thread(target=_knock, args=(self.ports, done))
        knocking.start()
        try:
            error = self._calls[name](self._cluster, *arguments)
        finally:
            done.set()
            knocking.join()
        if error:
            raise MockError(self._calls["err2str"](error).decode(errors="replace"))


def _knock(ports: Sequence[int], done: threading.Event) -> None:
    while not done.wait(_AT_ONCE):
        for port in ports:
            with suppress(OSError):  # this broker is down
                socket.create_connection(("127.0.0.1", port), _AT_ONCE).close()


def _load(library: str) -> dict[str, Any]:
    """The functions by their name without `rd_kafka_`."""
    try:
        loaded = ctypes.CDLL(library)
        calls = {name: getattr(loaded, f"rd_kafka_{name}") for name in _SIGNATURES}
    except (OSError, AttributeError) as exc:
        raise MockError(f"librdkafka's mock cluster cannot be used: {exc}") from exc
    for name, (result, *arguments) in _SIGNATURES.items():
        calls[name].restype, calls[name].argtypes = result, arguments
    return calls


_CALLS: Final[dict[str, Callable[..., None]]] = {
    "advertise": MockCluster.advertise,
    "create_topic": MockCluster.create_topic,
    "push_errors": MockCluster.push_errors,
    "set_leader": MockCluster.set_leader,
    "start_broker": MockCluster.start_broker,
    "stop_broker": MockCluster.stop_broker,
}


def main(arguments: Sequence[str], calls: TextIO, answers: TextIO) -> int:
    """The program. Returns its exit status."""

    def answer(**fields: object) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    library, brokers = arguments
    if sys.platform == "win32":  # where the libraries that it needs lie beside it
        os.add_dll_directory(str(Path(library).parent))
    try:
        cluster = MockCluster(library, int(brokers))
    except MockError as exc:
        answer(error=str(exc))
        return 1
    try:
        answer(ports=cluster.ports)
        for line in calls:
            name, *values = json.loads(line)
            try:
                _CALLS[name](cluster, *values)
            except MockError as exc:
                answer(error=str(exc))
            else:
                answer()
    finally:
        cluster.close()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is meant for who started us, and ends our stdin
    with suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:], sys.stdin, sys.stdout))
