"""A client's way through a tunnel that has nothing to say to it: the upstream, and the hand-over to the relay."""

from __future__ import annotations

from collections.abc import Callable

import trio

from mtlskit.errors import ClientError, MtlskitError, UpstreamError
from mtlskit.net.dial import Upstream
from mtlskit.net.relay import Codec, HandOver
from mtlskit.net.tls import detach
from mtlskit.proxy.endings import SessionFacts, tell_cut
from mtlskit.proxy.events import ClientRefused, SessionFailed, SessionOpened, described
from mtlskit.proxy.parts import TunnelParts
from mtlskit.proxy.stay import Stay

__all__ = ["TcpSession"]


class TcpSession:
    """One client. `serve` owns the socket. There is no protocol to answer in: the log says why."""

    def __init__(self, parts: TunnelParts, sock: trio.socket.SocketType, peer: str, stay: Stay) -> None:
        self._parts = parts
        self._sock = sock
        self._peer = peer
        self._stay = stay

    async def serve(self, refusal: ClientError | None) -> None:
        """Bring the client to its session, or close its socket. Raises nothing of ours."""
        name = self._parts.config.name
        with self._sock:
            try:
                if refusal is not None:
                    raise refusal
                await self._session(name)
            except ClientError as exc:
                self._parts.emit(ClientRefused(tunnel=name, client=self._peer, **described(exc)))
            except MtlskitError as exc:
                self._failed(exc)

    async def _session(self, name: str) -> None:
        parts = self._parts
        began = trio.current_time()
        self._stay.serial = parts.identity.serial
        upstream = await self._dial()
        try:
            broker, broker_address = self._broker_of(upstream)
            facts = SessionFacts(
                name,
                self._peer,
                str(upstream.route),
                began,
                broker=broker,
                broker_address=broker_address,
                identity=upstream.identity,
                unheard=self._unheard(),
            )
            parts.emit(SessionOpened(**facts.told(), tls=upstream.tls.engine.version, warm=False))
            try:
                await trio.lowlevel.checkpoint()  # see `Established.take_over`
            except trio.Cancelled:
                tell_cut(parts.emit, facts)
                raise
            codec = self._codec()
            sock, engine = upstream.tls.detach()
            handover = HandOver(detach(self._sock), sock, engine, policy=parts.policy, codec=codec)
            parts.established.take_over(handover, facts, self._stay)
        finally:
            upstream.tls.close()  # where it was not handed over

    async def _dial(self) -> Upstream:
        """Raises UpstreamError."""
        return await self._parts.dial()

    def _broker_of(self, _upstream: Upstream) -> tuple[str, str]:
        """What the log calls the broker, and its address; empty where there are none."""
        return "", ""

    def _codec(self) -> Codec | None:
        """Who decides about the bytes; None: they pass."""
        return None

    def _unheard(self) -> Callable[[UpstreamError], None] | None:
        """Who is told, in place of the log, where the upstream breaks off before it has said a word."""
        return None

    def _failed(self, exc: MtlskitError) -> None:
        self._parts.emit(SessionFailed(tunnel=self._parts.config.name, client=self._peer, **described(exc)))
