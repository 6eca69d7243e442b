"""Conversations of the doctor's own with Kafka brokers: one question at a time, each within `Means.step`.

They go the way of the tunnel's connections: the same dialler, so `verify`, pins and source address hold here as well.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, TypeVar

import trio

from mtlskit.config.values import Endpoint, TunnelKind
from mtlskit.doctor.case import Case
from mtlskit.errors import Code, UpstreamError
from mtlskit.net.dial import Dialler, Upstream
from mtlskit.net.faults import closed_early, no_answer, tcp_fault, tls_fault
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.names import Names
from mtlskit.wire.kafka.asking import MAX_ANSWER, AnswerReader, api_versions_of, api_versions_request
from mtlskit.wire.kafka.cluster import mechanisms_of, mechanisms_request

__all__ = ["AT_ONCE", "Door", "Talk", "Versions", "read_aside"]

_T = TypeVar("_T")

Versions = Mapping[int, tuple[int, int]]
"""The oldest and the newest version of each api key that a broker takes."""

AT_ONCE: Final = 10
"""Brokers that are gone to, and names that are looked up, at the same time: a cluster chooses them."""

_HUNG_UP: Final = frozenset({Code.UPSTREAM_CLOSED, Code.TCP_RESET})


class Talk:
    """One connection."""

    def __init__(self, upstream: Upstream, patience: float) -> None:
        self._upstream = upstream
        self._patience = patience
        self._count = 0

    async def ask(self, name: str, make: Callable[[int], bytes], *, max_size: int = MAX_ANSWER) -> bytes:
        """The answer to the request that `make` makes of a correlation id. Raises UpstreamError."""
        self._count += 1
        tls, where, question = self._upstream.tls, str(self._upstream.route), f"{_article(name)} {name} request"
        reader = AnswerReader(self._count, max_size=max_size)
        try:
            with trio.fail_after(self._patience):
                await tls.send_all(make(self._count))
                while data := await tls.receive_some():
                    if (answer := reader.receive(data)) is not None:
                        return answer
        except ssl.SSLError as exc:
            raise tls_fault(where, exc, self._upstream.identity.verify, trust=self._upstream.identity.trust) from exc
        except OSError as exc:
            raise tcp_fault(where, exc) from exc
        except trio.TooSlowError as exc:
            raise no_answer(where, question, self._patience) from exc
        raise closed_early(where, f"after {question}")

    async def versions(self) -> tuple[Versions, float]:
        """What the broker speaks, and the seconds that the question took. Raises UpstreamError."""
        began = trio.current_time()
        answer = await self.ask("ApiVersions", api_versions_request)
        seconds = trio.current_time() - began
        return api_versions_of(answer), seconds


@dataclass(frozen=True)
class Door:
    """How brokers of one case are reached."""

    case: Case
    snapshot: IdentitySnapshot
    look_ups: trio.CapacityLimiter = field(
        default_factory=lambda: trio.CapacityLimiter(AT_ONCE), repr=False, compare=False
    )
    """Threads for names. Those that lead nowhere keep theirs for a while, and nobody else is to wait for that."""

    @property
    def step(self) -> float:
        """Seconds for one step."""
        return self.case.means.step

    @asynccontextmanager
    async def open(self, endpoint: Endpoint) -> AsyncIterator[Talk]:
        """A connection behind its handshake. Raises UpstreamError."""
        tunnel = self.case.tunnel
        names = Names(self.look_ups)
        dialler = Dialler(
            TunnelKind.KAFKA, (endpoint,), tunnel.negotiation, tunnel.pins, self.step, names, tunnel.source
        )
        upstream = await dialler.dial(self.snapshot)
        try:
            yield Talk(upstream, self.step)
        finally:
            upstream.tls.close()

    async def mechanisms_after(self, error: UpstreamError, endpoint: Endpoint) -> tuple[str, ...]:
        """How the broker wants us to log in, if that is why it hung up; else none."""
        if error.code not in _HUNG_UP:
            return ()
        try:
            async with self.open(endpoint) as talk:
                return mechanisms_of(await talk.ask("SaslHandshake", mechanisms_request))
        except UpstreamError:
            return ()


async def read_aside(read: Callable[[bytes], _T], answer: bytes) -> _T:
    """What `read` makes of an answer whose length a stranger chose, in a thread: time goes on, and we can be stopped.

    Raises what `read` raises.
    """
    return await trio.to_thread.run_sync(read, answer, abandon_on_cancel=True)


def _article(name: str) -> str:
    return "an" if name[0] in "AEIOU" else "a"
