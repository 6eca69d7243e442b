"""A Postgres login seen from the middle: from the StartupMessage to the first ReadyForQuery or ErrorResponse.

Two tasks copy, one a direction; the server's direction goes through `ServerLogin`, which strips SCRAM-SHA-256-PLUS
and says when it is over. Whatever has been read and not forwarded at that moment stays in the buffers here and in
the TLS engine, and is handed to the relay with the sockets.

A failed write towards the server is not the news: under TLS 1.3 a server refuses our certificate after we have
finished our handshake, so our first message may meet a closed socket while the alert that says why waits to be read.
The writing task leaves that to the reading one.

A connection that was made in advance may have died while it waited. Until the server's first message has been passed
on, nothing has happened that the client could notice, so such a login ends with `replay`: begin again on a fresh
connection. The same goes for a server that turns the connection away before it asks for a password because it is full
(53300) or starting or stopping (57P03), which may have changed since. And it goes for silence: a firewall may have
forgotten the connection and drop what we send, so the first byte has a deadline of its own, the dial's.

So that a replay can do nothing twice, the server gets the StartupMessage alone until it has spoken. Whatever a client
has sent in the same breath (a server that trusts it would execute that at once) is held back, in `unsent`.

Where the proxy logs in itself, a `Behalf` answers the server until it lets us in. The client hears nothing before, so
such a login can begin again until then, and what the client sends is held back as long: it must not get between.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

import trio

from mtlskit.config.values import Verify
from mtlskit.errors import Code, UpstreamError, UpstreamLost, UpstreamProtocolError, UpstreamTimeout
from mtlskit.net.dial import Upstream
from mtlskit.net.faults import closed_early, tcp_fault, tls_fault
from mtlskit.proxy.behalf import Behalf, is_about_credential
from mtlskit.wire.postgres.login import LoginEvent, LoginFinished, ServerLogin, VersionNegotiated
from mtlskit.wire.postgres.quiet import QuietWatcher

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
        patience: float | None = None,
        watcher: QuietWatcher | None = None,
        behalf: Behalf | None = None,
    ) -> None:
        """`patience`: the connection was made in advance; the seconds within which its first byte must come.

        `watcher` is shown every byte that passes between client and server, forwarded or not, and can go on from
        there. `behalf` logs in for the client.
        """
        self.client_left = False
        self.to_client = b""
        self.replay = False
        """Set when the login should be begun again on a fresh connection, with `unsent` after the StartupMessage."""
        self.refused: list[LoginEvent] | None = None
        """The server does not take the credential that `behalf` has. What it said is in `to_client`, and what it told
        is here: `on_event` has not heard of it, as the login may be begun again with another credential."""
        self.unsent = b""
        """What the client has sent and the server has not been sent yet."""
        self.bytes_up = self.bytes_down = 0
        """What has been forwarded so far, of the plain side; `to_client` is not in it yet."""
        self._patience = float("inf") if patience is None else patience
        self._binding = trio.Event()
        """The login can no longer begin again: the client has heard the server, or nobody asked for a replay."""
        self._warm = patience is not None
        if patience is None and behalf is None:
            self._binding.set()
        self._behalf = behalf
        self._begun = trio.Event()
        """The StartupMessage is on its way, or could not be sent; from then on `behalf` may send."""
        self.watcher = watcher
        self._client = client
        self._upstream = upstream
        self._on_event = on_event
        self._codec = ServerLogin()
        self._failure: UpstreamError | None = None
        self._heard = False
        self._where = str(upstream.route)
        self._verify: Verify = upstream.identity.verify

    async def run(self, packet: bytes, pipelined: bytes, seconds: float) -> None:
        """Send the StartupMessage, and what the client sent after it, and copy until the login is over.

        Raises UpstreamError. `client_left` says that the client has gone, which is nobody's fault.
        """
        if self.watcher is not None:
            self.watcher.from_client(pipelined)
        if self._binding.is_set():
            packet += pipelined
        else:
            self.unsent = pipelined
        with trio.move_on_after(seconds) as deadline:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._copy_up, packet, nursery.cancel_scope)
                await self._copy_down()
                nursery.cancel_scope.cancel()
        self._conclude(deadline, seconds)

    def _conclude(self, deadline: trio.CancelScope, seconds: float) -> None:
        if self._failure is not None:
            self.replay = self._warm and isinstance(self._failure, UpstreamLost) and not self._binding.is_set()
            if not self.replay:
                raise self._failure
        elif self._codec.finished:
            if self.refused is None:
                self._queue_unsent()
        elif deadline.cancelled_caught:
            raise UpstreamTimeout(
                Code.PG_LOGIN_TIMEOUT,
                f"{self._where} did not finish the login within {seconds:g} s",
                "look at the server's load and log; `timeouts.login` of the tunnel sets how long to wait",
            )

    @property
    def at_boundary(self) -> bool:
        """Whether the client has had whole messages only, so that an ErrorResponse of ours may follow."""
        return self._codec.at_boundary and not self.to_client

    def _queue_unsent(self) -> None:
        """Leave it to the engine, which the relay gets: the login was over before it could be sent."""
        if self.unsent:
            engine = self._upstream.tls.engine
            engine.write(self.unsent)
            engine.unsent += engine.take()
            self.bytes_up += len(self.unsent)
            self.unsent = b""

    async def _copy_up(self, packet: bytes, scope: trio.CancelScope) -> None:
        data = packet
        while data:
            try:
                await self._upstream.tls.send_all(data)
            except (OSError, ssl.SSLError) as exc:
                self._begun.set()
                await trio.sleep(_LAST_WORDS)
                self._failure = self._write_fault(exc)
                scope.cancel()
                return
            self.bytes_up += len(data)
            self._begun.set()
            try:
                # One chunk at most is held back, and then no more is read.
                self.unsent = self.unsent or await self._read_client()
            except OSError:
                break
            if self.unsent:
                await self._binding.wait()
            data, self.unsent = self.unsent, b""
        self.client_left = True
        scope.cancel()

    async def _read_client(self) -> bytes:
        data = await self._client.recv(_CHUNK)
        if self.watcher is not None:
            self.watcher.from_client(data)
        return data

    def _write_fault(self, exc: OSError) -> UpstreamError:
        if isinstance(exc, ssl.SSLError):
            return tls_fault(self._where, exc, self._verify)
        return self._without_a_word() if not self._heard else tcp_fault(self._where, exc)

    async def _copy_down(self) -> None:
        try:
            while not self._codec.finished and not self.client_left:
                self._read(await self._receive_for_client())
                await self._send_to_client()
        except UpstreamProtocolError as exc:
            self.to_client += self._codec.before_fault
            self._failure = exc
            await self._send_to_client()
        except UpstreamError as exc:
            self._failure = exc

    async def _receive_for_client(self) -> bytes:
        """What is the client's of the next read; with `behalf`, only what comes when we are let in."""
        data = await self._receive()
        if self._behalf is None or self._behalf.finished:
            return data
        await self._begun.wait()  # one task sends at a time
        return await self._behalf.receive(data, self._upstream.tls)

    async def _receive(self) -> bytes:
        if self._heard:
            return await self._receive_some()
        with trio.move_on_after(self._patience):
            return await self._receive_some()
        raise UpstreamLost(Code.UPSTREAM_CLOSED, f"{self._where} says nothing on a connection that was made in advance")

    async def _receive_some(self) -> bytes:
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
        if self.watcher is not None:
            self.watcher.from_upstream(data)
        out, events = self._codec.receive(data)
        if self._warm and not self._binding.is_set() and _turned_away(events):
            raise UpstreamLost(Code.UPSTREAM_CLOSED, f"{self._where} turned the connection away")
        if self._behalf is not None and not self._binding.is_set() and is_about_credential(events):
            self.refused = events
            self.to_client += out
            return
        if out:
            self._binding.set()
        self.to_client += out
        for event in events:
            self._on_event(event)

    async def _send_to_client(self) -> None:
        try:
            while self.to_client and not self._codec.finished:
                sent = await self._client.send(self.to_client)
                self.bytes_down += sent
                self.to_client = self.to_client[sent:]
        except OSError:
            # Not left to the task that reads from the client: it may be waiting for a server that does not read.
            self.client_left = True


def _turned_away(events: list[LoginEvent]) -> bool:
    """Whether these first events of a server are a refusal that may have passed, before any authentication.

    PostgreSQL says which protocol version it speaks before it says that it is full.
    """
    match [event for event in events if not isinstance(event, VersionNegotiated)]:
        case [LoginFinished(error=error), *_] if error is not None:
            return error.sqlstate in _PASSING
    return False
