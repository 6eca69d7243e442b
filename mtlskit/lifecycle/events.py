"""What a rotation tells while it goes on: progress for people, facts for the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from mtlskit.telemetry import Event, Level

__all__ = [
    "HookRan",
    "RenewalPlanned",
    "Rotated",
    "RotationBegun",
    "RotationFailed",
    "RotationNoted",
    "RotationResumed",
    "RotationStepDone",
    "RotationWaits",
]


@dataclass(frozen=True, kw_only=True)
class _OfIdentity(Event):
    identity: str


@dataclass(frozen=True, kw_only=True)
class _OfRotation(_OfIdentity):
    rotation: str


@dataclass(frozen=True, kw_only=True)
class RotationBegun(_OfRotation):
    """A rotation has begun."""

    reason: str
    issuer: str

    def sentence(self) -> str:
        return f"{self.identity}: a new certificate from {self.issuer} ({self.reason})"


@dataclass(frozen=True, kw_only=True)
class RotationResumed(_OfRotation):
    """A rotation that an earlier run left unfinished goes on."""

    after: str

    def sentence(self) -> str:
        return f"{self.identity}: going on with rotation {self.rotation}, which ended after: {self.after}"


@dataclass(frozen=True, kw_only=True)
class RotationStepDone(_OfRotation):
    """One step of a rotation is done, and written in the journal."""

    step: str
    told: str

    def sentence(self) -> str:
        return f"{self.identity}: {self.told}"


@dataclass(frozen=True, kw_only=True)
class RotationNoted(_OfIdentity):
    """A rotation goes on, and something about it deserves attention."""

    level: ClassVar[Level] = Level.WARNING

    note: str

    def sentence(self) -> str:
        return f"{self.identity}: {self.note}"


@dataclass(frozen=True, kw_only=True)
class RotationWaits(_OfIdentity):
    """A rotation cannot go on by itself right now."""

    waits_for: str

    def sentence(self) -> str:
        return f"{self.identity}: waiting: {self.waits_for}"


@dataclass(frozen=True, kw_only=True)
class Rotated(_OfRotation):
    """A new certificate is in use."""

    version: int
    serial: str
    old_serial: str
    not_after: str
    """ISO 8601, UTC."""

    def sentence(self) -> str:
        until = f"{self.not_after[:16].replace('T', ' ')} UTC"
        before = f" in place of {self.old_serial}" if self.old_serial else ""
        return f"{self.identity}: version {self.version}, serial {self.serial}{before}, valid until {until}"


@dataclass(frozen=True, kw_only=True)
class RotationFailed(_OfIdentity):
    """A rotation could not be finished; the next run goes on where it ended."""

    level: ClassVar[Level] = Level.ERROR

    step: str
    code: str
    reason: str
    hint: str
    serial: str = ""
    """Of the new certificate, where it is in use already."""

    @property
    def told(self) -> str:
        """The reason, and which certificate is in use where that is a new one."""
        return f"the new certificate {self.serial} is in use, but: {self.reason}" if self.serial else self.reason

    def sentence(self) -> str:
        hint = f"; {self.hint}" if self.hint else ""
        return f"{self.identity}: the rotation failed at {self.step}: {self.told} [{self.code}]{hint}"


@dataclass(frozen=True, kw_only=True)
class RenewalPlanned(_OfIdentity):
    """A watcher knows when it will renew an identity."""

    serial: str
    at: str
    """ISO 8601, UTC."""

    def sentence(self) -> str:
        return f"{self.identity}: serial {self.serial} will be renewed on {self.at[:16].replace('T', ' ')} UTC"


@dataclass(frozen=True, kw_only=True)
class HookRan(_OfIdentity):
    """A program of `[hooks]` has ended."""

    hook: str
    program: str
    said: str
    """The end of its error stream."""
    printed: str
    """The end of its output."""

    def sentence(self) -> str:
        words = " / ".join(filter(None, (self.printed, self.said)))
        return f"{self.identity}: hook {self.hook} ({self.program}) is done{': ' if words else ''}{words}"
