"""TCP to each address: refused, filtered, reset, and how long it takes."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Reached
from mtlskit.net.names import Address

__all__ = ["reach"]


async def reach(case: Case, endpoint: Endpoint, addresses: tuple[Address, ...]) -> Reached:
    """Layer TCP. All addresses side by side, within `case.means.step`."""
    raise NotImplementedError
