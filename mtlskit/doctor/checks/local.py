"""The local side: is the proxy there, what does it serve, is the door ours, and does a plain client get through."""

from __future__ import annotations

from mtlskit.doctor.case import Case, Identified
from mtlskit.doctor.finding import Finding

__all__ = ["look_at_local_side"]


async def look_at_local_side(case: Case, identified: Identified) -> tuple[Finding, ...]:
    """Layer LOCAL. Only called for a tunnel of a file."""
    raise NotImplementedError
