"""Whether our certificate, or the server's, is known to be revoked."""

from __future__ import annotations

from mtlskit.doctor.case import Case, Identified, Shaken
from mtlskit.doctor.finding import Finding

__all__ = ["look_for_revocation"]


async def look_for_revocation(case: Case, identified: Identified, shaken: Shaken | None) -> tuple[Finding, ...]:
    """Layer REVOCATION. `shaken` is that of the first endpoint; None where no handshake came so far."""
    raise NotImplementedError
