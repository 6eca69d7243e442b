"""Waiting for a TLS endpoint, which Heroku takes minutes to put up and take down.

The endpoint is looked at again and again until it is there, or gone, or the time is over. What was seen is told as
events, each with the seconds that have passed and the pause until the next look, so that whoever shows them needs no
clock. Looks that fail do not end the wait: a laptop that changes its network must not lose it. Nothing here changes
anything at Heroku, so a wait can be given up and taken up at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.passing import may_pass
from mtlskit.heroku.values import TlsEndpoint
from mtlskit.telemetry import Emit, Event, Level, silent

__all__ = [
    "ABSENT",
    "PACE",
    "Awaited",
    "EndpointApi",
    "EndpointLookFailed",
    "EndpointSeen",
    "pauses",
    "until_gone",
    "until_operational",
]

_T = TypeVar("_T")

PACE = 20.0
"""Seconds between two looks. Others that wait for Heroku's endpoints look as often."""

_FIRST = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Pauses before that, for what is done at once, such as the sandbox's."""

ABSENT = "not enabled"
"""What is told for the status of an endpoint that is not there."""

_APPEARS = 60.0
"""Seconds after it was asked for, in which an endpoint that is not there yet is no error."""


class EndpointApi(Protocol):
    """What of the data API is needed here."""

    async def tls_endpoint(self, addon: str) -> TlsEndpoint | None:
        """The endpoint, None where there is none. Raises `HerokuError`."""


@runtime_checkable
class Awaited(Protocol):
    """An event of a wait for Heroku, whatever is waited for: what somebody who looks on is shown."""

    @property
    def addon(self) -> str:
        """Whose."""

    @property
    def elapsed(self) -> float:
        """Seconds since the wait began."""

    @property
    def next_look(self) -> float | None:
        """Seconds until the next look; None: this was the last."""

    def state(self) -> str:
        """How it is, without the times."""


@dataclass(frozen=True, kw_only=True)
class EndpointSeen(Event):
    """The endpoint was looked at."""

    addon: str
    status: str
    """As Heroku told it, or `ABSENT`."""
    elapsed: float
    """Seconds since the wait began."""
    next_look: float | None
    """Seconds until the next look; None: this was the last."""

    def state(self) -> str:
        """As `sentence`."""
        return self.sentence()

    def sentence(self) -> str:
        return f"{self.addon}: {self.status}"


@dataclass(frozen=True, kw_only=True)
class EndpointLookFailed(Event):
    """A look failed, and the wait goes on."""

    level: ClassVar[Level] = Level.WARNING

    addon: str
    reason: str
    elapsed: float
    next_look: float

    def state(self) -> str:
        """As `sentence`."""
        return self.sentence()

    def sentence(self) -> str:
        return f"{self.addon}: {self.reason}; the wait goes on"


def pauses() -> Iterator[float]:
    """Seconds before each further look: quick at first, then `PACE`, without end."""
    yield from _FIRST
    while True:
        yield PACE


async def until_operational(
    api: EndpointApi, addon: str, *, seconds: float, emit: Emit = silent, just_asked: bool = False
) -> TlsEndpoint:
    """Wait until clients can connect. `just_asked`: it was enabled a moment ago, and may still be invisible.

    Raises `HerokuError`: API_WAIT_OVER after `seconds`, API_NOT_ENABLED where there is no endpoint, and whatever no
    further look would change.
    """

    def there(endpoint: TlsEndpoint | None, elapsed: float) -> TlsEndpoint | None:
        if endpoint is None and not (just_asked and elapsed < _APPEARS):
            raise HerokuError(
                Code.API_NOT_ENABLED,
                f"{addon}: mTLS is not enabled, so there is nothing to wait for",
                f"mtlskit heroku enable {addon}",
            )
        return endpoint if endpoint is not None and endpoint.operational else None

    return await _wait(api, addon, "Operational", there, seconds, emit)


async def until_gone(api: EndpointApi, addon: str, *, seconds: float, emit: Emit = silent) -> None:
    """Wait until there is no endpoint. Raises `HerokuError`: API_WAIT_OVER, and what no further look would change."""
    await _wait(api, addon, "gone", lambda endpoint, _: endpoint is None or None, seconds, emit)


async def _wait(
    api: EndpointApi,
    addon: str,
    wanted: str,
    result: Callable[[TlsEndpoint | None, float], _T | None],
    seconds: float,
    emit: Emit,
) -> _T:
    """Look until `result`, of what was seen and the seconds since the beginning, is something."""
    started = trio.current_time()
    last = "it could not be looked at"
    with trio.move_on_after(seconds):
        for pause in pauses():
            try:
                endpoint = await api.tls_endpoint(addon)
            except HerokuError as exc:
                if not may_pass(exc):
                    raise
                last = exc.sentence
                elapsed = trio.current_time() - started
                emit(EndpointLookFailed(addon=addon, reason=exc.sentence, elapsed=elapsed, next_look=pause))
            else:
                last = ABSENT if endpoint is None else endpoint.status
                elapsed = trio.current_time() - started
                found = result(endpoint, elapsed)
                next_look = pause if found is None else None
                emit(EndpointSeen(addon=addon, status=last, elapsed=elapsed, next_look=next_look))
                if found is not None:
                    return found
            await trio.sleep(pause)
    option = " --gone" if wanted == "gone" else ""
    raise HerokuError(
        Code.API_WAIT_OVER,
        f"{addon}: not {wanted} within {seconds:g} s; the last look: {last}",
        f"it goes on at Heroku; wait on with `mtlskit heroku wait {addon}{option}`",
    )
