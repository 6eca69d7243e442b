"""What became of a plan, and how it is said where something is left."""

from __future__ import annotations

from dataclasses import dataclass

from mtlskit.allowlist.goal import Missing
from mtlskit.errors import AllowlistError, Code, MtlskitError
from mtlskit.heroku.values import AddonKind, IpRule

__all__ = ["AddonApplied", "Applied", "ApplyUnfinished"]

_MOST_NAMED = 5
"""Ranges that a sentence names; the rest is counted."""


@dataclass(frozen=True)
class AddonApplied:
    """What became of one add-on's rules."""

    addon: str
    kind: AddonKind
    rules: int
    """How many are wanted."""
    added: tuple[IpRule, ...] = ()
    removed: tuple[IpRule, ...] = ()
    missing: tuple[Missing, ...] = ()
    """Wanted, and not there."""
    waiting: tuple[IpRule, ...] = ()
    """Wanted and there, and not acting yet."""
    left: tuple[IpRule, ...] = ()
    """To be removed, and still there."""
    failure: MtlskitError | None = None
    looked: bool = True
    """Its rules could be listed; where not, nothing was changed, and nothing is known."""

    @property
    def done(self) -> bool:
        """Everything is as it was planned, and acts."""
        return not (self.missing or self.waiting or self.left or self.failure)

    def sentence(self) -> str:
        """What is so, and what is not, on one line."""
        if self.done:
            return f"{self.addon}: done"
        acting = self.rules - len(self.missing) - len({rule.cidr for rule in self.waiting})
        parts = [f"{acting} of {self.rules} rules act"] if self.rules and self.looked else []
        if self.waiting:
            parts.append(f"still authorizing: {_named([rule.cidr for rule in self.waiting])}")
        if self.missing:
            parts.append(f"not added: {_named([str(each.cidr) for each in self.missing])}")
        if self.left:
            parts.append(f"not removed: {_named([rule.cidr for rule in self.left])}")
        if self.failure is not None:
            parts.append(f"{self.failure.sentence} [{self.failure.code}]")
        return f"{self.addon}: {', '.join(parts)}"


@dataclass(frozen=True)
class Applied:
    """What became of a plan."""

    addons: tuple[AddonApplied, ...]
    seconds: float
    waited: bool
    """Somebody wanted to wait until the rules act."""

    @property
    def done(self) -> bool:
        """Everything is as it was planned, and acts."""
        return all(each.done for each in self.addons)

    @property
    def finished(self) -> bool:
        """Nothing went wrong: done, or nobody wanted to wait and the rules that are wanted are there."""
        if self.waited:
            return self.done
        # What is to be removed may only wait for something that does not act yet.
        return all(
            not each.failure and not each.missing and bool(each.waiting or not each.left) for each in self.addons
        )


class ApplyUnfinished(AllowlistError):
    """Something of a plan is not as it should be. `applied` says what was done and what was not."""

    def __init__(self, applied: Applied, again: str) -> None:
        told = "; ".join(each.sentence() for each in applied.addons)
        failures = [each.failure for each in applied.addons if each.failure is not None]
        why = next((failure.hint for failure in failures if failure.hint), "")
        going_on = f"nothing is lost, and nothing is done twice: go on with `{again}`"
        super().__init__(Code.ALLOW_UNFINISHED, f"not finished: {told}", f"{why}; then {going_on}" if why else going_on)
        self.applied = applied


def _named(ranges: list[str]) -> str:
    unique = list(dict.fromkeys(ranges))
    more = len(unique) - _MOST_NAMED
    return ", ".join(unique[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
