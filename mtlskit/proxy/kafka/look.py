"""Asking the cluster for its brokers, over a connection of our own.

Listeners of brokers are opened when the cluster names them, which it does when a client asks. A client that has been
there before may not ask again: aiokafka knows its brokers and goes on trying their addresses for ever, and so does
whoever has written them into a list. So the tunnel asks once when it starts, every few minutes, so as to follow brokers
that move, and when a broker cannot be reached.

What is asked is Metadata of no topics, in a version that every broker takes. Where the cluster wants a login first
(SASL), it closes the connection instead; then listeners open when a client asks, and that is told once.
"""

from __future__ import annotations

import random
import ssl
from datetime import UTC, datetime
from typing import Final, NoReturn

import trio

from mtlskit.errors import Code, MtlskitError, UpstreamRefusedUs
from mtlskit.net.dial import Upstream
from mtlskit.net.faults import closed_early, no_answer, tcp_fault, tls_fault
from mtlskit.proxy.events import ClusterUnseen, described
from mtlskit.proxy.kafka.brokers import Brokers
from mtlskit.proxy.parts import TunnelParts
from mtlskit.wire.kafka.asking import AnswerReader, brokers_of, metadata_request

__all__ = ["ClusterLook"]

_EVERY: Final = (270.0, 330.0)
"""Seconds between two looks, at random. Clients look at their metadata as often."""

_FIRST_PAUSE: Final = 1.0
"""Seconds after a first failure; each further one doubles them."""

_AGAIN: Final = 10.0
"""Seconds between two looks that failures of clients ask for."""

_PATIENCE: Final = 10.0
"""Seconds for the answer, once the connection stands."""

_CORRELATION_ID: Final = 1


class ClusterLook:
    """Of one tunnel."""

    def __init__(self, parts: TunnelParts, brokers: Brokers) -> None:
        self._parts = parts
        self._brokers = brokers
        self._told: set[Code] = set()
        """Why no answer came, as far as it was told: each reason once, until one comes."""

    async def run(self) -> None:
        """Look now and again, until cancelled or the listeners are closed."""
        pause = _FIRST_PAUSE
        while not self._brokers.closed:
            wanted = self._brokers.wanted = trio.Event()
            if await self._look():
                pause, longest = _FIRST_PAUSE, _EVERY
            else:
                longest = (0.75 * pause, 1.25 * pause)
                pause = min(2 * pause, _EVERY[0])
            await trio.sleep(min(_AGAIN, longest[0]))
            if self._brokers.closed:
                break
            with trio.move_on_after(random.uniform(*longest)):  # noqa: S311 - spreads load, guards nothing
                await wanted.wait()

    async def _look(self) -> bool:
        try:
            upstream = await self._parts.dial()
            try:
                named = await self._ask(upstream)
                for node_id, host, port in named:
                    self._brokers.learn(node_id, host, port)
                self._brokers.listed({node_id for node_id, _, _ in named})
            finally:
                upstream.tls.close()
        except MtlskitError as exc:
            if isinstance(exc, UpstreamRefusedUs):  # under TLS 1.3 that is known only after dialling has succeeded
                self._parts.failed = exc, datetime.now(UTC)
            if exc.code not in self._told:
                self._told.add(exc.code)
                self._parts.emit(ClusterUnseen(tunnel=self._parts.config.name, **described(exc)))
            return False
        self._told.clear()
        return True

    async def _ask(self, upstream: Upstream) -> tuple[tuple[int, str, int], ...]:
        """Raises UpstreamError."""
        where, tls = str(upstream.route), upstream.tls
        reader = AnswerReader(_CORRELATION_ID)
        try:
            with trio.fail_after(_PATIENCE):
                await tls.send_all(metadata_request(_CORRELATION_ID))
                while (answer := reader.receive(await tls.receive_some() or _hung_up(where))) is None:
                    pass
        except ssl.SSLError as exc:
            raise tls_fault(where, exc, upstream.identity.verify, trust=upstream.identity.trust) from exc
        except (ConnectionResetError, BrokenPipeError):
            _hung_up(where)
        except OSError as exc:
            raise tcp_fault(where, exc) from exc
        except trio.TooSlowError as exc:
            raise no_answer(where, "a Metadata request", _PATIENCE) from exc
        return brokers_of(answer)


def _hung_up(where: str) -> NoReturn:
    error = closed_early(where, "after a Metadata request")
    raise type(error)(
        error.code,
        error.sentence,
        "brokers that want a login (SASL) do so, and then nothing is wrong: clients log in through the tunnel, and ask;"
        " else they may have refused the client certificate: the broker's log says it",
    )
