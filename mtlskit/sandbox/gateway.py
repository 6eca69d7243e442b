"""The space's door: a Postgres gateway that answers to client certificates only.

Each connection goes through the same stations, and the first that objects ends it:

0. *The address*, before a byte is read: one that no IP rule covers gets no answer at all (`strangers`).
1. *Encryption.* SSLRequest is answered `S` and GSSENCRequest `N`; a first byte of 0x16 is a ClientHello (direct TLS,
   PostgreSQL 17, which demands the ALPN protocol `postgresql`). A StartupMessage in plain text is answered as a
   pg_hba.conf with nothing but `hostssl` lines would: FATAL 28000. A CancelRequest in plain text is dropped: PostgreSQL
   would take it, but behind this door nothing is reached without a certificate. Bytes that follow the SSLRequest
   before its answer are refused (CVE-2021-23214): they could pass for bytes of the TLS connection.
2. *The handshake.* The client must have a certificate of the space's CA that is not on its revocation list. The
   client is told with the alert that a real server would send.
3. *Login* (`gateway_login`), then bytes both ways.

Refusing one client never ends the others: every error of a conversation ends in its own task, and is an event.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio
from cryptography import x509

from mtlskit.config.values import TcpAddress
from mtlskit.errors import ClientProtocolError, UpstreamError
from mtlskit.net.listen import Listener
from mtlskit.pki.certificates import subject_text
from mtlskit.sandbox.events import (
    CancelForwarded,
    ChannelBindingVerified,
    ClientAdmitted,
    ClientRefused,
    GatewayReady,
    SessionClosed,
    UpstreamFailed,
)
from mtlskit.sandbox.forward import forward
from mtlskit.sandbox.gateway_login import ClientGoneError, Login, LoginRefusedError, scram_failure
from mtlskit.sandbox.strangers import Admit, Strangers, everybody
from mtlskit.sandbox.tls import READ_SIZE, TlsStream, close_politely, handshake_reason
from mtlskit.sandbox.upstream import Upstream, open_upstream
from mtlskit.telemetry import Emit, silent
from mtlskit.wire.postgres.messages import error_response
from mtlskit.wire.postgres.scram import ScramError
from mtlskit.wire.postgres.startup import CancelRequested, EncryptionRequested, StartupReader, StartupReceived

__all__ = ["ALPN", "ANY_PORT", "Gateway", "GatewayConfig", "ServerTls", "tcp_address"]

ALPN: Final = "postgresql"
ANY_PORT: Final = TcpAddress("127.0.0.1", 0)
_TLS_HANDSHAKE: Final = b"\x16"


@dataclass(frozen=True)
class GatewayConfig:
    """What a gateway is told once. Times are in seconds."""

    upstream: Upstream
    passwords: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Passwords by user: for these SCRAM-SHA-256-PLUS is offered and can be kept."""
    max_connections: int = 500
    handshake: float = 10.0
    """Until TLS is established and the StartupMessage is complete."""
    login: float = 60.0
    """Until the rest may pass untouched: PostgreSQL's own authentication_timeout."""
    dial: float = 10.0
    silence: float = 120.0
    """How long a client that no IP rule lets in is held: about as long as Linux tries to connect."""
    most_held: int = 100
    """How many of those are held at a time. A full gateway has two descriptors for each client; both together should
    stay near what a process may have, for one without descriptors lets nobody in."""


@dataclass(frozen=True)
class ServerTls:
    """The gateway's context, and what its certificate contributes to channel binding."""

    context: ssl.SSLContext = field(repr=False)
    binding: bytes


class Gateway:
    """A gateway. `run` it; `replace_tls` changes what new connections meet.

    `admit` is asked about each client's address before anything else. `newer` is asked before each connection that it
    lets in, and gives another context when the revocation list has changed.
    """

    def __init__(
        self,
        config: GatewayConfig,
        tls: ServerTls,
        *,
        admit: Admit = everybody,
        newer: Callable[[], ServerTls | None] = lambda: None,
        emit: Emit = silent,
    ) -> None:
        self.config = config
        self.emit = emit
        self.tls = tls
        self.strangers = Strangers(silence=config.silence, most=config.most_held)
        self._admit = admit
        self._newer = newer
        self.connections = 0
        """Clients that an IP rule lets in. Others are counted apart, and cannot take their places."""

    def replace_tls(self, tls: ServerTls) -> None:
        """New connections use this one: a revocation list has changed."""
        self.tls = tls

    async def run(
        self, listener: Listener, *, task_status: trio.TaskStatus[TcpAddress] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serves on an open TCP listener until cancelled, and closes it. Gives the real address. Raises ListenError."""
        address = tcp_address(listener)
        self.emit(GatewayReady(address=str(address)))
        async with trio.open_nursery() as nursery:
            task_status.started(address)
            await listener.serve(self._serve, nursery=nursery, emit=self.emit)

    async def _serve(self, sock: trio.socket.SocketType) -> None:
        if await self.strangers.let_in(sock, self._admit, self.emit) is None:
            return
        self.connections += 1
        self.tls = self._newer() or self.tls
        try:
            await _Conversation(self, trio.SocketStream(sock)).run()
        finally:
            self.connections -= 1


class _RefusedError(Exception):
    """The gateway itself turns the client away; `packet` is what it is told, if it can be told."""

    def __init__(self, reason: str, packet: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.packet = packet


class _Conversation:
    """One connection. `_stream` is what the client is talked to over: plain at first, later TLS."""

    def __init__(self, gateway: Gateway, stream: trio.SocketStream) -> None:
        self._gateway = gateway
        self._config = gateway.config
        self._tls = gateway.tls  # one snapshot for the whole conversation
        self._plain = stream
        self._stream: trio.SocketStream | TlsStream = stream
        self._peer = "a client"
        self._host = ""
        self._user = ""

    async def run(self) -> None:
        try:
            self._host, port = self._plain.socket.getpeername()[:2]
            self._peer = str(TcpAddress(self._host, port))
            await self._converse()
        except _RefusedError as refused:
            await self._refuse(refused.reason, refused.packet)
        except ScramError as failed:
            packet = error_response(
                sqlstate=failed.sqlstate, message=scram_failure(failed, self._user), detail=failed.detail
            )
            await self._refuse(f"{failed.message} (user {self._user})", packet)
        except ClientProtocolError as failed:
            await self._refuse(failed.sentence, error_response(sqlstate="08P01", message=failed.sentence))
        except LoginRefusedError as refused:
            await self._tell(refused.packet)
        except UpstreamError as failed:
            reason = f"{failed.sentence} ({failed.hint})" if failed.hint else failed.sentence
            self._gateway.emit(UpstreamFailed(peer=self._peer, reason=reason))
            await self._tell(error_response(sqlstate="08006", message=failed.sentence, hint=failed.hint))
        except trio.TooSlowError:
            await self._refuse("it took too long", b"")
        except (ClientGoneError, trio.BrokenResourceError, OSError):
            pass  # a client that leaves is no event of its own
        finally:
            await self._close()

    async def _converse(self) -> None:
        with trio.fail_after(self._config.handshake):
            if self._gateway.connections > self._config.max_connections:
                raise _refusal("53300", "sorry, too many clients already")
            tls = await self._encrypt()
            if tls is None:
                return
            self._admit(tls)
            opening, trailing = await self._read_opening()
        if isinstance(opening, CancelRequested):
            await self._cancel(opening)
        elif isinstance(opening, StartupReceived):
            await self._session(opening, trailing)
        self._gateway.emit(SessionClosed(peer=self._peer))

    async def _encrypt(self) -> TlsStream | None:
        """Brings the connection to TLS. None where the client left without a word (a health check does)."""
        first = await self._plain.socket.recv(1, socket.MSG_PEEK)
        direct = first == _TLS_HANDSHAKE
        if not first or (not direct and not await self._negotiate()):
            return None
        secured = TlsStream.wrap(self._plain, self._tls.context)
        self._stream = secured
        try:
            await secured.handshake()
        except ssl.SSLError as exc:
            raise _RefusedError(handshake_reason(exc)) from exc
        if direct and secured.socket.selected_alpn_protocol() != ALPN:
            raise _RefusedError(f"direct TLS without the ALPN protocol {ALPN}")
        return secured

    async def _negotiate(self) -> bool:
        """Answers requests for encryption until the one for TLS. False where the client left."""
        reader, received = StartupReader(), 0
        while data := await self._plain.receive_some(READ_SIZE):
            received += len(data)
            reader.receive(data)
            event = reader.next_event()
            match event:
                case None:
                    continue
                case EncryptionRequested(kind):
                    received -= 8  # the length of either request
                    if received:
                        raise _refusal("08P01", f"received unencrypted data after {kind.upper()} request")
                    await self._plain.send_all(b"S" if kind == "ssl" else b"N")
                    if kind == "ssl":
                        return True
                case StartupReceived(parameters=parameters):
                    user, database = parameters.get("user", ""), parameters.get("database", parameters.get("user", ""))
                    where = f'host "{self._host}", user "{user}", database "{database}"'
                    raise _refusal("28000", f"no pg_hba.conf entry for {where}, no encryption")
                case CancelRequested():
                    raise _RefusedError("a CancelRequest without TLS")
        return False

    def _admit(self, tls: TlsStream) -> None:
        der = tls.socket.getpeercert(binary_form=True)
        if der is None:  # CERT_REQUIRED rules it out; a door fails closed all the same
            raise _refusal("28000", "connection requires a valid client certificate")
        certificate = x509.load_der_x509_certificate(der)
        self._gateway.emit(
            ClientAdmitted(
                peer=self._peer,
                subject=subject_text(certificate),
                serial=f"{certificate.serial_number:x}",
                tls=tls.socket.version() or "TLS",
            )
        )

    async def _read_opening(self) -> tuple[CancelRequested | StartupReceived, bytes]:
        """The packet that says what the client wants, and what it sent after it without waiting."""
        reader = StartupReader()
        while data := await self._stream.receive_some(READ_SIZE):
            reader.receive(data)
            event = reader.next_event()
            if isinstance(event, EncryptionRequested):
                # What a general TLS tunnel does to a libpq client: its local SSLRequest arrives inside TLS.
                raise _refusal("0A000", f"unsupported frontend protocol: {event.kind.upper()} request inside TLS")
            if event is not None:
                return event, reader.trailing
        raise ClientGoneError

    async def _cancel(self, request: CancelRequested) -> None:
        with trio.move_on_after(self._config.login):
            server = await self._dial()
            async with server:
                await server.send_all(request.packet)
                self._gateway.emit(CancelForwarded(peer=self._peer))
                # The server closes when the signal is sent; the client waits for that.
                await server.receive_some(1)

    async def _session(self, startup: StartupReceived, trailing: bytes) -> None:
        self._user = startup.parameters.get("user", "")
        server = await self._dial()
        async with server:
            login = Login(
                self._stream,
                server,
                user=self._user,
                passwords=self._config.passwords,
                binding=self._tls.binding,
                received=trailing,
            )
            with trio.fail_after(self._config.login):
                await server.send_all(startup.packet)
                if await login.run():
                    self._gateway.emit(ChannelBindingVerified(peer=self._peer, user=self._user))
            await forward(self._stream, server, from_server=login.rewrite)

    async def _dial(self) -> trio.SocketStream:
        return await open_upstream(self._config.upstream, within=self._config.dial)

    async def _refuse(self, reason: str, packet: bytes) -> None:
        self._gateway.emit(ClientRefused(peer=self._peer, reason=reason))
        await self._tell(packet)

    async def _tell(self, packet: bytes) -> None:
        if packet:
            with trio.move_on_after(self._config.handshake), suppress(trio.BrokenResourceError, OSError):
                await self._stream.send_all(packet)

    async def _close(self) -> None:
        if isinstance(self._stream, TlsStream):
            await self._stream.aclose()
        else:
            await close_politely(self._stream)


def _refusal(sqlstate: str, message: str) -> _RefusedError:
    return _RefusedError(message, error_response(sqlstate=sqlstate, message=message))


def tcp_address(listener: Listener) -> TcpAddress:
    """Where an open TCP listener listens: of `localhost`, which is two addresses, the first."""
    return next(address for address in listener.addresses if isinstance(address, TcpAddress))
