"""The handshake: versions, cipher, the server's chain and names, and which `verify` would pass."""

from __future__ import annotations

from mtlskit.config.values import Endpoint
from mtlskit.doctor.case import Case, Identified, Shaken
from mtlskit.net.names import Address

__all__ = ["shake_hands"]


async def shake_hands(case: Case, endpoint: Endpoint, address: Address, identified: Identified) -> Shaken:
    """Layer TLS. Handshakes side by side, within `case.means.step`."""
    raise NotImplementedError
