"""When a request is made again, and when it must not be.

=================================  ===================  =======================================
What became of it                  GET, DELETE          POST
=================================  ===================  =======================================
nothing was sent                   again                again
429: too many requests             again                again (it was not done)
lost after it was sent, 408, 5xx   again                `API_UNCERTAIN`: the caller looks it up
2xx that cannot be read            `API_RUBBISH`        `API_UNCERTAIN`
anything else                      final                final
=================================  ===================  =======================================

A DELETE names what it deletes by its id, so a second one finds nothing and does no harm. A POST makes something new
each time it takes effect; nothing here ever repeats one whose fate is not known.

Pauses are full jitter over an exponential back-off, so that many clients that failed together do not return together. A
`Retry-After` is obeyed, unless it lies beyond the time that the call has: then the call ends at once and says so.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.auth import Signer
from mtlskit.heroku.events import HerokuAnswered, HerokuCallDelayed, HerokuCallRepeated
from mtlskit.heroku.refusals import is_the_apis, refusal, told, uncertain
from mtlskit.heroku.token import Token
from mtlskit.heroku.transport import Answer, Lost
from mtlskit.telemetry import Emit

__all__ = ["Asker", "Call", "Patience"]

_LONG_PAUSE: Final = 5.0
"""Seconds from which a pause is told as a warning."""


@dataclass(frozen=True)
class Patience:
    """How long to go on. Seconds."""

    attempt: float = 35.0
    """For one request. Heroku's router gives up at 30 s and says so, which tells more than our own deadline."""
    total: float = 90.0
    """No request begins later than this after the call did, its wait for a place among the others included."""
    tries: int = 5
    """For what fails. For 429 the total alone decides."""
    base: float = 0.5
    """The first pause is at most this long, each next one twice as long."""
    most_pause: float = 20.0
    settle: float = 3.0
    """After a request without an answer: what the server may still be doing is done by then."""
    recreate: float = 300.0
    """How long a rule is tried to be added that the API fails to add: a CIDR that was just removed."""
    jitter: Callable[[float], float] = field(default=lambda most: _random(most))
    """A time between 0 and this."""

    def pause(self, tries: int) -> float:
        """Before the next try, after so many."""
        return self.jitter(min(self.most_pause, self.base * 2.0 ** min(tries - 1, 30)))


def _random(most: float) -> float:
    return random.uniform(0.0, most)  # noqa: S311 - it spreads clients over time, it guards nothing


@dataclass(frozen=True)
class Call:
    """What is asked of an API. `about` begins every sentence that tells of it."""

    method: str
    path: str
    about: str
    body: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def repeatable(self) -> bool:
        """Doing it twice is doing it once."""
        return self.method in ("GET", "DELETE")


class Asker:
    """Makes the calls of one API, again where that is safe."""

    def __init__(self, signer: Signer, base_url: str, token: Token, *, patience: Patience, emit: Emit) -> None:
        self.token = token
        self.patience = patience
        self.emit = emit
        self.base_url = base_url.rstrip("/")
        self._signer = signer

    async def ask(self, call: Call, *, also: tuple[int, ...] = ()) -> Answer:
        """The answer: 2xx, or one of `also`. Raises `HerokuError` for everything else."""
        content = None if call.body is None else json.dumps(call.body).encode("ascii")
        headers = {"Content-Type": "application/json"} if content is not None else {}
        began = trio.current_time()
        tries = 0
        while True:
            tries += 1
            sent = trio.current_time()
            try:
                answer = await self._signer.send(
                    call.method, self.base_url + call.path, {**headers, **call.headers}, content
                )
            except Lost as lost:
                error, asked = self._not_answered(call, lost), 0.0
                if lost.final or error.code is Code.API_UNCERTAIN:
                    raise error from lost
                reason = lost.reason
            else:
                self.emit(self._answered(call, answer))
                if 200 <= answer.status < 300 or (answer.status in also and is_the_apis(answer)):
                    return answer
                error = self._refused(call, answer)
                if error.code not in (Code.API_BUSY, Code.API_FAILED):
                    raise error
                asked = _retry_after(answer.retry_after)
                reason = told(answer, self.token)
            pause = asked + self.patience.pause(tries)
            spent = tries >= self.patience.tries and error.code is not Code.API_BUSY
            if spent or trio.current_time() - began + pause > self.patience.total:
                raise _given_up(error, tries, asked)
            self._tell_repeated(call, reason, pause, tries, slow=trio.current_time() - sent >= _LONG_PAUSE)
            await trio.sleep(pause)

    def _not_answered(self, call: Call, lost: Lost) -> HerokuError:
        if lost.sent and not call.repeatable:
            return uncertain(call.about, lost.reason)
        return HerokuError(
            Code.API_RUBBISH if lost.final and not lost.hint else Code.API_UNREACHABLE,
            f"{call.about}: {self.base_url}: {lost.reason}",
            lost.hint or "see that this machine reaches it, through HTTPS_PROXY where it must; then run the same again",
        )

    def _refused(self, call: Call, answer: Answer) -> HerokuError:
        error = refusal(answer, call.about, self.token)
        if error.code is not Code.API_FAILED or call.repeatable:
            return error
        reason = error.sentence.removeprefix(f"{call.about}: ")
        return uncertain(call.about, reason, status=answer.status, request_id=answer.request_id)

    def _answered(self, call: Call, answer: Answer) -> HerokuAnswered:
        return HerokuAnswered(method=call.method, path=call.path, status=answer.status, request_id=answer.request_id)

    def _tell_repeated(self, call: Call, reason: str, pause: float, tries: int, *, slow: bool) -> None:
        kind = HerokuCallDelayed if slow or pause >= _LONG_PAUSE else HerokuCallRepeated
        self.emit(kind(method=call.method, path=call.path, reason=reason, pause=round(pause, 3), tries=tries + 1))


def _given_up(error: HerokuError, tries: int, asked: float) -> HerokuError:
    words = f"; given up after {tries} tries" if tries > 1 else ""
    if asked:
        words += f"; it asks for a pause of {asked:.0f} s"
    return HerokuError(error.code, error.sentence + words, error.hint, status=error.status, request_id=error.request_id)


def _retry_after(value: str) -> float:
    """Seconds, from either form of the header (RFC 9110, 10.2.3). 0 where there is none, or none that can be read."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
