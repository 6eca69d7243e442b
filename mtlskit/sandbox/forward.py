"""Bytes both ways between a client and a server, until one of them is done.

A client's end of file is handed on as a half-close, and the server may still finish what it has to say; PostgreSQL
then ends the session. Where the server's side is TLS there is no half-close, and a client's end of file ends all. A
server's end of file ends all once its last bytes have been handed on. Each direction holds one read (64 KiB) at most:
a slow reader stops the other side's reads.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from mtlskit.errors import UpstreamProtocolError
from mtlskit.sandbox.tls import READ_SIZE

__all__ = ["forward"]

_LINGER = 10.0
"""Seconds that the server has after the client's end of file."""


async def forward(
    client: trio.abc.Stream,
    server: trio.abc.Stream,
    *,
    from_server: Callable[[bytes], bytes] = bytes,
) -> None:
    """Forwards until the server has ended, or a connection breaks. Closes neither; `from_server` may rewrite.

    Raises the UpstreamProtocolError that `from_server` raises.
    """
    failure: UpstreamProtocolError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_to_server, client, server, nursery.cancel_scope)
        try:
            await _to_client(server, client, from_server)
        except UpstreamProtocolError as exc:  # raised below, where the nursery does not wrap it into a group
            failure = exc
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _to_server(client: trio.abc.Stream, server: trio.abc.Stream, scope: trio.CancelScope) -> None:
    try:
        while data := await client.receive_some(READ_SIZE):
            await server.send_all(data)
        if isinstance(server, trio.abc.HalfCloseableStream):
            await server.send_eof()
            scope.deadline = trio.current_time() + _LINGER
        else:
            scope.cancel()
    except trio.BrokenResourceError:
        scope.cancel()


async def _to_client(server: trio.abc.Stream, client: trio.abc.Stream, rewrite: Callable[[bytes], bytes]) -> None:
    try:
        while data := await server.receive_some(READ_SIZE):
            await client.send_all(rewrite(bytes(data)))
    except trio.BrokenResourceError:
        return
