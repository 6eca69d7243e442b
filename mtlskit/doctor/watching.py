"""Who is told how an examination goes on: a line on a terminal, a test, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mtlskit.doctor.finding import Finding, Layer

__all__ = ["Nobody", "Watcher"]


class Watcher(Protocol):
    """Called from the examination's own task; must not block."""

    def began(self, name: str, layer: Layer, about: str) -> None:
        """A check has begun. `name` is the tunnel's."""

    def ended(self, name: str, layer: Layer, about: str, findings: Sequence[Finding]) -> None:
        """It has ended, with these findings."""


class Nobody:
    """Is told, and does nothing."""

    def began(self, name: str, layer: Layer, about: str) -> None:
        """Nothing."""

    def ended(self, name: str, layer: Layer, about: str, findings: Sequence[Finding]) -> None:
        """Nothing."""
