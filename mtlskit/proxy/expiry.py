"""`expiring_sessions = "drain"`: sessions whose client certificate is about to end are ended before, one by one.

PostgreSQL looks at a certificate in the handshake only, so nothing forces a session to end with it. Where a rule of the
house does, this is how it is kept without breaking anybody's work:

* From a tenth of the certificate's life before its end on, ten minutes at most, the sessions that were opened with it
  are **asked to end**: each goes at a quiet point (`mtlskit.wire.postgres.quiet`), with an ErrorResponse that says why
  and that a new connection is welcome.
* They are asked **gently** at first: for half of the time that is left, only those end that have rested for some
  seconds. A pool finds out about an idle connection that has gone, or looks before it lends one; a program that is
  about to send its next query would have to cope with an error. Then they are asked **firmly**: one that does not rest
  has its next query answered by the ErrorResponse, if no transaction is open, and the server never sees that query.
  Either goes on one by one, so that not all of them connect again at once, and proxies that share a certificate do not
  begin at the same moment.
* A session that is busy is **never cut**, not even when the certificate has ended: a long transaction goes on, and the
  session ends after it. The log says how many there are when the moment has come.
* Sessions are asked only when the tunnel has **an identity that ends later**. With nothing newer they would come
  back with the same certificate, and after its end not at all: they go on, and the log says so, once. As soon as a
  reload brings something newer, the asking begins.

What counts is the certificate that the session's connection was made with, which for one made in advance may be older
than the session. A rotation alone ends nothing: sessions with the certificate before go on until that one ends.

One task looks after all of them: every second while there is something to do, and at least once a minute else, because
the wall clock may jump and a laptop may sleep; nothing is remembered that a clock set back could make wrong, but that
a session has been asked, which cannot be taken back.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

import trio

from mtlskit.errors import ClientLimitReached, Code
from mtlskit.net.identity import IdentitySnapshot
from mtlskit.net.relay import Pair
from mtlskit.proxy.answers import as_error_response
from mtlskit.proxy.events import SessionCrashed, SessionsBusy, SessionsExpiring, SessionsKept
from mtlskit.telemetry import Emit
from mtlskit.wire.postgres.messages import frame

__all__ = ["Clock", "Expiry", "HasIdentity", "drain_time", "farewell", "wall_clock"]

_LONGEST_DRAIN = timedelta(minutes=10)
_SHARE_OF_LIFE = 10
"""A tenth: a certificate of an hour is drained for six minutes."""

_LATE = timedelta(minutes=1)
"""What counts as left of a certificate that had ended before anything newer came."""

_REST = 2.0
"""Seconds. Longer than a program takes from one query of a request to the next, and than pools trust a connection."""

_TICK = 1.0
_LONGEST_SLEEP = 60.0
"""Seconds between two looks at the clock, with something to do and without."""

_GOODBYE = frame(b"X", b"")
"""Terminate (docs, "Message Formats"): the server ends the session as if the client had left."""

Clock = Callable[[], datetime]
"""What time it is, aware."""


class HasIdentity(Protocol):
    """A tunnel, as far as this module knows it."""

    @property
    def identity(self) -> IdentitySnapshot:
        """What new sessions are dialled with."""


class EndsQuietly(Protocol):
    """The relay, as far as this module knows it."""

    def end_quietly(
        self, pair: Pair, farewell: bytes, goodbye: bytes, *, rested: float = 0.0, firmly: bool = False
    ) -> None:
        """See `Relay`."""


def wall_clock() -> datetime:
    """This host's time, UTC."""
    return datetime.now(UTC)


def drain_time(identity: IdentitySnapshot) -> timedelta:
    """How long before the certificate's end its sessions begin to be asked, at most."""
    life = identity.not_after - identity.pair.leaf.not_valid_before_utc
    return min(_LONGEST_DRAIN, life / _SHARE_OF_LIFE)


def farewell(identity: IdentitySnapshot) -> bytes:
    """What a client is told whose session ends because of this identity."""
    return as_error_response(
        ClientLimitReached(
            Code.DOOR_CERTIFICATE_ENDS,
            "this session was opened with a client certificate that ends at"
            f" {identity.not_after:%Y-%m-%d %H:%M} UTC, and has been ended while nothing was in flight",
            "connect again: the new session uses the new certificate",
        )
    )


class _Group:
    """The sessions of one tunnel that were opened with one certificate."""

    def __init__(self, tunnel: str, opened_with: IdentitySnapshot, current: HasIdentity) -> None:
        self.tunnel = tunnel
        self.opened_with = opened_with
        self.current = current
        self.begins = opened_with.not_after - drain_time(opened_with) * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load
        self.waiting: dict[Pair, None] = {}
        """Not asked yet, in the order in which they came."""
        self.gently: dict[Pair, None] = {}
        self.firmly: dict[Pair, None] = {}
        """Those that have been asked, in these ways."""
        self.deadlines: tuple[datetime, datetime] | None = None
        """When all are to have been asked gently, and firmly; None while none is asked."""
        self.told: set[type[SessionsBusy | SessionsExpiring | SessionsKept]] = set()

    @property
    def replaced(self) -> bool:
        """Whether a session that ends now comes back with a certificate that ends later."""
        return self.current.identity.not_after > self.opened_with.not_after

    def __len__(self) -> int:
        return len(self.waiting) + len(self.gently) + len(self.firmly)

    def discard(self, pair: Pair) -> None:
        for pairs in (self.waiting, self.gently, self.firmly):
            pairs.pop(pair, None)


class Expiry:
    """Asks sessions to end before their certificates do. Every method is called from trio's thread."""

    def __init__(self, relay: EndsQuietly, emit: Emit, clock: Clock = wall_clock) -> None:
        self._relay = relay
        self._emit = emit
        self._clock = clock
        self._groups: dict[tuple[str, str, datetime], _Group] = {}
        self._wake = trio.Event()

    def add(self, pair: Pair, tunnel: str, opened_with: IdentitySnapshot, current: HasIdentity) -> None:
        """Look after a session from now on. `current` is asked for the tunnel's identity when the time comes."""
        key = _key(tunnel, opened_with)
        if key not in self._groups:
            self._groups[key] = _Group(tunnel, opened_with, current)
            self._wake.set()
        self._groups[key].waiting[pair] = None

    def discard(self, pair: Pair, tunnel: str, opened_with: IdentitySnapshot) -> None:
        """A session is over; it may be one that was never added."""
        group = self._groups.get(_key(tunnel, opened_with))
        if group is not None:
            group.discard(pair)
            if not len(group):
                del self._groups[_key(tunnel, opened_with)]

    async def run(self) -> None:
        """Ask whom it is time to ask, until cancelled."""
        while True:
            self._wake = trio.Event()
            now = self._clock()
            for key, group in list(self._groups.items()):
                try:
                    self._look_after(group, now)
                except Exception:  # noqa: BLE001 - a fault of ours leaves these sessions to themselves, and no other
                    del self._groups[key]
                    text = traceback.format_exc()
                    self._emit(SessionCrashed(tunnel=group.tunnel, client="nobody (expiring sessions)", traceback=text))
            with trio.move_on_after(self._pause(now)):
                await self._wake.wait()

    def _pause(self, now: datetime) -> float:
        first = min((group.begins for group in self._groups.values()), default=now + timedelta(seconds=_LONGEST_SLEEP))
        return min(_LONGEST_SLEEP, max(_TICK, (first - now).total_seconds()))

    def _look_after(self, group: _Group, now: datetime) -> None:
        if now < group.begins:
            group.deadlines = None  # as it was before, or the clock has been set back
        elif not group.replaced:
            group.deadlines = None
            self._tell_once(group, SessionsKept)
        else:
            if group.deadlines is None:
                left = group.opened_with.not_after - now
                left = left if left > timedelta(0) else _LATE
                group.deadlines = (now + left / 2, now + left * 3 / 4)
                self._tell_once(group, SessionsExpiring)
            if group.firmly and len(group) == len(group.firmly) and now >= group.opened_with.not_after:
                self._tell_once(group, SessionsBusy)
            self._ask(group, now, *group.deadlines)

    def _ask(self, group: _Group, now: datetime, gently_by: datetime, firmly_by: datetime) -> None:
        if now < gently_by:
            group.gently |= _some(group.waiting, now, gently_by)
        else:
            # Those first that have not even been asked gently, because they came late: they are likely to be idle.
            group.waiting |= group.gently
            group.gently = {}
            group.firmly |= _some(group.waiting, now, firmly_by)
        words = farewell(group.opened_with), _GOODBYE
        # Again and again: whether one rests is asked of the moment.
        for pair in group.gently:
            self._relay.end_quietly(pair, *words, rested=_REST)
        for pair in group.firmly:
            self._relay.end_quietly(pair, *words, rested=_REST, firmly=True)

    def _tell_once(self, group: _Group, kind: type[SessionsBusy | SessionsExpiring | SessionsKept]) -> None:
        if kind not in group.told:
            group.told.add(kind)
            self._emit(
                kind(
                    tunnel=group.tunnel,
                    serial=group.opened_with.serial,
                    not_after=group.opened_with.not_after.isoformat(),
                    sessions=len(group),
                )
            )


def _some(pairs: dict[Pair, None], now: datetime, by: datetime) -> dict[Pair, None]:
    """Take out as many as are to be asked at this tick, so that all will have been asked by then."""
    ticks = max(1.0, (by - now).total_seconds() / _TICK)
    some = dict.fromkeys(list(pairs)[: math.ceil(len(pairs) / ticks)])
    for pair in some:
        del pairs[pair]
    return some


def _key(tunnel: str, identity: IdentitySnapshot) -> tuple[str, str, datetime]:
    # Not the snapshot itself: a reload of the same files makes another one of the same certificate.
    return (tunnel, identity.serial, identity.not_after)
