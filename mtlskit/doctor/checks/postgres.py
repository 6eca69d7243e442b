"""Inside Postgres: how one logs in, whether we can, and how it goes there."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Credentials, Identified
from mtlskit.doctor.finding import Finding

__all__ = ["look_inside_postgres"]


async def look_inside_postgres(
    case: Case, endpoint: Endpoint, identified: Identified, credentials: Credentials | None
) -> tuple[Finding, ...]:
    """Layer POSTGRES. `identified.snapshot` is there. `credentials` are the add-on's; else it finds some itself."""
    raise NotImplementedError
