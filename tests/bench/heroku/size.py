"""How much of everything: what is quoted, and what the test of the bench takes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "TINY", "Size"]


@dataclass(frozen=True)
class Size:
    """Times in seconds."""

    rounds: int = 5
    latency: float = 0.1
    """Of each answer of the API."""
    plan_addons: int = 20
    plan_rules: int = 60
    """At each add-on, the sandbox's own for this machine among them."""
    apply_addons: int = 3
    apply_rules: int = 20
    rule: float = 5.0
    """What a rule takes to act."""
    slow_rule: float = 15.0
    """The same, of the add-on that is slower than the others."""


FULL = Size()
TINY = Size(rounds=1, latency=0.01, plan_addons=2, plan_rules=3, apply_addons=2, apply_rules=2, rule=0.2, slow_rule=1.0)
