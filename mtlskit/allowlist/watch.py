"""Following a changing address: the new one is let in, and when its rule acts, the old one's goes.

There are no steps to be remembered. Each look at an add-on lists its rules and does what is next: add the rule for the
address that this host has now; or wait for it; or, when it acts, remove our rules for addresses that it no longer has.
So a watcher that is killed is taken up by the next one, and an address that changes again while its rule is waited for
(or changes back) needs nothing special: until the rule for the address of now acts, none is removed.

Which rules are for an address of this host is told by owner and description (`my address`); every other rule is left
alone. Adding takes no lock, because it is urgent and harms nobody; removing waits until no other process of this host
changes the owner's rules. The address is looked for at one pace, add-ons at another: often while something is awaited,
else now and then, in case somebody has removed the rule.

Where the services name several addresses again and again, this host is behind a pool. No single rule follows that, so
the watcher stops and names them; what is there stays.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from random import Random
from typing import Final, NoReturn

import trio

from mtlskit.allowlist.api import RuleApi
from mtlskit.allowlist.coverage import network_of
from mtlskit.allowlist.events import (
    AddressBelieved,
    RuleAdded,
    RuleRemoved,
    RulesActing,
    RulesAuthorizing,
    WatchRecovered,
    WatchTroubled,
)
from mtlskit.allowlist.gather import Found
from mtlskit.allowlist.goal import Goal
from mtlskit.allowlist.my_ip import MyAddresses
from mtlskit.allowlist.owner import Owner, bare
from mtlskit.allowlist.plan import MY_ADDRESS
from mtlskit.allowlist.turns import turn
from mtlskit.errors import AllowlistError, Code, MtlskitError
from mtlskit.heroku.values import MOST_RULES, AddonKind, IpRule
from mtlskit.heroku.waiting import pauses
from mtlskit.telemetry import Emit, silent

__all__ = ["INTERVAL", "watch"]

INTERVAL: Final = 60.0
"""Seconds between two looks at the address. The services are free of charge, and not ours."""

_CHECK: Final = 600.0
"""Seconds between two looks at an add-on where nothing is awaited."""

_JITTER: Final = 0.1  # so that many hosts that started together do not ask together for ever
_SHORT: Final = 10.0  # seconds until several addresses are looked at again: the change may be happening right now
_MOST_DISAGREEMENTS: Final = 3
_FIRST_RETRY, _LAST_RETRY = 15.0, 600.0  # seconds
_ADDRESS: Final = "my address"

Look = Callable[[], Awaitable[MyAddresses]]
Turn = Callable[[], AbstractAsyncContextManager[None]]


async def watch(
    api: RuleApi,
    addons: Sequence[Found],
    *,
    owner: Owner,
    look: Look,
    state: Path,
    fixed: Collection[IPv4Network] = (),
    emit: Emit = silent,
    interval: float = INTERVAL,
    rng: Random,
) -> NoReturn:
    """Let the address of this host in at `addons`, whatever it becomes, until cancelled.

    `look` asks for it (`my_addresses` with `trusted_only`); `state` is the folder of the locks. `fixed` are ranges that
    the file names: a rule for one of them is never an old address. An API or a service that fails is tried again for
    ever. Raises `AllowlistError` (ALLOW_MY_IP_DISAGREE) where there are several addresses.
    """
    tools = _Tools(api, owner, frozenset(fixed), partial(turn, state, owner, wait=0.0), emit, rng)
    watcher = _Watcher(tools, look, interval, [_Kept(tools, each.addon, each.kind) for each in addons])
    while True:
        await watcher.step()


@dataclass(frozen=True)
class _Tools:
    api: RuleApi
    owner: Owner
    fixed: frozenset[IPv4Network]
    turn: Turn
    emit: Emit
    rng: Random
    removing: trio.Lock = field(default_factory=trio.Lock)
    """Our own add-ons do not take turns away from each other."""


@dataclass
class _Trouble:
    """Something that fails again and again is told once, and tried at growing intervals."""

    what: str
    tools: _Tools
    told: str = ""
    failures: int = 0

    def failed(self, exc: MtlskitError) -> float:
        """Tell it, if it is new; seconds until the next try."""
        if self.told != exc.code.value:
            self.told = exc.code.value
            self.tools.emit(WatchTroubled(what=self.what, code=self.told, reason=exc.sentence, hint=exc.hint))
        pause = min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(self.failures, 10))
        self.failures += 1
        return pause * self.tools.rng.uniform(0.5, 1.0)

    def over(self) -> None:
        if self.told:
            self.tools.emit(WatchRecovered(what=self.what))
        self.told, self.failures = "", 0


class _Watcher:
    """The one loop: when to look at the address, and when at which add-on."""

    def __init__(self, tools: _Tools, look: Look, interval: float, kept: Sequence[_Kept]) -> None:
        self._tools = tools
        self._look = look
        self._interval = interval
        self._kept = kept
        self._trouble = _Trouble(_ADDRESS, tools)
        self._address: IPv4Address | None = None
        self._due = trio.current_time()
        self._disagreements = 0

    async def step(self) -> None:
        """Do what is due, and sleep until something is."""
        if trio.current_time() >= self._due:
            await self._follow()
        address = self._address
        if address is not None:
            now = trio.current_time()
            async with trio.open_nursery() as nursery:
                for each in self._kept:
                    if each.due <= now:
                        nursery.start_soon(each.check, address)
            await trio.sleep_until(min([self._due, *(each.due for each in self._kept)]))
        else:
            await trio.sleep_until(self._due)

    async def _follow(self) -> None:
        try:
            seen = await self._look()
        except MtlskitError as exc:
            self._due = trio.current_time() + self._trouble.failed(exc)
            return
        self._trouble.over()
        if seen.agreed is None:
            self._disagreements += 1
            if self._disagreements >= _MOST_DISAGREEMENTS:
                raise _disagree(seen)
            if self._disagreements == 1:
                told = _disagree(seen)
                self._tools.emit(WatchTroubled(what=_ADDRESS, code=told.code.value, reason=told.sentence, hint=""))
            self._due = trio.current_time() + _SHORT
            return
        self._disagreements = 0
        self._due = trio.current_time() + self._interval * self._tools.rng.uniform(1 - _JITTER, 1 + _JITTER)
        if seen.agreed != self._address:
            before = str(self._address) if self._address is not None else ""
            self._tools.emit(AddressBelieved(address=str(seen.agreed), before=before))
            self._address = seen.agreed
            for each in self._kept:
                each.changed()


@dataclass
class _Kept:
    """One add-on whose rule for this host's address is kept right."""

    tools: _Tools
    addon: str
    kind: AddonKind
    due: float = field(default_factory=trio.current_time)

    def __post_init__(self) -> None:
        self._trouble = _Trouble(self.addon, self.tools)
        self.changed()

    def changed(self) -> None:
        """The address is another one: look at once, and often."""
        self.due = self._since = trio.current_time()
        self._pauses: Iterator[float] = pauses()
        self._awaited = False

    async def check(self, address: IPv4Address) -> None:
        """Do what is next. Sets `due`."""
        try:
            pause = await self._next(address)
        except MtlskitError as exc:
            pause = self._trouble.failed(exc)
        else:
            self._trouble.over()
        self.due = trio.current_time() + pause

    async def _next(self, address: IPv4Address) -> float:
        """Add, or wait, or remove; seconds until the next look."""
        goal, found = await self._list(address)
        outlook = goal.look(found)
        if outlook.missing:
            if len(found) >= MOST_RULES:
                raise _full(self.addon, address)
            self._pauses = pauses()
            for each in outlook.missing:
                rule = await self.tools.api.add_ip_rule(self.addon, self.kind, str(each.cidr), each.description)
                self._tell(RuleAdded, rule)
            return self._wait()
        if outlook.waiting:
            return self._wait()
        if self._awaited:
            self._awaited = False
            elapsed = trio.current_time() - self._since
            self.tools.emit(RulesActing(addon=self.addon, rules=1, elapsed=elapsed))
        if outlook.extra and not await self._remove(address):
            return next(self._pauses)
        return _CHECK * self.tools.rng.uniform(1 - _JITTER, 1 + _JITTER)

    async def _remove(self, address: IPv4Address) -> bool:
        """Remove what is old; False where another process has its turn."""
        try:
            async with self.tools.removing, self.tools.turn():
                goal, found = await self._list(address)  # as it is now that nobody else is at it
                outlook = goal.look(found)
                if outlook.missing or outlook.waiting:
                    return False
                for rule in outlook.extra:
                    await self.tools.api.delete_ip_rule(self.addon, self.kind, rule.id)
                    self._tell(RuleRemoved, rule)
        except MtlskitError as exc:
            if exc.code is not Code.STORE_BUSY:
                raise
            return False
        return True

    async def _list(self, address: IPv4Address) -> tuple[Goal, Sequence[IpRule]]:
        found = await self.tools.api.ip_rules(self.addon, self.kind)
        here = IPv4Network(address)
        old = [rule for rule in found if self._is_old(rule, here)]
        covered = any(self._covers(rule, here) for rule in found)
        wanted = {} if covered else {here: self.tools.owner.tagged(MY_ADDRESS)}
        return Goal(self.addon, self.kind, wanted, tuple(rule.id for rule in old), self.tools.owner), found

    def _is_old(self, rule: IpRule, here: IPv4Network) -> bool:
        """A rule of ours for an address of this host, other than the one it has now."""
        network = network_of(rule)
        if network is None or network == here or network.prefixlen != network.max_prefixlen:
            return False
        ours = self.tools.owner.owns(rule.description) and bare(rule.description) == MY_ADDRESS
        return ours and network not in self.tools.fixed

    def _covers(self, rule: IpRule, here: IPv4Network) -> bool:
        """A wider rule of ours, which acts: no further one is needed."""
        network = network_of(rule)
        wider = network is not None and network != here and here.subnet_of(network)
        return wider and rule.authorized and self.tools.owner.owns(rule.description)

    def _wait(self) -> float:
        pause = next(self._pauses)
        self._awaited = True
        elapsed = trio.current_time() - self._since
        self.tools.emit(RulesAuthorizing(addon=self.addon, authorizing=1, rules=1, elapsed=elapsed, next_look=pause))
        return pause

    def _tell(self, kind: type[RuleAdded | RuleRemoved], rule: IpRule) -> None:
        self.tools.emit(kind(addon=self.addon, cidr=rule.cidr, description=rule.description))


def _disagree(seen: MyAddresses) -> AllowlistError:
    told = ", ".join(str(address) for address in sorted(seen.addresses))
    return AllowlistError(
        Code.ALLOW_MY_IP_DISAGREE,
        f"this host is seen with several addresses: {told}",
        "nothing was removed; let in the whole pool, as its range (mtlskit allowlist add CIDR), or ask from the "
        "interface that the database is reached by (`source` in [my_ip])",
    )


def _full(addon: str, address: IPv4Address) -> AllowlistError:
    return AllowlistError(
        Code.ALLOW_FULL,
        f"{addon}: no room for {address}: there are {MOST_RULES} rules, and an old one goes when its successor acts",
        f"take a rule away that nobody needs: mtlskit allowlist list --addon {addon}",
    )
