"""When a certificate is to be renewed, and when to look again: pure functions of dates, a clock's reading and chance.

`mtlskit.pki.renewal` says from when on a certificate is due. Three things keep a watcher from doing harm, or nothing:

* It never sleeps longer than `MOST_SLEEP`, and asks the wall clock anew each time. A laptop that was closed over the
  due date, or a clock that was set, costs an hour at most.
* Many hosts are made on one day, and their certificates are due in one second; each waits a random while beyond it.
* After a failure it waits longer each time, at random, but at least some ten times within the notice; and it never
  stops, because a certificate that has lapsed must be replaced all the more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from random import Random

from mtlskit.config.values import RenewBefore
from mtlskit.pki.renewal import due_at

__all__ = ["MOST_SLEEP", "Decision", "State", "decide", "renewal_time", "retry_delay", "sleep_until"]

MOST_SLEEP = 3600.0
"""Seconds. Monotonic clocks stand still while a machine sleeps, so that a timer of days is late by as long."""

LONGEST_SPREAD = timedelta(hours=1)
FIRST_DELAY = 30.0
LONGEST_DELAY = 3600.0
SHORTEST_DELAY = 1.0
_IN_PARTS = 10
"""Spread and delays take at most this part of the notice, so that there is time for several attempts."""


class State(StrEnum):
    """What the dates of a certificate say."""

    FINE = "fine"
    DUE = "due"
    EXPIRED = "expired"
    NOT_YET_VALID = "not yet valid"
    """Most often this host's clock is wrong; another certificate would change nothing."""


@dataclass(frozen=True)
class Decision:
    """What to do about a certificate, and why. The times are aware."""

    state: State
    due_at: datetime
    not_after: datetime
    remaining: timedelta
    """Until its end; negative after it."""

    @property
    def renew(self) -> bool:
        """Whether it is to be replaced now."""
        return self.state in {State.DUE, State.EXPIRED}

    @property
    def days_left(self) -> int:
        """Whole days until its end, -1 from the first second after it."""
        return math.floor(self.remaining / timedelta(days=1))

    @property
    def notice(self) -> timedelta:
        """How long before its end it is due."""
        return self.not_after - self.due_at


def decide(
    not_before: datetime, not_after: datetime, now: datetime, renew_before: RenewBefore | None = None
) -> Decision:
    """Whether a certificate with these dates is to be renewed at `now`. All times are aware.

    It is valid up to and including `not_after` (RFC 5280, section 4.1.2.5). Dates in the wrong order are expired.
    """
    due = due_at(not_before, not_after, renew_before)
    if now > not_after:
        state = State.EXPIRED
    elif now < not_before:
        state = State.NOT_YET_VALID
    elif now >= due:
        state = State.DUE
    else:
        state = State.FINE
    return Decision(state, due, not_after, not_after - now)


def renewal_time(decision: Decision, rng: Random) -> datetime:
    """When one host among many renews: within an hour (or a tenth of the notice) from `due_at` on.

    To be drawn once for a certificate, and kept.
    """
    spread = min(LONGEST_SPREAD, decision.notice / _IN_PARTS)
    return decision.due_at + spread * rng.random()


def sleep_until(moment: datetime, now: datetime) -> float:
    """Seconds to sleep before the clock is asked again whether it is `moment`: 0 (it is) to `MOST_SLEEP`."""
    return min(max((moment - now).total_seconds(), 0.0), MOST_SLEEP)


def retry_delay(failures: int, notice: timedelta, rng: Random) -> float:
    """Seconds to wait after the last of `failures` (from 1) attempts in a row.

    Exponential with full jitter: what breaks many hosts at once is not met by all of them at once when it is back.
    """
    longest = min(max(notice.total_seconds() / _IN_PARTS, SHORTEST_DELAY), LONGEST_DELAY)
    doublings = min(max(failures, 1) - 1, 30)  # far beyond the longest, and no overflow
    return max(SHORTEST_DELAY, rng.uniform(0.0, min(FIRST_DELAY * 2.0**doublings, longest)))
