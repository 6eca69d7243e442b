"""What happens to allowlists: progress for people, facts for the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.telemetry import Event, Level

__all__ = [
    "AddonFailed",
    "AddressBelieved",
    "ListRead",
    "RuleAdded",
    "RulePutBack",
    "RuleRemoved",
    "RulesActing",
    "RulesAuthorizing",
    "TurnAwaited",
    "WatchRecovered",
    "WatchTroubled",
]


@dataclass(frozen=True, kw_only=True)
class _OfAddon(Event):
    addon: str


@dataclass(frozen=True, kw_only=True)
class _OfRule(_OfAddon):
    cidr: str
    description: str


@dataclass(frozen=True, kw_only=True)
class RuleAdded(_OfRule):
    """Heroku has taken a rule. It does not act yet."""

    def sentence(self) -> str:
        return f"{self.addon}: added {self.cidr} {self.description}"


@dataclass(frozen=True, kw_only=True)
class RulePutBack(_OfRule):
    """A rule that had been there was gone, and is being added again."""

    level: ClassVar[Level] = Level.WARNING

    def sentence(self) -> str:
        return f"{self.addon}: somebody removed {self.cidr} meanwhile; adding it again"


@dataclass(frozen=True, kw_only=True)
class RuleRemoved(_OfRule):
    """A rule was taken away."""

    duplicate: bool = False
    """There is another rule for the same range."""

    def sentence(self) -> str:
        why = " (a second rule for the same range)" if self.duplicate else ""
        return f"{self.addon}: removed {self.cidr} {self.description}{why}"


@dataclass(frozen=True, kw_only=True)
class RulesAuthorizing(_OfAddon):
    """Rules are there and do not act yet."""

    authorizing: int
    rules: int
    elapsed: float
    """Seconds."""
    next_look: float
    """Seconds."""

    def state(self) -> str:
        """Without the times."""
        return f"{self.addon}: {self.authorizing} of {self.rules} rules authorizing"

    def sentence(self) -> str:
        return f"{self.state()}, {_span(self.elapsed)} so far; looking again in {_span(self.next_look)}"


@dataclass(frozen=True, kw_only=True)
class RulesActing(_OfAddon):
    """Every rule that was waited for acts."""

    rules: int
    elapsed: float
    """Seconds."""

    @property
    def next_look(self) -> None:
        """There is none."""

    def state(self) -> str:
        """Without the times."""
        return f"{self.addon}: all {self.rules} rules act"

    def sentence(self) -> str:
        return f"{self.state()}, after {_span(self.elapsed)}"


@dataclass(frozen=True, kw_only=True)
class AddonFailed(_OfAddon):
    """An add-on's rules could not be brought to what they should be. The other add-ons go on."""

    level: ClassVar[Level] = Level.ERROR

    code: str
    reason: str
    hint: str

    def sentence(self) -> str:
        reason = self.reason.removeprefix(f"{self.addon}: ")  # most sentences begin with it
        return f"{self.addon}: {reason} [{self.code}]{'; ' if self.hint else ''}{self.hint}"


@dataclass(frozen=True, kw_only=True)
class ListRead(Event):
    """A list that others publish was read."""

    source: str
    rules: int
    left_out: int
    """IPv6 entries."""

    def sentence(self) -> str:
        left = f"; {self.left_out} of IPv6 left out, which IP rules do not take" if self.left_out else ""
        return f"{self.source}: {self.rules} ranges{left}"


@dataclass(frozen=True, kw_only=True)
class TurnAwaited(Event):
    """Another process of this host changes the rules of the same owner."""

    owner: str
    holder: str

    def sentence(self) -> str:
        return f"waiting: {self.holder} is changing the rules of {self.owner}"


@dataclass(frozen=True, kw_only=True)
class AddressBelieved(Event):
    """A watcher has learnt this host's external address."""

    address: str
    before: str
    """Empty for the first one."""

    def sentence(self) -> str:
        changed = f" (it was {self.before})" if self.before else ""
        return f"my address is {self.address}{changed}"


@dataclass(frozen=True, kw_only=True)
class WatchTroubled(Event):
    """A watcher cannot do something right now. Told once, until it works again or something else is wrong."""

    level: ClassVar[Level] = Level.WARNING

    what: str
    """An add-on, or `my address`."""
    code: str
    reason: str
    hint: str

    def sentence(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        reason = self.reason.removeprefix(f"{self.what}: ")
        return f"{self.what}: {reason} [{self.code}]{hint}; trying again and again"


@dataclass(frozen=True, kw_only=True)
class WatchRecovered(Event):
    """What a watcher could not do works again."""

    what: str

    def sentence(self) -> str:
        return f"{self.what}: works again"


def _span(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
