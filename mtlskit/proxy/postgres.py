"""A Postgres client's way through a tunnel: its first packets, the upstream, the login, the hand-over to the relay.

The client's leg is plain: SSLRequest and GSSENCRequest are answered `N` on the same connection. Whoever is refused
is refused in the protocol, after the start-up packet has been read, because only then does a client listen.

A session may be begun again, while the client has heard nothing: on a fresh connection where one that was made in
advance was dead, and with a new credential where the proxy logs in itself and was refused with an old one.
"""

from __future__ import annotations

import ssl
from dataclasses import replace

import trio

from mtlskit.config.values import ExpiringSessions
from mtlskit.config.values import Login as LoginMode
from mtlskit.errors import (
    ClientError,
    ClientLimitReached,
    ClientTooSlow,
    Code,
    MtlskitError,
    UpstreamError,
    UpstreamRefusedUs,
)
from mtlskit.net.dial import Route, Upstream
from mtlskit.net.faults import tcp_fault, tls_fault
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import HandOver
from mtlskit.net.tls import detach
from mtlskit.proxy.addon import Known, KnownLogin
from mtlskit.proxy.answers import as_error_response, part_with
from mtlskit.proxy.behalf import Behalf
from mtlskit.proxy.endings import SessionFacts, tell_cut
from mtlskit.proxy.events import (
    CancelFailed,
    CancelForwarded,
    ClientLeft,
    ClientRefused,
    ClientWantsTls,
    LoginRefused,
    SessionFailed,
    SessionOpened,
    described,
)
from mtlskit.proxy.login import Login
from mtlskit.proxy.parts import TunnelParts
from mtlskit.proxy.stay import Stay
from mtlskit.wire.postgres.login import BackendKeyReceived, LoginEvent, LoginFinished
from mtlskit.wire.postgres.quiet import QuietWatcher
from mtlskit.wire.postgres.startup import CancelRequested, EncryptionRequested, StartupReader, StartupReceived

__all__ = ["PostgresSession"]

_STRAY_ADDRESSES = 16
"""How many addresses a cancel request with an unknown key is passed to, at most."""

_SHOWN = 128
"""Characters of a name that reach the log; PostgreSQL itself keeps 63 bytes, and a client may send 10,000."""

_SHOWN_ERROR = 1000
"""Characters of a server's error message that reach the log."""


class PostgresSession:
    """One client. `serve` owns the socket."""

    def __init__(self, parts: TunnelParts, sock: trio.socket.SocketType, peer: str, stay: Stay) -> None:
        self._parts = parts
        self._sock = sock
        self._peer = peer
        self._user = ""
        self._database = ""
        self._wanted_tls = False
        self._stay = stay
        self._dialled_for: Known | None = None
        """What was known when the connection was begun; None for one that was made in advance."""
        self._asked_again = False
        """Heroku has been asked about a credential that was refused; once is enough for one client."""
        self._answerable = True
        """An ErrorResponse of ours may be sent: the client is not in the middle of a message of the server's."""

    async def serve(self, refusal: ClientError | None) -> None:
        """Bring the client to its session, or close its socket. `refusal`: it may not come in, and is told why.

        Raises nothing of ours: every failure has been told to the client and to the log.
        """
        with self._sock:
            try:
                reader = StartupReader()
                opening = await self._read_opening(reader)
                if opening is None:
                    left = ClientWantsTls if self._wanted_tls else ClientLeft
                    self._parts.emit(left(tunnel=self._parts.config.name, client=self._peer))
                    return
                # A tunnel that is full must still cancel queries: it is how it becomes less full.
                full = isinstance(refusal, ClientLimitReached)
                if refusal is not None and not (full and isinstance(opening, CancelRequested)):
                    raise refusal
                if isinstance(opening, CancelRequested):
                    await self._cancel(opening)
                else:
                    await self._session(opening, reader.trailing)
            except ClientError as exc:
                self._tell(ClientRefused, exc)
                await part_with(self._sock, as_error_response(exc))
            except MtlskitError as exc:
                self._tell(SessionFailed, exc)
                await part_with(self._sock, as_error_response(exc) if self._answerable else b"")

    def _tell(self, event: type[ClientRefused | SessionFailed | CancelFailed], exc: MtlskitError) -> None:
        self._parts.emit(event(tunnel=self._parts.config.name, client=self._peer, **described(exc)))

    # The client's first packets.

    async def _read_opening(self, reader: StartupReader) -> StartupReceived | CancelRequested | None:
        seconds = self._parts.config.timeouts.startup
        with trio.move_on_after(seconds):
            try:
                return await self._next_opening(reader)
            except OSError:
                return None
        raise ClientTooSlow(
            Code.PG_CLIENT_TOO_SLOW,
            f"no complete start-up packet within {seconds:g} s",
            "this door speaks the Postgres protocol; `timeouts.startup` of the tunnel sets how long to wait",
        )

    async def _next_opening(self, reader: StartupReader) -> StartupReceived | CancelRequested | None:
        while True:
            event = reader.next_event()
            if isinstance(event, EncryptionRequested):
                self._wanted_tls |= event.kind == "ssl"
                await self._sock.send(b"N")
            elif event is not None:
                return event
            else:
                data = await self._sock.recv(16 * 1024)
                if not data:
                    return None
                reader.receive(data)

    # A session.

    async def _session(self, opening: StartupReceived, trailing: bytes) -> None:
        parts = self._parts
        if parts.draining:
            raise ClientLimitReached(
                Code.DOOR_DRAINING,
                f"tunnel {parts.config.name} is stopping",
                "connect again when it has been restarted",
            )
        self._user = opening.parameters.get("user", "")[:_SHOWN]
        self._database = opening.parameters.get("database", self._user)[:_SHOWN]
        began = trio.current_time()
        # A client that gives up meanwhile is not watched for: its patience may be shorter than the dial's, and then
        # the reason why it waited in vain would never reach the log. The dial has a deadline of its own.
        again: bytes | None = trailing
        warm = parts.warm.take() if parts.warm is not None else None
        if warm is not None:
            self._stay.serial = warm.identity.serial
            again = await self._converse(warm, opening, trailing, began, warm=True)
            if again is not None and parts.warm is not None and not self._asked_again:
                parts.warm.proved_dead(began)
        while again is not None:
            self._stay.serial = parts.identity.serial
            self._dialled_for = None if parts.follower is None else parts.follower.known
            again = await self._converse(await parts.dial(), opening, again, began, warm=False)

    async def _converse(
        self, upstream: Upstream, opening: StartupReceived, pipelined: bytes, began: float, *, warm: bool
    ) -> bytes | None:
        """One session on one connection, which is handed over or closed.

        Not None: the session should be begun again, and what to send after the packet then.
        """
        behalf = self._behalf(opening, upstream.route)
        packet = opening.packet if behalf is None else behalf.packet
        facts = SessionFacts(
            self._parts.config.name,
            self._peer,
            str(upstream.route),
            began,
            user=self._user,
            database=self._database,
            identity=upstream.identity,
        )
        try:
            self._tell_opened(facts, upstream.tls.engine.version, warm=warm)
            login = await self._log_in(upstream, packet, pipelined, behalf, warm=warm)
            if login.client_left:
                self._parts.emit(ClientLeft(tunnel=facts.tunnel, client=facts.client))
                return None
            if login.replay or (login.refused is not None and await self._has_news(behalf)):
                return login.unsent
            for event in login.refused or ():
                self._note(event, upstream.route)
            if login.refused is not None and behalf is not None:
                self._explain(behalf, upstream.route)
            facts = replace(facts, bytes_up=login.bytes_up, bytes_down=login.bytes_down)
            await self._hand_over(upstream, login, facts)
            return None
        finally:
            upstream.tls.close()

    def _explain(self, behalf: Behalf, route: Route) -> None:
        """Raise what the client should hear instead of a refusal of a password that it has never sent.

        Only where Heroku could not be asked for a newer one; else the server's own words say it best.
        """
        follower = self._parts.follower
        if follower is None or follower.failure is None:
            return
        failure = follower.failure
        raise UpstreamRefusedUs(
            failure.code,
            f"{route} refuses the credential of {follower.addon} (user {behalf.user}), and Heroku could not be asked"
            f" for a newer one: {failure.sentence}",
            failure.hint,
        )

    def _behalf(self, opening: StartupReceived, route: Route) -> Behalf | None:
        """Who logs in for the client, if that is what the tunnel does, with what is known now.

        But where the database moved while we dialled, the credential goes with the place: what is known now is not
        the old one's, and if that has already been locked, this is news enough to begin again.
        """
        parts, before = self._parts, self._dialled_for
        known = None if parts.follower is None else parts.follower.known
        if parts.config.login is not LoginMode.HEROKU or not isinstance(known, KnownLogin):
            return None
        if isinstance(before, KnownLogin) and route.endpoint == before.endpoint != known.endpoint:
            known = before
        behalf = Behalf(known, opening)
        self._user, self._database = behalf.user[:_SHOWN], behalf.database[:_SHOWN]
        return behalf

    async def _has_news(self, behalf: Behalf | None) -> bool:
        """Whether Heroku has another credential than the one that was refused."""
        if behalf is None or self._parts.follower is None or self._asked_again:
            return False
        self._asked_again = True
        return await self._parts.follower.newer_than(behalf.known)

    async def _log_in(
        self, upstream: Upstream, packet: bytes, pipelined: bytes, behalf: Behalf | None, *, warm: bool
    ) -> Login:
        def note(event: LoginEvent) -> None:
            self._note(event, upstream.route)

        config = self._parts.config
        timeouts = config.timeouts
        watcher = QuietWatcher() if config.expiring_sessions is ExpiringSessions.DRAIN else None
        patience = timeouts.dial if warm else None
        login = Login(self._sock, upstream, note, patience=patience, watcher=watcher, behalf=behalf)
        try:
            await login.run(packet, pipelined, timeouts.login)
        except UpstreamError:
            self._answerable = login.at_boundary
            raise
        return login

    async def _hand_over(self, upstream: Upstream, login: Login, facts: SessionFacts) -> None:
        try:
            await trio.lowlevel.checkpoint()  # see `Established.take_over`
        except trio.Cancelled:
            tell_cut(self._parts.emit, facts)
            raise
        sock, engine = upstream.tls.detach()
        handover = HandOver(
            detach(self._sock), sock, engine, login.to_client, self._parts.policy, observer=login.watcher
        )
        self._parts.established.take_over(handover, facts, self._stay, tunnel=self._parts)

    def _tell_opened(self, facts: SessionFacts, tls: str, *, warm: bool) -> None:
        self._parts.emit(SessionOpened(**facts.told(), tls=tls, warm=warm))

    def _note(self, event: LoginEvent, route: Route) -> None:
        match event:
            case BackendKeyReceived(process_id, secret):
                self._stay.note_key((process_id, secret), route)
            case LoginFinished(ready=False, error=error) if error is not None:
                self._parts.emit(
                    LoginRefused(
                        tunnel=self._parts.config.name,
                        client=self._peer,
                        user=self._user,
                        database=self._database,
                        sqlstate=error.sqlstate,
                        reason=error.message[:_SHOWN_ERROR],
                    )
                )

    # A cancel request.

    async def _cancel(self, request: CancelRequested) -> None:
        """Pass it on and hold the client until the server has closed, as libpq expects."""
        parts = self._parts
        known = parts.cancel_keys.route_of(request.process_id, request.secret)
        if known is not None:
            routes = [known]
        elif parts.stray_cancels.take(trio.current_time()):
            routes = await self._every_route()
        else:
            hint = "nothing to do, unless it goes on: then a client of this tunnel cancels what it never started"
            busy = ClientError(Code.PG_CANCEL_BUSY, "too many cancel requests with keys that are not ours", hint)
            self._tell(CancelFailed, busy)
            return
        reached: list[str] = []
        identity = parts.identity
        self._stay.serial = identity.serial
        async with trio.open_nursery() as nursery:
            for route in routes:
                nursery.start_soon(self._cancel_at, route, identity, request.packet, reached)
        if reached:
            passed = tuple(sorted(reached))
            parts.emit(
                CancelForwarded(tunnel=parts.config.name, client=self._peer, upstream=passed, known=known is not None)
            )

    async def _every_route(self) -> list[Route]:
        """Those that have sessions first: most likely the key is one of theirs, and its session has just ended."""
        alive = sorted(self._parts.cancel_keys.routes(), key=str)
        current: set[Route] = set()
        with trio.move_on_after(self._parts.config.timeouts.dial):
            try:
                current = await self._parts.dialler.resolve()
            except UpstreamError as exc:
                if not alive:
                    self._tell(CancelFailed, exc)
        return [*alive, *sorted(current.difference(alive), key=str)][:_STRAY_ADDRESSES]

    async def _cancel_at(self, route: Route, identity: IdentitySnapshot, packet: bytes, reached: list[str]) -> None:
        try:
            upstream = await self._parts.dialler.dial_route(route, identity)
        except UpstreamError as exc:
            self._tell(CancelFailed, exc)
            return
        try:
            with trio.move_on_after(self._parts.config.timeouts.dial):
                await upstream.tls.send_all(packet)
                await _until_closed(upstream)
            reached.append(str(route))
        except ssl.SSLError as exc:
            self._tell(CancelFailed, tls_fault(str(route), exc, upstream.identity.verify))
        except OSError as exc:
            self._tell(CancelFailed, tcp_fault(str(route), exc))
        finally:
            upstream.tls.close()


async def _until_closed(upstream: Upstream) -> None:
    """Read until the server closes, one way or another: then it has dealt with the request.

    Raises `ssl.SSLError` for an alert: under TLS 1.3 a refusal of our certificate comes with the first read.
    """
    try:
        while await upstream.tls.receive_some():
            pass
    except ssl.SSLError:
        raise
    except OSError:
        return
