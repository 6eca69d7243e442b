"""The API on a socket: our listener, hypercorn's protocol, the front behind it.

Hypercorn's own `serve` would open the sockets itself, and when it is cancelled it leaves accepted ones to the garbage
collector. So the listener is the one that the rest of the house uses, each connection is given to hypercorn's trio
protocol, and whatever becomes of that, the connection is closed here. Having the connection also lets a fault cut it.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import Receive, Scope, Send

from mtlskit.config.values import TcpAddress
from mtlskit.net.listen import Listener, open_listeners
from mtlskit.sandbox.api.app import CUT, Front
from mtlskit.sandbox.api.calls import Calls
from mtlskit.sandbox.api.hooks import SpaceHooks
from mtlskit.sandbox.api.options import ApiOptions
from mtlskit.sandbox.api.state import ApiState
from mtlskit.telemetry import Emit, silent

__all__ = ["run_api"]

_RESET: Final = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
"""SO_LINGER on, for no time: close() sends a reset."""
_KEEP_ALIVE: Final = 75
"""Seconds that an idle connection is kept: longer than clients' pools do, so that it is the client that ends it."""


async def run_api(
    state: ApiState,
    options: ApiOptions,
    hooks: SpaceHooks,
    *,
    token: str,
    listener: Listener | None = None,
    emit: Emit = silent,
    task_status: trio.TaskStatus[TcpAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `started` gives the address. Call it through `nursery.start`.

    `token`: what clients must show. `listener`: one that is open already, instead of one at `options.listen`.
    First the certificates are made that a fresh state lacks. Raises ListenError, and what `hooks` and the state's file
    raise.
    """
    with listener or open_listeners(options.listen) as door:
        for fault in options.parsed_faults():
            state.faults.add(fault)
        calls = Calls(state, hooks)
        calls.make_first_certificates()
        front = Front(calls, token=token, latency=options.latency, emit=emit)
        serve = partial(_serve, front, _config(), WorkerContext(None))
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(partial(door.serve, serve, nursery=nursery, emit=emit))
            task_status.started(addresses[0])


def _config() -> Config:
    config = Config()
    config.accesslog = config.errorlog = None  # it must not write to stderr by itself
    config.include_server_header = False
    config.keep_alive_timeout = _KEEP_ALIVE
    return config


async def _serve(front: Front, config: Config, context: WorkerContext, sock: trio.socket.SocketType) -> None:
    connection = _Connection(sock, front)
    # Hypercorn's types name other dictionaries than Starlette's, and a TLS stream where it takes a plain one too.
    app, stream = ASGIWrapper(cast(Any, connection.call)), cast(Any, connection)
    try:
        with connection.scope:
            await TCPServer(app, config, context, ConnectionState({}), stream)
    finally:
        sock.close()


class _Connection:
    """What hypercorn uses of a stream, so that all its tasks end with the connection.

    By itself it keeps one for an idle connection that the client has closed, and one for a request whose body nobody
    has read.
    """

    def __init__(self, sock: trio.socket.SocketType, front: Front) -> None:
        self.socket = sock
        self.scope = trio.CancelScope()
        self._stream = trio.SocketStream(sock)
        self._front = front
        self._calls = 0

    async def call(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application of this connection."""
        self._calls += 1
        try:
            await self._front({**scope, CUT: self._cut}, receive, send)
        finally:
            self._calls -= 1

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        data = await self._stream.receive_some(max_bytes)
        if not data and not self._calls:
            self.scope.cancel()
        return data

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def send_eof(self) -> None:
        await self._stream.send_eof()

    async def aclose(self) -> None:
        self.scope.cancel()
        await self._stream.aclose()

    async def _cut(self, reset: bool) -> None:
        if reset:
            with suppress(OSError):  # the client was quicker
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await self.aclose()
