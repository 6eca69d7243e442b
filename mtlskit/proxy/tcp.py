"""A client's way through a tunnel that speaks no protocol: the upstream, and the hand-over to the relay."""

from __future__ import annotations

import trio

from mtlskit.errors import ClientError, MtlskitError
from mtlskit.net.relay import HandOver, RelayPolicy
from mtlskit.net.tls import detach
from mtlskit.proxy.endings import SessionFacts, relayed
from mtlskit.proxy.events import ClientRefused, SessionFailed, SessionOpened, described
from mtlskit.proxy.parts import TunnelParts

__all__ = ["TcpSession"]


class TcpSession:
    """One client. `serve` owns the socket and closes it. There is no protocol to answer in: the log says why."""

    def __init__(self, parts: TunnelParts, sock: trio.socket.SocketType, peer: str) -> None:
        self._parts = parts
        self._sock = sock
        self._peer = peer

    async def serve(self, refusal: ClientError | None) -> None:
        """Serve the client until the session ends. Raises nothing of ours."""
        name = self._parts.config.name
        with self._sock:
            try:
                if refusal is not None:
                    raise refusal
                await self._session(name)
            except ClientError as exc:
                self._parts.emit(ClientRefused(tunnel=name, client=self._peer, **described(exc)))
            except MtlskitError as exc:
                self._parts.emit(SessionFailed(tunnel=name, client=self._peer, **described(exc)))

    async def _session(self, name: str) -> None:
        parts = self._parts
        began = trio.current_time()
        upstream = await parts.dial()
        route = str(upstream.route)
        facts = SessionFacts(name, self._peer, route, began)
        tls = upstream.tls.engine.version
        parts.emit(SessionOpened(tunnel=name, client=self._peer, user="", database="", upstream=route, tls=tls))
        sock, engine = upstream.tls.detach()
        # Only TLS knows whether the bytes were all of them: a cut-off stream must not look like a finished one.
        policy = RelayPolicy(linger=parts.config.timeouts.linger, ragged_end_resets=True)
        await relayed(parts.relay, HandOver(detach(self._sock), sock, engine, policy=policy), parts.emit, facts)
