"""A Postgres login seen from the middle: from the StartupMessage to the first ReadyForQuery or ErrorResponse.

Two tasks copy, one a direction; the server's direction goes through `ServerLogin`, which strips SCRAM-SHA-256-PLUS
and says when it is over. Whatever has been read and not forwarded at that moment stays in the buffers here and in
the TLS engine, and is handed to the relay with the sockets.

A failed write towards the server is not the news: under TLS 1.3 a server refuses our certificate after we have
finished our handshake, so our first message may meet a closed socket while the alert that says why waits to be read.
The writing task leaves that to the reading one.

A connection that was made in advance may have died while it waited. Until the server's first message nothing has
happened that the client could notice, so such a login ends with `replay`: the bytes with which to begin again on a
fresh connection. The same goes for a server that turns the connection away before it asks for a password because it is
full (53300) or starting or stopping (57P03), which may have changed since.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio

from mtlskit.config.values import Verify
from mtlskit.errors import Code, UpstreamError, UpstreamLost, UpstreamProtocolError, UpstreamTimeout
from mtlskit.net.dial import Upstream
from mtlskit.net.faults import closed_early, tcp_fault, tls_fault
from mtlskit.wire.postgres.login import LoginEvent, LoginFinished, ServerLogin

__all__ = ["Login"]

_CHUNK = 16 * 1024
"""Bytes read from a client at once during its login: passwords, SASL messages and the first pipelined queries."""

_PASSING = frozenset({"53300", "57P03"})
"""too_many_connections and cannot_connect_now: refusals that another connection, a moment later, may not meet."""

_LAST_WORDS = 2.0
"""Seconds to wait for an alert or an ErrorResponse after a write to the server has failed."""


class Login:
    """One login. `run` returns when it is over; then `to_client` holds what the client has not been sent yet."""

    def __init__(
        self,
        client: trio.socket.SocketType,
        upstream: Upstream,
        on_event: Callable[[LoginEvent], None],
        *,
        replayable: bool = False,
    ) -> None:
        self.client_left = False
        self.to_client = b""
        self.replay: bytes | None = None
        """Set when the login should be begun again on a fresh connection: what the client has sent so far."""
        self._sent: bytes | None = b"" if replayable else None
        """What a fresh connection would have to be sent; None once the server has spoken, or where nobody asked."""
        self._client = client
        self._upstream = upstream
        self._on_event = on_event
        self._codec = ServerLogin()
        self._failure: UpstreamError | None = None
        self._heard = False
        self._where = str(upstream.route)
        self._verify: Verify = upstream.identity.verify

    async def run(self, first: bytes, seconds: float) -> None:
        """Send `first` (the StartupMessage and what followed it) and copy until the login is over.

        Raises UpstreamError. `client_left` says that the client has gone, which is nobody's fault.
        """
        with trio.move_on_after(seconds) as deadline:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy_up, first, nursery.cancel_scope)
                await self._copy_down()
                nursery.cancel_scope.cancel()
        if self._failure is not None:
            if self._sent is None or not isinstance(self._failure, UpstreamLost):
                raise self._failure
            self.replay = self._sent
            return
        if deadline.cancelled_caught:
            raise UpstreamTimeout(
                Code.PG_LOGIN_TIMEOUT,
                f"{self._where} did not finish the login within {seconds:g} s",
                "look at the server's load and log; `timeouts.login` of the tunnel sets how long to wait",
            )

    @property
    def at_boundary(self) -> bool:
        """Whether the client has had whole messages only, so that an ErrorResponse of ours may follow."""
        return self._codec.at_boundary and not self.to_client

    async def _copy_up(self, first: bytes, scope: trio.CancelScope) -> None:
        data = first
        while data:
            if self._sent is not None:
                self._sent += data
            try:
                await self._upstream.tls.send_all(data)
            except (OSError, ssl.SSLError) as exc:
                await trio.sleep(_LAST_WORDS)
                self._failure = self._write_fault(exc)
                scope.cancel()
                return
            try:
                data = await self._client.recv(_CHUNK)
            except OSError:
                break
        self.client_left = True
        scope.cancel()

    def _write_fault(self, exc: OSError) -> UpstreamError:
        if isinstance(exc, ssl.SSLError):
            return tls_fault(self._where, exc, self._verify)
        return self._without_a_word() if not self._heard else tcp_fault(self._where, exc)

    async def _copy_down(self) -> None:
        try:
            while not self._codec.finished and not self.client_left:
                self._read(await self._receive())
                await self._send_to_client()
        except UpstreamProtocolError as exc:
            self.to_client += self._codec.before_fault
            self._failure = exc
            await self._send_to_client()
        except UpstreamError as exc:
            self._failure = exc

    async def _receive(self) -> bytes:
        try:
            data = await self._upstream.tls.receive_some()
        except ssl.SSLError as exc:
            raise tls_fault(self._where, exc, self._verify) from exc
        except OSError as exc:
            raise (tcp_fault(self._where, exc) if self._heard else self._without_a_word()) from exc
        if not data:
            raise closed_early(self._where, "during the login") if self._heard else self._without_a_word()
        self._heard = True
        return data

    def _without_a_word(self) -> UpstreamError:
        return closed_early(self._where, "after the TLS handshake, before its first message,")

    def _read(self, data: bytes) -> None:
        out, events = self._codec.receive(data)
        if self._sent is not None and any(_turned_away(event) for event in events[:1]):
            raise UpstreamLost(Code.UPSTREAM_CLOSED, f"{self._where} turned the connection away")
        if out:
            self._sent = None
        self.to_client += out
        for event in events:
            self._on_event(event)

    async def _send_to_client(self) -> None:
        try:
            while self.to_client and not self._codec.finished:
                sent = await self._client.send(self.to_client)
                self.to_client = self.to_client[sent:]
        except OSError:
            # Not left to the task that reads from the client: it may be waiting for a server that does not read.
            self.client_left = True


def _turned_away(event: LoginEvent) -> bool:
    return isinstance(event, LoginFinished) and event.error is not None and event.error.sqlstate in _PASSING
