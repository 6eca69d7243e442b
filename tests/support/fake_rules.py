"""Heroku's IP rules, played: rules that take time to act, answers that take time, and calls that fail as told.

Every call has two moments at which it can fail: before its effect, and after it. `trouble` is asked at each of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Literal

import trio

from mtlskit.errors import Code, HerokuError
from mtlskit.heroku.values import MOST_RULES, Addon, AddonKind, IpRule

Phase = Literal["before", "after"]

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Crashed(Exception):
    """The process ended here."""


@dataclass(frozen=True)
class Call:
    """One call, as it began."""

    number: int
    verb: str
    addon: str
    what: str = ""


Trouble = Callable[[Call, Phase], None]


def no_trouble(call: Call, phase: Phase) -> None:
    """Everything works."""


def lost(number: int, when: Phase) -> Trouble:
    """Call `number` (from 1) loses its connection, as the client then says it."""

    def trouble(call: Call, phase: Phase) -> None:
        if (call.number, phase) == (number, when):
            code = Code.API_UNCERTAIN if call.verb == "add" else Code.API_UNREACHABLE
            raise HerokuError(code, f"the connection was lost {when} it took effect")

    return trouble


def crash(number: int, when: Phase) -> Trouble:
    """The process ends in call `number` (from 1)."""

    def trouble(call: Call, phase: Phase) -> None:
        if (call.number, phase) == (number, when):
            raise Crashed

    return trouble


@dataclass
class _Rule:
    id: str
    cidr: str
    description: str
    made: datetime
    acts_at: float


@dataclass
class FakeRules:
    """Implements `RuleApi` and `AddonApi`. Times in seconds of trio's clock."""

    takes: Callable[[str], float] = lambda cidr: 600.0
    """How long a rule takes to act."""
    latency: Callable[[], float] = lambda: 0.1
    trouble: Trouble = no_trouble
    duplicates: bool = True
    """Whether a second rule for one range is taken."""
    calls: list[Call] = field(default_factory=list)
    busiest: int = 0
    """The most calls at one time."""
    on_change: Callable[[FakeRules], None] = lambda rules: None
    """Called after each change: what must always hold."""

    def __post_init__(self) -> None:
        self._rules: dict[str, dict[str, _Rule]] = {}
        self._ids = count(1)
        self._under_way = 0
        self._order = random.Random(7)  # noqa: S311 - an order, no secret

    def put(self, addon: str, cidr: str, description: str, *, acts_in: float = -1.0) -> str:
        """A rule that is there already; its id."""
        rule = _Rule(f"r{next(self._ids):04}", cidr, description, self._now(), self._clock() + acts_in)
        self._rules.setdefault(addon, {})[rule.id] = rule
        return rule.id

    def take(self, addon: str, rule_id: str) -> None:
        """Somebody else removes a rule."""
        del self._rules[addon][rule_id]

    def at(self, addon: str) -> tuple[IpRule, ...]:
        """The rules, without a call."""
        return tuple(self._told(rule) for rule in self._rules.get(addon, {}).values())

    def cidrs(self, addon: str) -> list[str]:
        """Their ranges, sorted, each as often as it is there."""
        return sorted(rule.cidr for rule in self.at(addon))

    def verbs(self, addon: str | None = None) -> list[str]:
        """What was called, in order."""
        return [call.verb for call in self.calls if addon in (None, call.addon)]

    async def ip_rules(self, addon: str, kind: AddonKind, /) -> tuple[IpRule, ...]:
        async with _Calling(self, "list", addon):
            there = list(self.at(addon))
            self._order.shuffle(there)  # nobody promises an order
            return tuple(there)

    async def add_ip_rule(self, addon: str, kind: AddonKind, cidr: str, description: str, /) -> IpRule:
        async with _Calling(self, "add", addon, cidr):
            there = self._rules.setdefault(addon, {})
            if len(there) >= MOST_RULES:
                raise HerokuError(Code.API_REFUSED, f"{addon}: no more than {MOST_RULES} rules", status=422)
            if not self.duplicates and any(rule.cidr == cidr for rule in there.values()):
                raise HerokuError(Code.API_REFUSED, f"{addon}: {cidr} is there already", status=422)
            rule = _Rule(f"r{next(self._ids):04}", cidr, description, self._now(), self._clock() + self.takes(cidr))
            there[rule.id] = rule
            self.on_change(self)
            return self._told(rule)

    async def delete_ip_rule(self, addon: str, kind: AddonKind, rule_id: str, /) -> None:
        async with _Calling(self, "remove", addon, rule_id):
            self._rules.setdefault(addon, {}).pop(rule_id, None)
            self.on_change(self)

    async def addon(self, name: str, /) -> Addon:
        async with _Calling(self, "addon", name):
            kind = AddonKind.KAFKA if "kafka" in name else AddonKind.POSTGRES
            return Addon(f"id-{name}", name, None if "redis" in name else kind, "heroku-some", "some:plan", "app")

    def _told(self, rule: _Rule) -> IpRule:
        status = "Authorized" if self._clock() >= rule.acts_at else "Authorizing"
        return IpRule(rule.id, rule.cidr, rule.description, status, rule.made, rule.made)

    def _now(self) -> datetime:
        # To the second, as Heroku tells it: rules made at once have the same time.
        return _EPOCH + timedelta(seconds=int(self._clock()))

    def _clock(self) -> float:
        try:
            return trio.current_time()
        except RuntimeError:  # before the test's run
            return 0.0


class _Calling:
    """A call: half of its time before the effect, half after it."""

    def __init__(self, api: FakeRules, verb: str, addon: str, what: str = "") -> None:
        self._api = api
        self._call = Call(len(api.calls) + 1, verb, addon, what)
        api.calls.append(self._call)

    async def __aenter__(self) -> None:
        self._api._under_way += 1
        self._api.busiest = max(self._api.busiest, self._api._under_way)
        try:
            await trio.sleep(self._api.latency() / 2)
            self._api.trouble(self._call, "before")
        except BaseException:
            self._api._under_way -= 1
            raise

    async def __aexit__(self, kind: object, exc: object, trace: object) -> None:
        try:
            if exc is None:
                await trio.sleep(self._api.latency() / 2)
                self._api.trouble(self._call, "after")
        finally:
            self._api._under_way -= 1


def shuffled(seed: int) -> Callable[[], float]:
    """Latencies by which two tasks that run at once interleave differently for each seed."""
    rng = random.Random(seed)  # noqa: S311 - an order of events, no secret
    return lambda: rng.uniform(0.001, 3.0)
