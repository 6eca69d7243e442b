"""Renewal by itself: each identity is looked at again and again, and rotated when it is due.

Nothing here counts on a timer of days: see `mtlskit.lifecycle.decide`. An identity that cannot be renewed now is tried
again after a while, for ever: when its certificate has lapsed, more than ever. What is wrong with one identity, be it
its issuer or its files, holds up no other. An identity that follows a credential is compared with that once a minute.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

import trio

from mtlskit.errors import MtlskitError
from mtlskit.lifecycle.decide import renewal_time, retry_delay, sleep_until
from mtlskit.lifecycle.due import decision_of, why_renewed
from mtlskit.lifecycle.events import RenewalPlanned, RotationFailed, RotationWaits
from mtlskit.lifecycle.following import has_changed, stuck
from mtlskit.lifecycle.rotate import rotate
from mtlskit.lifecycle.taking_back import current_of
from mtlskit.lifecycle.target import Result, Target, Tools, Wanted
from mtlskit.store.identities import Version
from mtlskit.store.journal import Journal

__all__ = ["Watched", "watch"]

_LOOK_AGAIN = 60.0
"""Seconds between two looks at what others do: an issuer, a person, an old session that is to end, or a credential
that may change: once it has, nothing connects until that was seen."""

_UNKNOWN_NOTICE = timedelta(days=30)


@dataclass(frozen=True)
class Watched:
    """One identity to be kept renewed."""

    target: Target
    tools: Tools


Sleep = Callable[[float], Awaitable[None]]


async def watch(watched: Sequence[Watched], *, rng: Random, sleep: Sleep = trio.sleep) -> None:
    """Keep the identities renewed until cancelled."""
    async with trio.open_nursery() as nursery:
        for each in watched:
            nursery.start_soon(_Watcher(each, rng, sleep).run)


class _Watcher:
    def __init__(self, watched: Watched, rng: Random, sleep: Sleep) -> None:
        self._target = watched.target
        self._tools = watched.tools
        self._rng = rng
        self._sleep = sleep
        self._failures = 0
        self._planned: tuple[str, datetime] = "", datetime.min
        """The serial of the current certificate, and the moment that was drawn for its renewal."""
        self._stuck = ""
        """What was told last about a certificate that only a person can have replaced."""

    async def run(self) -> None:
        while True:
            try:
                pause = await self._until_due() or await self._attempt()
            except MtlskitError as exc:  # the store cannot be read right now
                self._tell(exc)
                pause = self._after_failure()
            await self._sleep(pause)

    async def _until_due(self) -> float:
        """Seconds until the next look; 0 when there is something to do now. Raises `MtlskitError`."""
        target, now = self._target, self._tools.clock()
        journal = Journal(target.stored.journal_path)
        current = current_of(target)  # one that is damaged is replaced
        if current is None or journal.unfinished() is not None or journal.owed():
            return 0.0
        if current.facts.followed and self._tools.following is not None:
            return await self._until_changed(current)
        serial, moment = self._planned
        if serial != current.facts.serial:
            moment = renewal_time(decision_of(target, current, now), self._rng)
            self._planned = current.facts.serial, moment
            at = moment.isoformat(timespec="seconds")
            self._tools.emit(RenewalPlanned(identity=target.name, serial=current.facts.serial, at=at))
        return sleep_until(moment, now)

    async def _until_changed(self, current: Version) -> float:
        """As `_until_due`, for a copy of a credential. That it is due is told once: nothing can be done about it here.

        It is asked for here and not by `rotate`, so that a minute without a network runs nobody's hook.
        """
        if await has_changed(self._target, self._tools, current):
            return 0.0
        told = stuck(self._target, current, self._tools.clock())
        if told and told != self._stuck:
            self._tools.emit(RotationWaits(identity=self._target.name, waits_for=told))
        self._stuck = told
        self._failures = 0
        return _LOOK_AGAIN

    async def _attempt(self) -> float:
        """Rotate; seconds until the next look."""
        # Not waiting in there: it would hold the identity's lock, and whoever imports a certificate needs that.
        outcome = await rotate(self._target, self._tools, Wanted("due", only_if_due=True))
        if outcome.result is Result.FAILED:
            return self._after_failure()
        if outcome.result is not Result.WAITING and self._owes():
            return self._after_failure()  # a revocation that waits for sessions to end, or for a CA that cannot
        if outcome.result is Result.ROTATED and self._still_due():
            return self._after_failure()  # a new certificate that is due at once must not be replaced all the time
        self._failures = 0
        return 0.0 if outcome.result is Result.ROTATED else _LOOK_AGAIN

    def _still_due(self) -> bool:
        current = current_of(self._target)
        return current is not None and bool(why_renewed(self._target, current, self._tools.clock()))

    def _owes(self) -> bool:
        return bool(Journal(self._target.stored.journal_path).owed())

    def _after_failure(self) -> float:
        self._failures += 1
        return retry_delay(self._failures, self._notice(), self._rng)

    def _notice(self) -> timedelta:
        try:
            current = self._target.stored.current()
        except MtlskitError:
            return _UNKNOWN_NOTICE
        if current is None:
            return _UNKNOWN_NOTICE
        return decision_of(self._target, current, self._tools.clock()).notice

    def _tell(self, exc: MtlskitError) -> None:
        self._tools.emit(
            RotationFailed(
                identity=self._target.name, step="look", code=exc.code.value, reason=exc.sentence, hint=exc.hint
            )
        )
