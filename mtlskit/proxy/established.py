"""The sessions that the relay moves: handed over, watched by one task for all, and told of when they end.

A proxy may carry thousands of sessions that do nothing for hours. A task that waits for the end of each would weigh,
with the frames that it keeps alive, as much as all else of such a session but OpenSSL's part. So the task that has
dialled and logged in ends with the hand-over, and what remains to be done (a line in the log, a seat to give back)
waits here as one small record.

`run` is the task. When it is cancelled, it ends the sessions that are left, and waits until their sockets are closed:
nobody else does, so it must live as long as anybody may call `take_over`.
"""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import trio

from mtlskit.net.relay import Ending, HandOver, Pair, Relay
from mtlskit.proxy.endings import SessionFacts, tell_cut, tell_ending
from mtlskit.proxy.events import SessionCrashed
from mtlskit.proxy.expiry import Clock, Expiry, HasIdentity, wall_clock
from mtlskit.proxy.stay import Stay
from mtlskit.telemetry import Emit

__all__ = ["Established"]


@dataclass(frozen=True, slots=True)
class _Session:
    facts: SessionFacts
    stay: Stay


class Established:
    """All of one proxy. Made under trio; every method is called from its thread."""

    def __init__(self, relay: Relay, emit: Emit, clock: Clock = wall_clock) -> None:
        self._relay = relay
        self._emit = emit
        self._token = trio.lowlevel.current_trio_token()
        self._sessions: dict[Pair, _Session] = {}
        self._over: deque[Pair] = deque()
        self._news = trio.Event()
        self._cutting = False
        self._expiry = Expiry(relay, emit, clock)

    def take_over(
        self, handover: HandOver, facts: SessionFacts, stay: Stay, *, tunnel: HasIdentity | None = None
    ) -> None:
        """Let the relay move a session, and end `stay` when it is over.

        One that has an observer is ended before its certificate does (`mtlskit.proxy.expiry`), once `tunnel` has a
        newer one.

        The caller has passed a checkpoint right before: a cancelled task must not hand anything over, because `run` may
        have ended.
        """
        stay.established = True
        pair = self._relay.begin(handover, self._heard)
        self._sessions[pair] = _Session(facts, stay)
        if handover.observer is not None and facts.identity is not None and tunnel is not None:
            self._expiry.add(pair, facts.tunnel, facts.identity, tunnel)

    def serials(self, tunnel: str) -> dict[str, int]:
        """How many sessions of a tunnel are open, by the serial of the client certificate that they were opened with.

        Lower-case hexadecimal, as `IdentitySnapshot.serial`. Counted anew for each call.
        """
        every = (session.facts for session in self._sessions.values())
        return dict(Counter(facts.identity.serial for facts in every if facts.tunnel == tunnel and facts.identity))

    async def run(self) -> None:
        """Tell of the sessions that end, until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expiry.run)
                await self._settle_until(lambda: False)
        finally:
            self._cutting = True
            for pair in self._sessions:
                self._relay.abort(pair)
            with trio.CancelScope(shield=True):
                await self._settle_until(lambda: not self._sessions)

    def _heard(self, pair: Pair) -> None:
        """In the relay's thread: a session is over."""
        # Trio may have gone when a thread of a crashed program gets here.
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._note, pair)

    def _note(self, pair: Pair) -> None:
        # No more than this: an exception here would be trio's own end.
        self._over.append(pair)
        self._news.set()

    async def _settle_until(self, done: Callable[[], bool]) -> None:
        while True:
            while self._over:
                self._settle(self._over.popleft())
            if done():
                return
            await self._news.wait()
            self._news = trio.Event()

    def _settle(self, pair: Pair) -> None:
        session, outcome = self._sessions.pop(pair), pair.outcome
        facts = session.facts
        if facts.identity is not None:
            self._expiry.discard(pair, facts.tunnel, facts.identity)
        try:
            if self._cutting and outcome.ending is Ending.ABORTED:
                tell_cut(self._emit, facts)
            else:
                tell_ending(self._emit, facts, outcome)
        except Exception:  # noqa: BLE001 - a fault of ours in one session's end is told; the others go on
            self._emit(SessionCrashed(tunnel=facts.tunnel, client=facts.client, traceback=traceback.format_exc()))
        finally:
            session.stay.end()
