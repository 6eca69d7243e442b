"""This host's clock, against those of others."""

from __future__ import annotations

from mtlskit.doctor.case import Case, Identified, Shaken, Taken
from mtlskit.doctor.finding import Finding

__all__ = ["compare_clocks"]


async def compare_clocks(
    case: Case, identified: Identified, shaken: tuple[Shaken, ...], taken: tuple[Taken, ...]
) -> tuple[Finding, ...]:
    """Layer CLOCK. Looks at what others have shown; asks Heroku's API for its Date where it may be asked."""
    raise NotImplementedError
