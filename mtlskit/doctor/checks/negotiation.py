"""What answers there: a Postgres that takes an SSLRequest, a TLS server, or something else altogether.

The question is the tunnel's own: an SSLRequest, or a ClientHello. Whoever answers it otherwise, or hangs up, or is
silent for long, is asked what else it could be; the first question stays open meanwhile, for a server may just be slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import trio

from mtlskit.config.values import Endpoint, Negotiation, TunnelKind
from mtlskit.doctor.case import Case, Opened
from mtlskit.doctor.checks.tcp import allowlist_commands
from mtlskit.doctor.finding import Layer, failed, passed
from mtlskit.doctor.network.probing import Far, Hello, Service, Who, ask_postgres, ask_tls, who_listens
from mtlskit.errors import Code, UpstreamError, UpstreamProtocolError, UpstreamRefusedUs
from mtlskit.net.dial import POSTGRES_ALPN, Route
from mtlskit.net.faults import answer_fault, closed_early, tcp_fault, tls_silence
from mtlskit.net.names import Address
from mtlskit.wire.greetings import is_tls, recognised, shown

__all__ = ["negotiate"]

_CHECK: Final = "negotiation.answer"

_PATIENCE: Final = 0.4
"""The share of a step after which silence is looked into."""

_RESERVE: Final = 0.05
"""The share of a step that is left when everybody has been asked."""

_CHECK_PORT: Final = "check the host and the port"
_NEEDS_17: Final = 'direct TLS needs PostgreSQL 17 or later; use negotiation = "sslrequest"'


@dataclass
class _Heard:
    """The answer to the tunnel's own question: one of them is set, or none while it is awaited."""

    answer: bytes | None = None
    """To the SSLRequest."""
    hello: Hello | None = None
    """To the ClientHello."""
    error: OSError | None = None


async def negotiate(case: Case, endpoint: Endpoint, address: Address) -> Opened:
    """Layer NEGOTIATION. Ends within `case.means.step`."""
    question = _Question(case, endpoint, address)
    await question.put()
    return question.judge()


class _Question:
    """Put to one address."""

    def __init__(self, case: Case, endpoint: Endpoint, address: Address) -> None:
        self._case = case
        self._endpoint = endpoint
        self._where = str(Route(endpoint, *address[1][:2]))
        self._far = Far(address, case.tunnel.source)
        self._heard = _Heard()
        self._answered = trio.Event()
        self._looking_around = trio.CancelScope()
        self._who: Who | None = None
        self._began = trio.current_time()
        self._seconds: float | None = None

    @property
    def _sslrequest(self) -> bool:
        return self._case.kind is TunnelKind.POSTGRES and self._case.tunnel.negotiation is Negotiation.SSLREQUEST

    @property
    def _direct(self) -> bool:
        return self._case.kind is TunnelKind.POSTGRES and not self._sslrequest

    async def put(self) -> None:
        """Ask, and look who it is where the answer does not say it."""
        step = self._case.means.step
        with trio.move_on_at(self._began + step):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ask)
                with trio.move_on_after(step * _PATIENCE):
                    await self._answered.wait()
                if not self._speaks_for_itself():
                    left = self._began + step * (1 - _RESERVE) - trio.current_time()
                    with self._looking_around:
                        self._who = await who_listens(self._far, max(left, 0.0))
                if self._stranger_fault() is None:
                    await self._answered.wait()
                nursery.cancel_scope.cancel()

    async def _ask(self) -> None:
        try:
            if self._sslrequest:
                self._heard.answer = await ask_postgres(self._far)
            else:
                # Only PostgreSQL 17 and later choose this one, and so give themselves away behind a Kafka tunnel.
                self._heard.hello = await ask_tls(self._far, POSTGRES_ALPN)
        except OSError as exc:
            self._heard.error = exc
        self._seconds = trio.current_time() - self._began
        self._answered.set()
        if self._speaks_for_itself():
            self._looking_around.cancel()

    def _speaks_for_itself(self) -> bool:
        heard = self._heard
        answer = heard.hello.answer if heard.hello is not None else heard.answer
        if not answer:
            return False
        if self._sslrequest:
            return answer[:1] in (b"S", b"N", b"E") or (recognised(answer) is not None and not is_tls(answer))
        return recognised(answer) is not None

    def judge(self) -> Opened:
        """What is to be said of it."""
        if self._heard.answer == b"S":
            return self._ready("answers the SSLRequest with S: TLS can begin", "S")
        hello = self._heard.hello
        error: UpstreamError
        if hello is not None and is_tls(hello.answer):
            misfit = self._hello_fault(hello)
            if misfit is None:
                return self._ready("answers a ClientHello: it speaks TLS", "TLS")
            error = misfit
        else:
            error = self._stranger_fault() or self._fault()
        suspicious = error.code in (Code.TLS_TIMEOUT, Code.TCP_RESET, Code.TCP_TIMEOUT)
        return Opened(
            (
                failed(
                    Layer.NEGOTIATION,
                    _CHECK,
                    error,
                    about=self._where,
                    commands=allowlist_commands(self._case, self._endpoint) if suspicious else (),
                    seconds=self._seconds,
                    service=str(self._who.service) if self._who is not None else None,
                ),
            )
        )

    def _ready(self, seen: str, answer: str) -> Opened:
        finding = passed(
            Layer.NEGOTIATION,
            _CHECK,
            f"{self._where} {seen}",
            about=self._where,
            seconds=self._seconds,
            answer=answer,
        )
        return Opened((finding,), ready=True)

    def _hello_fault(self, hello: Hello) -> UpstreamError | None:
        """TLS, but whose?"""
        if self._direct and hello.done and hello.alpn != POSTGRES_ALPN:
            sentence = f"{self._where} did not agree to ALPN `{POSTGRES_ALPN}`"
            return UpstreamProtocolError(Code.TLS_ALPN, sentence, _NEEDS_17)
        if not self._direct and hello.alpn == POSTGRES_ALPN:
            return self._is_postgres()
        return None

    def _stranger_fault(self) -> UpstreamError | None:
        """In the words for whoever was found there; None where nobody was."""
        who = self._who
        if who is None:
            return None
        if self._sslrequest:
            hint = _HINTS_AT_POSTGRES.get(who.service)
            if hint is None:
                return None
            sentence = f"{self._where} does not answer an SSLRequest as Postgres does: it is {who.words}"
            return UpstreamProtocolError(Code.TLS_UNKNOWN_ANSWER, sentence, hint)
        if who.service is Service.KAFKA:
            return UpstreamRefusedUs(
                Code.KAFKA_PLAIN,
                f"{self._where} is a listener of Kafka's without TLS",
                "name the port of a listener whose protocol is SSL or SASL_SSL",
            )
        if who.service is Service.POSTGRES:
            if not self._direct:
                return self._is_postgres()
            sentence = f"{self._where} does not take TLS at once, but answers an SSLRequest: it is {who.words}"
            return UpstreamProtocolError(Code.TLS_ALPN, sentence, _NEEDS_17)
        if who.service is Service.OTHER:
            return self._no_tls(f"it is {who.words}")
        return None  # TLS after all: our own question was cut off for another reason, and that is told

    def _fault(self) -> UpstreamError:
        """Of the answer itself, or of its absence."""
        heard = self._heard
        if heard.error is not None:
            return tcp_fault(self._where, heard.error)
        if heard.answer is not None:
            return answer_fault(self._where, heard.answer)
        if heard.hello is None:
            what = "answer the SSLRequest" if self._sslrequest else "answer a ClientHello"
            return tls_silence(self._where, what, self._case.means.step)
        if not heard.hello.answer:
            return closed_early(self._where, "during the TLS handshake")
        stranger = recognised(heard.hello.answer)
        answered = f"it answered a ClientHello with {shown(heard.hello.answer)}"
        return self._no_tls(f"it is {stranger}" if stranger else answered)

    def _no_tls(self, told: str) -> UpstreamError:
        return UpstreamRefusedUs(
            Code.TLS_HANDSHAKE_FAILED, f"{self._where} does not speak TLS there: {told}", _CHECK_PORT
        )

    def _is_postgres(self) -> UpstreamError:
        return UpstreamProtocolError(
            Code.TLS_HANDSHAKE_FAILED,
            f"{self._where} is a PostgreSQL server, and this tunnel is of kind {self._case.kind}",
            'set kind = "postgres" (--kind postgres), or check the host and the port',
        )


_HINTS_AT_POSTGRES: Final = {
    Service.DIRECT: 'set negotiation = "direct" (--negotiation direct), or check the port',
    Service.KAFKA: 'if a Kafka is meant: kind = "kafka" (--kind kafka), and the port of a listener with TLS',
    Service.TLS: (
        'if it is a Kafka broker: kind = "kafka" (--kind kafka); if a load balancer ends TLS before a Postgres: let it'
        ' pass TCP through, or negotiation = "direct" where the server behind it is one of PostgreSQL 17 or later; else'
        " check the host and the port"
    ),
    Service.HTTPS: _CHECK_PORT,
    Service.OTHER: _CHECK_PORT,
}
