"""A Kafka client's way through a tunnel: to the broker whose listener it came to, behind the codec."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import trio

from mtlskit.errors import ClientLimitReached, Code, MtlskitError, UpstreamError
from mtlskit.net.dial import Upstream
from mtlskit.net.relay import Codec
from mtlskit.proxy.kafka.brokers import BOOTSTRAP, Broker, Brokers
from mtlskit.proxy.kafka.outage import Outage
from mtlskit.proxy.parts import TunnelParts
from mtlskit.proxy.stay import Stay
from mtlskit.proxy.tcp import TcpSession
from mtlskit.wire.kafka.session import KafkaSession

__all__ = ["BrokerSession"]


class BrokerSession(TcpSession):
    """One client. `broker` is None for one that has come to the tunnel's own listener, which leads to any broker.

    The protocol has no way to say why a connection is refused: clients see its end, and the log says why.
    """

    def __init__(
        self,
        parts: TunnelParts,
        sock: trio.socket.SocketType,
        peer: str,
        stay: Stay,
        *,
        brokers: Brokers,
        broker: Broker | None,
    ) -> None:
        super().__init__(parts, sock, peer, stay)
        self._brokers = brokers
        self._broker = broker

    @property
    def _outage(self) -> Outage:
        return self._brokers.outage if self._broker is None else self._broker.outage

    async def _dial(self) -> Upstream:
        parts, broker = self._parts, self._broker
        if parts.draining:
            raise ClientLimitReached(
                Code.DOOR_DRAINING,
                f"tunnel {parts.config.name} is stopping",
                "connect again when it has been restarted",
            )
        if broker is None:
            upstream = await parts.dial()
        else:
            self._brokers.check_way(broker)
            upstream = await broker.dialler.dial(parts.identity)
        self._outage.worked()
        return upstream

    def _broker_of(self, upstream: Upstream) -> tuple[str, str]:
        if self._broker is None:
            return BOOTSTRAP, ""
        # Not where the broker is by now: it may have moved while we dialled.
        return str(self._broker.node_id), str(upstream.route.endpoint)

    def _codec(self) -> Codec:
        brokers = self._brokers
        reached = str(self._sock.getsockname()[0])
        return KafkaSession(
            partial(brokers.resolve, reached),
            notice=brokers.notice,
            denied=brokers.denials.hear,
            listed=brokers.listed,
        )

    def _unheard(self) -> Callable[[UpstreamError], None]:
        return self._turned_away

    def _failed(self, exc: MtlskitError) -> None:
        if isinstance(exc, UpstreamError):
            self._outage.failed(exc, trio.current_time())
            self._brokers.ask_again()
        else:
            super()._failed(exc)

    def _turned_away(self, exc: UpstreamError) -> None:
        """The broker ended the session before it said a word. With TLS 1.3 that is how it refuses a certificate."""
        if self._broker is None:
            self._parts.failed = exc, datetime.now(UTC)
        self._outage.failed_after_all(exc, trio.current_time())
        self._brokers.ask_again()
