"""Carrying out a plan: add, wait until the new rules act, and only then remove.

All add-ons are worked on at once, and all adds of one add-on (so many at a time), so that the whole takes as long as
the slowest rule. Each add-on's rules are listed once a round, and the list alone decides what comes next: see
`mtlskit.allowlist.goal`. So a lost answer, a kill, or another host at work on the same rules costs a round and nothing
else; and the list that ends the work is the proof that everything is as it should be. What keeps coming undone is put
back a few times, then given up and told.

Nothing is removed from an add-on where a wanted rule is missing or does not act yet, with one exception: where there is
no room, and the caller has allowed a gap, as many as are needed go first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from ipaddress import IPv4Network
from typing import Final, TypeVar

import trio

from mtlskit.allowlist.api import RuleApi
from mtlskit.allowlist.applied import AddonApplied, Applied, ApplyUnfinished
from mtlskit.allowlist.coverage import network_of
from mtlskit.allowlist.events import (
    AddonFailed,
    RuleAdded,
    RulePutBack,
    RuleRemoved,
    RulesActing,
    RulesAuthorizing,
)
from mtlskit.allowlist.goal import Goal, Missing, Outlook, goal_of
from mtlskit.allowlist.plan import Plan
from mtlskit.errors import AllowlistError, Code, MtlskitError
from mtlskit.heroku.passing import may_pass
from mtlskit.heroku.values import MOST_RULES, IpRule
from mtlskit.heroku.waiting import pauses
from mtlskit.telemetry import Emit, silent

__all__ = ["AT_ONCE", "apply"]

_T = TypeVar("_T")

AT_ONCE: Final = 4
"""Adds, or removals, of one add-on at the same time. How many requests there are in all, the client bounds."""

_MOST_TRIES: Final = 3
"""Of each change. More would be a quarrel with another host, or with Heroku."""

_TRY_FOR: Final = 60.0
"""Seconds after which no change that failed is tried again, unless there is more time to wait: the client has been
patient with each try already, for minutes where Heroku fails to add a rule."""


async def apply(
    api: RuleApi,
    plan: Plan,
    *,
    wait: float | None,
    emit: Emit = silent,
    at_once: int = AT_ONCE,
    again: str = "mtlskit allowlist apply",
) -> Applied:
    """Carry out `plan`, and wait up to `wait` seconds for rules to act (None: not at all).

    A call that has begun is never cut off: it may take as long as the client's patience.

    Without waiting, what is to be removed stays where a wanted rule does not act yet; the next run removes it. `again`
    is the command that takes up what is left. Raises `ApplyUnfinished` (an `AllowlistError`, ALLOW_UNFINISHED) where
    something failed or the time ran out; it holds what was done. Errors of one add-on do not stop the others.
    """
    began = trio.current_time()
    done: dict[int, AddonApplied] = {}  # by place: two lists may have one add-on

    async def work(place: int, worker: _Worker) -> None:
        done[place] = await worker.run()

    async with trio.open_nursery() as nursery:
        for place, each in enumerate(plan.addons):
            nursery.start_soon(work, place, _Worker(api, goal_of(each), wait, emit, each.over, at_once))
    addons = tuple(done[place] for place in range(len(plan.addons)))
    applied = Applied(addons, seconds=trio.current_time() - began, waited=wait is not None)
    if not applied.finished:
        raise ApplyUnfinished(applied, again)
    return applied


class _Worker:
    """One add-on's way to its goal."""

    def __init__(self, api: RuleApi, goal: Goal, wait: float | None, emit: Emit, over: int, at_once: int) -> None:
        self.goal = goal
        self._api = api
        self._wait = wait
        self._emit = emit
        self._over = over
        """How many rules may go before their successors act: as many as the plan has looked at."""
        self._at_once = at_once
        self._began = trio.current_time()
        self._pauses = pauses()
        self._awaited = False
        self._tries: Counter[str] = Counter()
        self._seen: set[IPv4Network] = set()
        """Ranges that had a rule: where one is missing later, somebody has removed it."""
        self._there: dict[str, IpRule] | None = None
        """The rules, by id: as they were listed, and what was done since. None: never listed."""
        self._added: dict[str, IpRule] = {}
        self._removed: dict[str, IpRule] = {}

    async def run(self) -> AddonApplied:
        failure: MtlskitError | None = None
        try:
            while await self._step():
                pass
        except MtlskitError as exc:
            failure = exc
            hint = exc.hint
            self._emit(AddonFailed(addon=self.goal.addon, code=exc.code.value, reason=exc.sentence, hint=hint))
        return self._result(failure)

    async def _step(self) -> bool:
        """Look, and do what comes next; whether there may be more to do."""
        found = await self._list()
        if found is None:
            return True
        outlook = self.goal.look(found)
        self._seen |= self.goal.wanted.keys() - {each.cidr for each in outlook.missing}
        needed = len(found) + len(outlook.missing) - MOST_RULES
        if outlook.missing and needed > 0:
            await self._make_room(outlook, needed)
        elif outlook.missing:
            await self._add(outlook.missing)
        elif outlook.waiting:
            return await self._pause(outlook)
        elif outlook.extra:
            self._tell_acting()
            await self._remove(outlook.extra)
        else:
            self._tell_acting()
            return False
        return True

    async def _list(self) -> Sequence[IpRule] | None:
        """The rules; None where they could not be had, and there is time to try again."""
        try:
            found = await self._api.ip_rules(self.goal.addon, self.goal.kind)
        except MtlskitError as exc:
            if not may_pass(exc) or not await self._sleep():
                raise
            return None
        self._there = {rule.id: rule for rule in found}
        return found

    async def _pause(self, outlook: Outlook) -> bool:
        elapsed = trio.current_time() - self._began
        pause = self._next_pause()
        if pause is None:
            return False
        self._awaited = True
        waiting = len({rule.cidr for rule in outlook.waiting})
        self._emit(
            RulesAuthorizing(
                addon=self.goal.addon,
                authorizing=waiting,
                rules=len(self.goal.wanted),
                elapsed=elapsed,
                next_look=pause,
            )
        )
        await trio.sleep(pause)
        return True

    async def _sleep(self) -> bool:
        pause = self._next_pause()
        if pause is None:
            return False
        await trio.sleep(pause)
        return True

    def _next_pause(self) -> float | None:
        """Seconds; None when the time is over. The last look is at the very end of it."""
        left = (self._wait or 0.0) - (trio.current_time() - self._began)
        return min(next(self._pauses), left) if left > 0 else None

    async def _make_room(self, outlook: Outlook, needed: int) -> None:
        """Remove `needed` rules before their successors act, in the plan's order: it has looked whom that locks out."""
        extra = outlook.extra
        gone = len(self._removed)  # all of them to make room: nothing else goes while a rule is missing
        if needed > self._over - gone or len(extra) < needed:
            more = "remove rules that nobody needs, or join ranges that lie side by side (collapse)"
            raise AllowlistError(
                Code.ALLOW_FULL,
                f"{self.goal.addon}: no room for {_count_of(len(outlook.missing), 'more rule')}: the limit is "
                f"{MOST_RULES}, and rules are removed only when their successors act",
                f"--allow-gap removes {_count_of(needed, 'old rule')} first" if len(extra) >= needed else more,
            )
        await self._remove(extra[:needed])

    async def _add(self, missing: Sequence[Missing]) -> None:
        self._pauses = pauses()  # what is new may be quick
        await self._several(missing, self._add_one)

    async def _add_one(self, missing: Missing) -> None:
        addon, cidr = self.goal.addon, str(missing.cidr)
        if missing.cidr in self._seen:
            self._emit(RulePutBack(addon=addon, cidr=cidr, description=missing.description))
            self._count(cidr, f"{addon}: {cidr} is removed again and again by somebody else")
        try:
            rule = await self._api.add_ip_rule(addon, self.goal.kind, cidr, missing.description)
        except MtlskitError as exc:
            # What is refused may have been added by somebody who was quicker: the list tells.
            self._retry(f"add {cidr}", exc, refused_before=self._tries[f"add {cidr}"] > 0)
            return
        self._added[rule.id] = rule
        self._know()[rule.id] = rule
        self._seen.add(missing.cidr)
        self._emit(RuleAdded(addon=addon, cidr=rule.cidr, description=rule.description))

    async def _remove(self, extra: Sequence[IpRule]) -> None:
        await self._several(extra, self._remove_one)

    async def _remove_one(self, rule: IpRule) -> None:
        # The count is also for a rule that stays in the list although it was removed.
        self._count(f"remove {rule.id}", f"{self.goal.addon}: {rule.cidr} is still listed after it was removed")
        try:
            await self._api.delete_ip_rule(self.goal.addon, self.goal.kind, rule.id)
        except MtlskitError as exc:
            self._retry(f"delete {rule.id}", exc)
            return
        self._removed[rule.id] = rule
        self._know().pop(rule.id, None)
        duplicate = network_of(rule) in self.goal.wanted
        self._emit(
            RuleRemoved(addon=self.goal.addon, cidr=rule.cidr, description=rule.description, duplicate=duplicate)
        )

    def _retry(self, what: str, exc: MtlskitError, *, refused_before: bool = True) -> None:
        """Leave it to the next round, which sees in the list whether it took effect; or give up."""
        self._tries[what] += 1
        again = may_pass(exc) or (exc.code is Code.API_REFUSED and not refused_before)
        late = trio.current_time() - self._began > max(self._wait or 0.0, _TRY_FOR)
        if late or not again or self._tries[what] >= _MOST_TRIES:
            raise exc

    def _count(self, what: str, sentence: str) -> None:
        self._tries[what] += 1
        if self._tries[what] > _MOST_TRIES:
            raise AllowlistError(
                Code.ALLOW_UNFINISHED, sentence, "see who else changes these rules: mtlskit allowlist list"
            )

    async def _several(self, items: Iterable[_T], work: Callable[[_T], Awaitable[None]]) -> None:
        """All of them, so many at a time. Each is tried; then the first error is raised."""
        limit = trio.CapacityLimiter(self._at_once)
        errors: list[MtlskitError] = []

        async def one(item: _T) -> None:
            async with limit:
                try:
                    await work(item)
                except MtlskitError as exc:
                    errors.append(exc)

        async with trio.open_nursery() as nursery:
            for item in items:
                nursery.start_soon(partial(one, item))
        if errors:
            raise errors[0]

    def _tell_acting(self) -> None:
        if self._awaited:
            self._awaited = False
            elapsed = trio.current_time() - self._began
            self._emit(RulesActing(addon=self.goal.addon, rules=len(self.goal.wanted), elapsed=elapsed))

    def _result(self, failure: MtlskitError | None) -> AddonApplied:
        outlook = self.goal.look(self._know().values()) if self._there is not None else Outlook((), (), ())
        return AddonApplied(
            self.goal.addon,
            self.goal.kind,
            rules=len(self.goal.wanted),
            added=tuple(self._added.values()),
            removed=tuple(self._removed.values()),
            missing=outlook.missing,
            waiting=outlook.waiting,
            left=outlook.extra,
            failure=failure,
            looked=self._there is not None,
        )

    def _know(self) -> dict[str, IpRule]:
        return self._there if self._there is not None else {}


def _count_of(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
