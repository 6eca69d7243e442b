"""A deliberately naive TLS bridge, to show what does not work.

It does what a general-purpose TLS tunnel does for Postgres: SSLRequest and mutual TLS towards the server, then bytes as
they come. So the server's offer of SCRAM-SHA-256-PLUS reaches a client whose own leg is plain, and libpq gives up: it
takes the offer for a sign that somebody has removed the TLS. The real proxy strips the offer; nothing else differs.

(It does answer the client's own SSLRequest with `N`. Many a tunnel does not even do that, and libpq's default
sslmode then fails before there is an offer to fail at.)
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import trio

from mtlskit.config.values import Endpoint, TcpAddress
from mtlskit.errors import ClientProtocolError, Code, UpstreamError, UpstreamRefusedUs
from mtlskit.net.listen import open_listeners
from mtlskit.sandbox.forward import forward
from mtlskit.sandbox.gateway import ANY_PORT, tcp_address
from mtlskit.sandbox.tls import READ_SIZE, TlsStream, close_politely
from mtlskit.sandbox.upstream import open_upstream
from mtlskit.wire.postgres.messages import SSL_REQUEST, error_response
from mtlskit.wire.postgres.startup import EncryptionRequested, StartupReader

__all__ = ["run_naive_bridge"]

_DEADLINE = 10.0
"""Seconds, for the client's start-up and for reaching the server."""


async def run_naive_bridge(
    upstream: Endpoint,
    *,
    ca: Path,
    cert: Path,
    key: Path,
    listen: TcpAddress = ANY_PORT,
    task_status: trio.TaskStatus[TcpAddress] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves until cancelled; gives the address it listens on. Raises ListenError."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    context.load_cert_chain(cert, key)
    listener = open_listeners(listen)

    async def serve(sock: trio.socket.SocketType) -> None:
        client = trio.SocketStream(sock)
        try:
            await _bridge(client, upstream, context)
        except UpstreamError as exc:
            with suppress(trio.BrokenResourceError):
                await client.send_all(error_response(sqlstate="08006", message=exc.sentence))
        except (ClientProtocolError, trio.BrokenResourceError, trio.TooSlowError, OSError):
            pass  # the client sees the end of its connection: naive
        finally:
            await close_politely(client)

    async with trio.open_nursery() as nursery:
        task_status.started(tcp_address(listener))
        await listener.serve(serve, nursery=nursery)


async def _bridge(client: trio.SocketStream, upstream: Endpoint, context: ssl.SSLContext) -> None:
    with trio.fail_after(_DEADLINE):
        opening = await _read_opening(client)
        if opening is None:
            return
        server = await _dial(upstream, context)
    async with server:
        await server.send_all(opening)
        await forward(client, server)


async def _read_opening(client: trio.SocketStream) -> bytes | None:
    reader = StartupReader()
    while data := await client.receive_some(READ_SIZE):
        reader.receive(data)
        while (event := reader.next_event()) is not None:
            if not isinstance(event, EncryptionRequested):
                return event.packet + reader.trailing
            await client.send_all(b"N")
    return None


async def _dial(upstream: Endpoint, context: ssl.SSLContext) -> TlsStream:
    plain = await open_upstream(upstream, within=_DEADLINE)
    await plain.send_all(SSL_REQUEST)
    if await plain.receive_some(1) != b"S":
        await trio.aclose_forcefully(plain)
        raise UpstreamRefusedUs(Code.TLS_NOT_OFFERED, f"{upstream} offers no TLS")
    stream = TlsStream.wrap(plain, context, server_hostname=upstream.host)
    try:
        await stream.handshake()
    except ssl.SSLError as exc:
        await trio.aclose_forcefully(stream)
        raise UpstreamRefusedUs(Code.TLS_HANDSHAKE_FAILED, f"no TLS with {upstream}: {exc.reason or exc}") from exc
    return stream
