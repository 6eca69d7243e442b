"""The host name: to which addresses it leads, of both families."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Resolved

__all__ = ["resolve"]


async def resolve(case: Case, endpoint: Endpoint) -> Resolved:
    """Layer DNS. Ends within `case.means.step`."""
    raise NotImplementedError
