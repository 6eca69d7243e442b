"""A proxy in the test's own trio loop, the events it emits, and clients that speak byte by byte."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from mtlskit.config.values import (
    Endpoint,
    ListenAddress,
    ProxyConfig,
    TcpAddress,
    TunnelConfig,
    TunnelKind,
    UnixAddress,
)
from mtlskit.control.places import Place
from mtlskit.proxy.addon import AddonLookup
from mtlskit.proxy.run import Proxy, run_proxy
from mtlskit.telemetry import Event
from mtlskit.wire.postgres.messages import ErrorFields, Message, parse_error_fields, startup_message
from tests.support.fake_upstream import PATIENCE, Papers

E = TypeVar("E", bound=Event)

LOOPBACK = TcpAddress("127.0.0.1", 0)
STARTUP = startup_message({"user": "ann", "database": "sales"})


def tunnel(papers: Papers, *upstream: Endpoint, name: str = "reporting", **settings: Any) -> TunnelConfig:
    """A Postgres tunnel on a free port of loopback, unless `settings` say otherwise."""
    defaults: dict[str, Any] = {"kind": TunnelKind.POSTGRES, "listen": LOOPBACK, "identity": papers.identity}
    return TunnelConfig(name=name, upstream=upstream, **(defaults | settings))


class EventLog:
    """An `Emit` that keeps everything, and lets a task wait for what must come."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._changed = trio.Event()

    def __call__(self, event: Event) -> None:
        self.seen.append(event)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def of(self, kind: type[E]) -> list[E]:
        return [event for event in self.seen if isinstance(event, kind)]

    async def wait_for(self, kind: type[E], count: int = 1) -> E:
        """The `count`th event of `kind`."""
        with trio.fail_after(PATIENCE):
            while len(self.of(kind)) < count:
                await self._changed.wait()
        return self.of(kind)[count - 1]


class Running:
    """A proxy that runs, and what it has told."""

    def __init__(self, proxy: Proxy, events: EventLog) -> None:
        self.proxy = proxy
        self.events = events

    def address(self, index: int = 0) -> ListenAddress:
        return self.proxy.tunnels[index].addresses[0]

    async def idle(self) -> None:
        """Wait until no client is connected any more."""
        with trio.fail_after(PATIENCE):
            for tunnel in self.proxy.tunnels:
                await tunnel.drained()

    def connect(self, index: int = 0) -> Any:
        """`async with running.connect() as client`."""
        return connected(self.address(index))


@asynccontextmanager
async def running_proxy(
    *tunnels: TunnelConfig,
    ready_path: Path | None = None,
    control: Place | None = None,
    lookup: AddonLookup | None = None,
    look_every: float = float("inf"),
    events: EventLog | None = None,
) -> AsyncIterator[Running]:
    """Run these tunnels until the block ends. Without `look_every`, files that change are read when a test says so."""
    events = EventLog() if events is None else events
    async with trio.open_nursery() as nursery:
        more: dict[str, Any] = {"ready_path": ready_path, "control": control, "look_every": look_every}
        more["lookup"] = lookup
        run = partial(run_proxy, ProxyConfig(tunnels), emit=events, **more)
        proxy: Proxy = await nursery.start(run)
        yield Running(proxy, events)
        proxy.stop()
        proxy.stop()


class RawClient:
    """A client that sends exactly what the test says."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_exactly(self, count: int) -> bytes:
        with trio.fail_after(PATIENCE):
            while len(self._buffer) < count:
                data = await self.stream.receive_some()
                assert data, f"closed after {bytes(self._buffer)!r}"
                self._buffer += data
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def read_to_end(self) -> bytes:
        """All that comes until the proxy closes its direction. Raises BrokenResourceError for a reset."""
        with trio.fail_after(PATIENCE):
            while data := await self.stream.receive_some():
                self._buffer += data
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    async def message(self) -> Message:
        head = await self.read_exactly(5)
        return Message(head[:1], await self.read_exactly(struct.unpack("!I", head[1:])[0] - 4))

    async def error(self) -> ErrorFields:
        """An ErrorResponse, and then the end of the connection."""
        received = await self.message()
        assert received.kind == b"E"
        assert await self.read_to_end() == b""
        return parse_error_fields(received.body)

    async def login(self, startup: bytes = STARTUP) -> list[Message]:
        """Send a StartupMessage and read up to ReadyForQuery."""
        await self.send(startup)
        return await self.until_ready()

    async def until_ready(self) -> list[Message]:
        messages = [await self.message()]
        while messages[-1].kind != b"Z":
            messages.append(await self.message())
        return messages

    def reset(self) -> None:
        """Leave with RST."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()


@asynccontextmanager
async def connected(address: ListenAddress) -> AsyncIterator[RawClient]:
    """A client of a tunnel that listens on `address`."""
    if isinstance(address, UnixAddress):
        stream: Any = await trio.open_unix_socket(str(address.path))
    else:
        stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        yield RawClient(stream)
