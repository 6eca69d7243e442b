"""One run of one rotation, as its steps see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from mtlskit.errors import MtlskitError
from mtlskit.issuers.base import Order
from mtlskit.lifecycle.events import RotationNoted, RotationWaits
from mtlskit.lifecycle.target import Target, Tools, Wanted
from mtlskit.net.files import read_public
from mtlskit.store.journal import BEGUN, Rotation

__all__ = ["REQUEST", "Done", "Step", "StillWaiting", "UselessRotation", "Work"]

REQUEST = "client.csr"
"""The name of our request among a rotation's pending files."""


class StillWaiting(Exception):
    """A step cannot be done yet; the text says what is waited for."""


class UselessRotation(Exception):
    """What this rotation was given will never do: `error` says why, and the next run begins anew."""

    def __init__(self, error: MtlskitError) -> None:
        super().__init__(error.sentence)
        self.error = error


@dataclass(frozen=True)
class Done:
    """A step that is done: a word on it for people (empty: not worth one), and its facts for the journal."""

    told: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Work:
    """`until`: trio's time up to which may be waited; None: not at all."""

    target: Target
    tools: Tools
    wanted: Wanted
    rotation: Rotation
    until: float | None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def looking_back(cls, target: Target, tools: Tools, rotation: Rotation) -> Work:
        """One that nothing more is wanted of than its order."""
        return cls(target, tools, Wanted("looking back"), rotation, None)

    @property
    def pending(self) -> Path:
        """The folder of what this rotation has made and not yet used."""
        return self.target.stored.pending(self.rotation.id)

    @property
    def begun(self) -> Mapping[str, Any]:
        """What was written down when the rotation began."""
        return self.rotation.facts(BEGUN)

    def order(self) -> Order:
        """What the issuer is asked for. Raises `IdentityError` if our own request cannot be read."""
        request = self.pending / REQUEST
        return Order(
            rotation=self.rotation.id,
            identity=self.target.name,
            pending=self.pending,
            now=self.tools.clock(),
            request_pem=read_public(request, "certificate request") if request.exists() else None,
            reset=self.wanted.reset,
        )

    def note(self, text: str) -> None:
        """Something that deserves attention, and does not stop the rotation."""
        self.notes.append(text)
        self.tools.emit(RotationNoted(identity=self.target.name, note=text))

    async def pause(self, seconds: float, waits_for: str) -> None:
        """Wait a little, told once. Raises `StillWaiting` when there is no time left to wait."""
        if self.until is None or trio.current_time() >= self.until:
            raise StillWaiting(waits_for)
        event = RotationWaits(identity=self.target.name, waits_for=waits_for)
        if event != self._told:
            self._told = event
            self.tools.emit(event)
        await trio.sleep(min(seconds, max(0.0, self.until - trio.current_time())))

    _told: RotationWaits | None = None


Step = Callable[[Work], Awaitable[Done]]
"""Raises `StillWaiting`, `UselessRotation`, and `MtlskitError` for what the next run may find mended."""
