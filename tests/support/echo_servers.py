"""Small HTTP servers that say what they are told to: echoes of an address, published lists."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio


@dataclass
class Echo:
    """A running server. `callers` are the addresses that have asked, `requests` what they sent."""

    url: str
    callers: list[str] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def answering(answer: bytes | None, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Echo]:
    """A server on 127.0.0.1 that sends these bytes to everybody (None: takes the request and says nothing)."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(_serve, nursery, answer, tls))
        port = listeners[0].socket.getsockname()[1]
        echo = Echo(f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{port}/")
        listeners[0].echo = echo
        yield echo
        nursery.cancel_scope.cancel()


async def _serve(
    nursery: trio.Nursery,
    answer: bytes | None,
    tls: ssl.SSLContext | None,
    task_status: trio.TaskStatus[list[trio.SocketListener]],
) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def handle(plain: trio.SocketStream) -> None:
        echo: Echo = listeners[0].echo  # type: ignore[attr-defined] # put there by `answering`
        echo.callers.append(plain.socket.getpeername()[0])
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream] = plain
        if tls is not None:
            stream = trio.SSLStream(plain, tls, server_side=True, https_compatible=True)
        try:
            async with stream:
                request = b""
                while b"\r\n\r\n" not in request:
                    if not (chunk := await stream.receive_some(4096)):
                        return
                    request += chunk
                echo.requests.append(request)
                if answer is None:
                    await trio.sleep_forever()
                else:
                    await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass  # the caller has gone: it does not trust us, or has had enough

    await trio.serve_listeners(handle, listeners, handler_nursery=nursery, task_status=task_status)


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
