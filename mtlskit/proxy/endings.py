"""What the log is told of a session's end: how it came, and whose fault it was."""

from __future__ import annotations

import ssl
import traceback
from collections.abc import Callable
from dataclasses import dataclass

import trio

from mtlskit.errors import ClientError, Code, MtlskitError, UpstreamError, UpstreamLost
from mtlskit.net.faults import tcp_fault
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import Ending, Outcome
from mtlskit.proxy.events import (
    ClientRefused,
    SessionBroken,
    SessionClosed,
    SessionCrashed,
    SessionCut,
    SessionExpired,
    described,
)
from mtlskit.telemetry import Emit
from mtlskit.wire.alerts import meaning_of

__all__ = ["SessionFacts", "tell_cut", "tell_ending"]

_UPSTREAMS_FAULT = frozenset({Ending.UPSTREAM_ALERT, Ending.UPSTREAM_LOST})


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """Who was connected to what, and since when (trio's clock). `user` and `database` are empty without a protocol."""

    tunnel: str
    client: str
    upstream: str
    began: float
    user: str = ""
    database: str = ""
    broker: str = ""
    broker_address: str = ""
    """Of Kafka; see `mtlskit.proxy.events.bases.OfSession`."""
    bytes_up: int = 0
    bytes_down: int = 0
    """What had been forwarded before the relay began: the login."""
    identity: IdentitySnapshot | None = None
    """What the connection to the upstream was made with; None where nobody asks."""
    unheard: Callable[[UpstreamError], None] | None = None
    """Is told, in place of the log, where the upstream breaks off before it has said a word: clients come again, and
    each of them would be told of."""

    def told(self) -> dict[str, str]:
        """What every event of the session carries."""
        return {
            "tunnel": self.tunnel,
            "client": self.client,
            "user": self.user,
            "database": self.database,
            "upstream": self.upstream,
            "broker": self.broker,
            "broker_address": self.broker_address,
        }


def tell_cut(emit: Emit, facts: SessionFacts) -> None:
    """Tell that a session was ended because the proxy stops."""
    emit(SessionCut(**facts.told(), seconds=trio.current_time() - facts.began))


def tell_ending(emit: Emit, facts: SessionFacts, outcome: Outcome) -> None:
    """Tell how a session ended: first the fault or the reason, if there was one, then the counts."""
    error = outcome.error
    if outcome.ending is Ending.INTERNAL and error is not None:
        text = "".join(traceback.format_exception(error))
        emit(SessionCrashed(tunnel=facts.tunnel, client=facts.client, traceback=text))
    elif outcome.ending in _UPSTREAMS_FAULT and isinstance(error, OSError):
        fault = _fault(facts.upstream, error)
        if facts.unheard is not None and not outcome.bytes_down:
            facts.unheard(fault)
            return
        emit(SessionBroken(tunnel=facts.tunnel, client=facts.client, **described(fault)))
    elif outcome.ending is Ending.REFUSED and isinstance(error, MtlskitError):
        event = ClientRefused if isinstance(error, ClientError) else SessionBroken
        emit(event(tunnel=facts.tunnel, client=facts.client, **described(error)))
    elif outcome.ending is Ending.EXPIRED and facts.identity is not None:
        emit(
            SessionExpired(
                **facts.told(),
                serial=facts.identity.serial,
                not_after=facts.identity.not_after.isoformat(),
            )
        )
    emit(
        SessionClosed(
            **facts.told(),
            ending=outcome.ending.value,
            bytes_up=facts.bytes_up + outcome.bytes_up,
            bytes_down=facts.bytes_down + outcome.bytes_down,
            seconds=trio.current_time() - facts.began,
        )
    )


def _fault(where: str, exc: OSError) -> UpstreamError:
    if not isinstance(exc, ssl.SSLError):
        return tcp_fault(where, exc)
    meaning = meaning_of(exc.reason or "")
    if meaning is not None:
        return UpstreamLost(meaning.code, f"{where} ended the session: {meaning.sentence_part}", meaning.hint)
    return UpstreamLost(
        Code.TLS_BROKEN,
        f"{where} sent what is no TLS of this session: {exc.reason or exc}",
        "something between here and the server damages or replaces data; the server's log may say more",
    )
