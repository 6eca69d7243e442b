"""A real server on loopback that answers each connection in its own bad way."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

__all__ = ["Manner", "TcpApi", "answering", "read_request", "tcp_api"]

Manner: TypeAlias = Callable[[trio.abc.Stream], Awaitable[None]]
"""What becomes of one connection; it is closed afterwards."""


@dataclass
class TcpApi:
    """A running server: connections take the manners in turn, the last one for ever."""

    port: int
    manners: list[Manner]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        """For plain http."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection."""
        manner = self.manners[min(self.connections, len(self.manners) - 1)]
        self.connections += 1
        async with stream:
            # The client may go away first: some tests want just that.
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await manner(stream)


@asynccontextmanager
async def tcp_api(*manners: Callable[[TcpApi], Manner]) -> AsyncIterator[TcpApi]:
    """Each manner is made for the server that it is part of."""
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        api = TcpApi(port=listener.socket.getsockname()[1], manners=[])
        api.manners += [make(api) for make in manners]
        nursery.start_soon(trio.serve_listeners, api.serve, [listener])
        yield api
        nursery.cancel_scope.cancel()


async def read_request(api: TcpApi, stream: trio.abc.Stream) -> bool:
    """Read one request whole and keep it. False: the client has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = await stream.receive_some()
        if not chunk:
            return False
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length is not None and len(body) < int(length[1]):
        body += await stream.receive_some()
    api.requests.append(head + b"\r\n\r\n" + body)
    return True


def answering(*parts: bytes, keep: bool = False) -> Callable[[TcpApi], Manner]:
    """Read a request, then send these bytes; `keep`: so for each request of the connection."""

    def make(api: TcpApi) -> Manner:
        async def manner(stream: trio.abc.Stream) -> None:
            while await read_request(api, stream):
                for part in parts:
                    await stream.send_all(part)
                if not keep:
                    return

        return manner

    return make
