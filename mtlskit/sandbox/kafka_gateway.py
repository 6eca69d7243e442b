"""The doors of the space's Kafka: a listener for each broker, and nobody gets in without the add-on's certificate.

Each connection goes through the same stations as at the Postgres gateway: the address, which an IP rule of the Kafka
add-on must cover before a byte is read; the handshake, in which the client must show a certificate of the space's CA
that is not revoked; and then that certificate must be the add-on's current one, which only its config vars have. Then
bytes pass both ways, to the broker that the listener stands for. They are not looked at, but for the client's first
question (`kafka_opening`): what the brokers advertise are these listeners' addresses already.

A broker that is down has nobody at its door: a client that is let in is reset at once.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import trio
from cryptography import x509

from mtlskit.config.values import Endpoint
from mtlskit.errors import UpstreamError
from mtlskit.net.listen import Listener
from mtlskit.sandbox.events import ClientRefused, KafkaClientAdmitted, SessionClosed, UpstreamFailed
from mtlskit.sandbox.forward import forward
from mtlskit.sandbox.kafka_opening import Opening
from mtlskit.sandbox.strangers import Admit, Strangers, everybody, reset
from mtlskit.sandbox.tls import READ_SIZE, TlsStream, handshake_reason
from mtlskit.sandbox.upstream import open_upstream
from mtlskit.telemetry import Emit, silent

__all__ = ["KafkaGateway", "KafkaGatewayConfig"]


@dataclass(frozen=True)
class KafkaGatewayConfig:
    """What the doors are told once, for all of them together. Times are in seconds."""

    max_connections: int = 500
    handshake: float = 10.0
    dial: float = 10.0
    silence: float = 120.0
    """How long a client that no IP rule lets in is held."""
    most_held: int = 100
    """How many of those are held at a time."""


class KafkaGateway:
    """The doors. `run` each of them.

    `is_current` is asked whether a certificate's serial number is the add-on's; `admit` and `newer` are those of
    `Gateway`.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        is_current: Callable[[int], bool],
        admit: Admit = everybody,
        newer: Callable[[], ssl.SSLContext | None] = lambda: None,
        config: KafkaGatewayConfig | None = None,
        emit: Emit = silent,
    ) -> None:
        self.config = config or KafkaGatewayConfig()
        self.emit = emit
        self.is_current = is_current
        self.strangers = Strangers(silence=self.config.silence, most=self.config.most_held)
        self.down: set[int] = set()
        """The brokers whose doors nobody answers."""
        self.connections = 0
        self._context = context
        self._admit = admit
        self._newer = newer

    async def run(
        self,
        broker: int,
        upstream: Endpoint,
        listener: Listener,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves for one broker until cancelled, and closes the listener. Raises ListenError."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            await listener.serve(partial(self._serve, broker, upstream), nursery=nursery, emit=self.emit)

    async def _serve(self, broker: int, upstream: Endpoint, sock: trio.socket.SocketType) -> None:
        peer = await self.strangers.let_in(sock, self._admit, self.emit)
        if peer is None:
            return
        if broker in self.down:
            reset(sock)
            return
        if self.connections >= self.config.max_connections:
            reason = f"{self.connections} clients are connected to the Kafka brokers already"
            self.emit(ClientRefused(peer=str(peer), reason=reason))
            reset(sock)
            return
        self.connections += 1
        self._context = self._newer() or self._context
        try:
            await self._converse(_Visit(broker, upstream, str(peer)), trio.SocketStream(sock))
        finally:
            self.connections -= 1

    async def _converse(self, visit: _Visit, plain: trio.SocketStream) -> None:
        try:
            client = TlsStream.wrap(plain, self._context)
        except trio.BrokenResourceError:  # it has left already
            return
        try:
            with trio.fail_after(self.config.handshake):
                await client.handshake()
            if self._may_enter(visit, client):
                await self._pass(visit, client)
                self.emit(SessionClosed(peer=visit.peer))
        except ssl.SSLError as exc:
            self._refuse(visit, handshake_reason(exc))
        except trio.TooSlowError:
            self._refuse(visit, "it took too long")
        except UpstreamError as exc:
            self.emit(UpstreamFailed(peer=visit.peer, reason=f"Kafka broker {visit.broker}: {exc.sentence}"))
        except (trio.BrokenResourceError, OSError):
            pass  # a client that leaves is no event of its own
        finally:
            await client.aclose()

    def _may_enter(self, visit: _Visit, client: TlsStream) -> bool:
        der = client.socket.getpeercert(binary_form=True)
        # None cannot be, after a handshake that demands one; a door fails closed all the same.
        serial = x509.load_der_x509_certificate(der).serial_number if der is not None else 0
        if not self.is_current(serial):
            self._refuse(visit, f"its certificate (serial {serial:x}) is not the Kafka add-on's")
            return False
        self.emit(KafkaClientAdmitted(peer=visit.peer, broker=visit.broker, serial=f"{serial:x}"))
        return True

    async def _pass(self, visit: _Visit, client: TlsStream) -> None:
        opening = Opening()
        while not opening.finished:
            data = await client.receive_some(READ_SIZE)
            if not data:
                return
            if answer := opening.receive(data):
                await client.send_all(answer)
        async with await open_upstream(visit.upstream, within=self.config.dial) as broker:
            await broker.send_all(opening.rest)
            await forward(client, broker)

    def _refuse(self, visit: _Visit, reason: str) -> None:
        self.emit(ClientRefused(peer=visit.peer, reason=f"Kafka broker {visit.broker}: {reason}"))


@dataclass(frozen=True)
class _Visit:
    broker: int
    upstream: Endpoint
    peer: str
